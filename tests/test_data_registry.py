"""One string to a dataset."""

from __future__ import annotations

import pytest
from dataset_factory import assert_same, make, save_npz

from ractd.data import list_datasets, load_dataset, write_hdf5
from ractd.data.registry import dataset_dir
from ractd.errors import RactdError


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("RACTD_DATA", str(tmp_path / "made"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def test_by_path(tmp_path, monkeypatch):
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


def test_by_the_name_of_one_made_here():
    with pytest.raises(RactdError, match="'hopper-mixed' is not made yet: run `ractd data make hopper-mixed`"):
        load_dataset("hopper-mixed")
    write_hdf5(dataset_dir() / "hopper-mixed.hdf5", make(env_id="Hopper-v5"))
    data = load_dataset("hopper-mixed")
    assert (data.name, data.env_id) == ("hopper-mixed", "Hopper-v5")


def test_unknown_names_say_what_was_tried_and_what_is_close():
    with pytest.raises(
        RactdError, match=r"tried as a file, .*D4RL name.*did you mean hopper-medium-replay-v2 .*data list"
    ):
        load_dataset("hopper-medium-replay-v7")
    with pytest.raises(RactdError, match="did you mean hopper-mixed"):
        load_dataset("hoper-mixed")
    with pytest.raises(RactdError, match=r"'zzzzzz' is not known \(tried as .*\); `ractd data list`"):
        load_dataset("zzzzzz")


def test_list_names_everything(tmp_path):
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


def test_dataset_dir_defaults_to_the_users_data_folder(monkeypatch):
    monkeypatch.delenv("RACTD_DATA")
    assert dataset_dir().parts[-2:] == ("ractd", "datasets")
