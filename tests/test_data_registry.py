"""One string to a dataset."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from dataset_factory import assert_same, make, save_npz

from ractd.data import formats, list_datasets, load_dataset, write_hdf5
from ractd.data.fields import Source
from ractd.data.formats import DatasetInfo
from ractd.data.formats.made import dataset_dir
from ractd.data.formats.npz import open_npz
from ractd.errors import RactdError


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACTD_DATA", str(tmp_path / "made"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def test_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make()
    write_hdf5(tmp_path / "a.hdf5", data)
    write_hdf5(tmp_path / "a.h5", data)
    save_npz(tmp_path / "a.npz", data)
    monkeypatch.chdir(tmp_path)
    for name in ("a.hdf5", tmp_path / "a.h5", "./a.npz"):
        assert_same(load_dataset(name), data)
    assert load_dataset("a.npz", env_id="Hopper-v5").env_id == "Hopper-v5"
    (tmp_path / "a.pkl").write_bytes(b"")
    with pytest.raises(RactdError, match=r"a\.pkl: unknown kind of file '\.pkl', expected \.hdf5, \.h5, \.npz"):
        load_dataset("a.pkl")
    with pytest.raises(RactdError, match="is a folder"):
        load_dataset(tmp_path)


def test_by_the_name_of_one_made_here() -> None:
    with pytest.raises(RactdError, match="'hopper-mixed' is not made yet: run `ractd data make hopper-mixed`"):
        load_dataset("hopper-mixed")
    write_hdf5(dataset_dir() / "hopper-mixed.hdf5", make(env_id="Hopper-v5"))
    data = load_dataset("hopper-mixed")
    assert (data.name, data.env_id) == ("hopper-mixed", "Hopper-v5")


def test_unknown_names_say_what_was_tried_and_what_is_close() -> None:
    with pytest.raises(
        RactdError, match=r"tried as a file, .*D4RL name.*did you mean hopper-medium-replay-v2 .*data list"
    ):
        load_dataset("hopper-medium-replay-v7")
    with pytest.raises(RactdError, match="did you mean hopper-mixed"):
        load_dataset("hoper-mixed")
    with pytest.raises(RactdError, match=r"'zzzzzz' is not known \(tried as .*\); `ractd data list`"):
        load_dataset("zzzzzz")


def test_a_home_folder_of_nobody_is_no_file() -> None:
    with pytest.raises(RactdError, match="no such file"):
        load_dataset("~no-such-user/x.hdf5")


def test_list_names_everything(tmp_path: Path) -> None:
    write_hdf5(dataset_dir() / "mine.hdf5", make())
    (tmp_path / "d4rl").mkdir()
    write_hdf5(tmp_path / "d4rl" / "hopper_medium-v2.hdf5", make())
    rows = {row.name: row for row in list_datasets()}
    assert (rows["hopper-mixed"].kind, rows["hopper-mixed"].present) == ("recipe", False)
    assert (rows["mine"].kind, rows["mine"].present, rows["mine"].description) == ("made", True, "random numbers")
    assert rows["hopper-medium-v2"].present
    assert rows["hopper-medium-v2"].location.endswith("d4rl/hopper_medium-v2.hdf5")
    assert not rows["walker2d-medium-v2"].present
    assert rows["walker2d-medium-v2"].location.startswith("http")
    write_hdf5(dataset_dir() / "hopper-mixed.hdf5", make())
    assert [row.present for row in list_datasets() if row.name == "hopper-mixed"] == [True]


def test_dataset_dir_defaults_to_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RACTD_DATA")
    assert dataset_dir().parts[-2:] == ("ractd", "datasets")


def test_a_format_is_a_file_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout of its own in a file that ends as others do, and names of its own."""
    data = make(env_id="Hopper-v5")
    ours = ModuleType("our_format")
    opened: list[object] = []

    def open_ours(path: Path) -> Source | None:
        opened.append(path)
        return open_npz(path.with_suffix(".values")) if path.with_suffix(".values").exists() else None

    ours.open_ours = open_ours  # type: ignore[attr-defined]
    ours.CALLED = "a robot's number"  # type: ignore[attr-defined]
    ours.find = lambda name, download: open_npz(tmp_path / "a.npz") if name == "robot-7" else None  # type: ignore[attr-defined]
    ours.datasets = lambda: [DatasetInfo("robot-7", "made", "here", True, "ours")]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "our_format", ours)
    monkeypatch.setitem(formats.FILES, ".npz", ("our_format:open_ours", *formats.FILES[".npz"]))
    monkeypatch.setattr(formats, "NAMED", (*formats.NAMED, "our_format"))
    save_npz(tmp_path / "a.npz", data)
    assert_same(load_dataset(tmp_path / "a.npz"), data)
    assert_same(load_dataset("robot-7"), data)
    assert "robot-7" in [info.name for info in list_datasets()]
    with pytest.raises(RactdError, match=r"a Minari id, a robot's number\); did you mean robot-7"):
        load_dataset("robot-8")
    save_npz(tmp_path / "other.npz", make([4, 6]))
    (tmp_path / "other.npz").rename(tmp_path / "b.values")
    (tmp_path / "b.npz").write_bytes(b"")
    assert_same(load_dataset(tmp_path / "b.npz"), make([4, 6]))
    assert opened == [tmp_path / "a.npz", tmp_path / "b.npz"]
    monkeypatch.setitem(formats.FILES, ".npz", ("our_format:open_ours",))
    with pytest.raises(RactdError, match=r"a\.npz: none of the formats of \.npz files has its layout"):
        load_dataset(tmp_path / "a.npz")
