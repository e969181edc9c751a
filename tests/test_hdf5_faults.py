"""HDF5 files that can't be read as they are: each cause is made for real, and has a sentence of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import Answer
from dataset_factory import arrays, assert_same, make

from ractd import validate
from ractd.data import load_dataset
from ractd.data.formats.hdf5 import open_hdf5, write_hdf5
from ractd.data.reading import read
from ractd.errors import RactdError

Cli = Callable[..., Answer]

WRITTEN = "another process is writing this HDF5 file; wait until it has closed it, or read a copy"
WRITER = """
import sys, time, h5py, numpy as np
path, mode = sys.argv[1:]
file = h5py.File(path, "a", libver="latest", locking=mode == "locked")
log = file.create_dataset("log", shape=(0,), maxshape=(None,), chunks=(16,), dtype="f4")
if mode == "swmr":
    file.swmr_mode = True
log.resize((100,))
log[:] = 1
file.flush()
print("ready", flush=True)
time.sleep(300)
"""


@contextmanager
def writer(path: Path, mode: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the file open for writing."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path), mode], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def assert_said(cli: Cli, path: Path, *words: str) -> None:
    """Training refuses the file and validating finds it, in one sentence with these words and no other advice."""
    out = path.parent / "run"
    answer = cli("train", path, "--out", out)
    assert answer.code == 2
    lines = answer.err.splitlines()
    assert len(lines) == 1, answer.err
    found = cli("data", "validate", path)
    assert found.code == 2
    errors = [line for line in found.out.splitlines() if line.startswith("error: ")]
    assert re.sub(r" \(\d more problem.*", "", lines[0]) in errors
    for word in (str(path), *words):
        assert word in lines[0]
    assert "damaged" not in lines[0]
    assert not out.exists()


def test_a_file_that_another_process_writes(cli: Callable[..., Answer], tmp_path: Path) -> None:
    path = tmp_path / "log.hdf5"
    with writer(path, "locked"):
        assert_said(cli, path, WRITTEN)


@pytest.mark.parametrize("mode", ["unlocked", "swmr"])
def test_a_file_that_a_writer_has_not_closed(mode: str, cli: Callable[..., Answer], tmp_path: Path) -> None:
    path = tmp_path / "log.hdf5"
    with writer(path, mode) as process:
        assert_said(cli, path, "marked as open for writing")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert_said(cli, path, "stopped before it closed the file", f"`h5clear -s {path}`")


def test_a_writer_that_comes_between_opening_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "log.hdf5"
    write_hdf5(path, make())
    source = open_hdf5(path)
    with writer(path, "locked"):
        _, findings = read(source)
    errors = [finding.message for finding in findings if finding.level == "error"]
    assert errors == [f"{path}: {WRITTEN}"] * 5


# Fields.


def rewritten(path: Path, without: str = "observations") -> h5py.File:
    """A sound file but for one field."""
    write_hdf5(path, make())
    file = h5py.File(path, "r+")
    del file[without]
    return file


def filtered(file: h5py.File, name: str, number: int, mask: int) -> None:
    """A field whose chunk says that a filter with this number made it, or, by its mask, that none did."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((15, 3))
    properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((15, 3))
    dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_FLOAT, space, properties)
    dataset.write_direct_chunk((0, 0), arrays()["observations"].tobytes(), mask)


@pytest.mark.parametrize(
    ("number", "words"),
    [(32015, ["32015 (Zstandard)", "pip install hdf5plugin"]), (40123, ["filter 40123,", "install that filter"])],
)
def test_a_compression_that_is_not_installed(
    number: int, words: list[str], cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    path = tmp_path / "data.hdf5"
    with rewritten(path) as file:
        filtered(file, "observations", number, 0)
    with h5py.File(path) as file, pytest.raises(OSError, match="can't"):
        file["observations"][:]
    assert_said(cli, path, "'observations'", *words, "gzip")


def test_a_filter_that_was_left_out_is_not_needed(tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    with rewritten(path) as file:
        filtered(file, "observations", 32015, 1)
    assert_same(load_dataset(path), make())


def test_a_filter_on_a_field_that_is_not_read_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    write_hdf5(path, make())
    with h5py.File(path, "r+") as file:
        filtered(file, "next_observations", 32015, 0)
    assert_same(load_dataset(path), make())


def test_the_filters_of_hdf5plugin_are_used_where_it_is(
    cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for hdf5plugin: that importing it is enough is its own promise."""
    plugin = tmp_path / "plugins" / "hdf5plugin.py"
    plugin.parent.mkdir()
    plugin.write_text("import h5py\nh5py.h5z.filter_avail = lambda number: True\n")
    monkeypatch.syspath_prepend(plugin.parent)
    monkeypatch.setattr(h5py.h5z, "filter_avail", h5py.h5z.filter_avail)
    path = tmp_path / "data.hdf5"
    with rewritten(path) as file:
        filtered(file, "observations", 32015, 0)
    assert "observations" in open_hdf5(path).fields
    monkeypatch.delitem(sys.modules, "hdf5plugin")


def in_parts(folder: Path, rows: slice = slice(None)) -> Path:
    """A dataset whose observations are virtual: three parts of five rows in files beside it."""
    path = folder / "data.hdf5"
    values = arrays()["observations"]
    layout = h5py.VirtualLayout((15, 3), "f4")
    for number in range(3):
        with h5py.File(folder / f"part{number}.hdf5", "w") as part:
            part["obs"] = values[5 * number : 5 * number + 5]
        if number in range(3)[rows]:
            layout[5 * number : 5 * number + 5] = h5py.VirtualSource(f"part{number}.hdf5", "obs", (5, 3))
    with rewritten(path) as file:
        file.create_virtual_dataset("observations", layout)
    return path


def test_a_virtual_dataset_whose_parts_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_parts(tmp_path)
    assert_same(load_dataset(path), make())
    monkeypatch.chdir(tmp_path)
    assert_same(load_dataset("data.hdf5"), make())
    link = tmp_path / "elsewhere"
    link.mkdir()
    (link / "data.hdf5").symlink_to(path)
    assert_same(load_dataset(link / "data.hdf5"), make())


def gone(part: Path) -> None:
    part.unlink()


def without_the_array(part: Path) -> None:
    with h5py.File(part, "r+") as file:
        file.move("obs", "old")


def short(part: Path) -> None:
    with h5py.File(part, "w") as file:
        file["obs"] = np.ones((4, 3), "f4")


def no_hdf5(part: Path) -> None:
    part.write_text("hello")


def compressed(part: Path) -> None:
    with h5py.File(part, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((5, 3))
        properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
        dataset = h5py.h5d.create(file.id, b"obs", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((5, 3)), properties)
        dataset.write_direct_chunk((0, 0), b"unreadable", 0)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (gone, ["a file that is missing; put it beside"]),
        (without_the_array, ["has no such array"]),
        (short, ["(4, 3)", "less than is mapped"]),
        (no_hdf5, ["can't be read", "not an HDF5 file"]),
        (compressed, ["32015 (Zstandard)"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_part_of_a_virtual_dataset(
    spoil: Callable[..., Any],
    words: list[str],
    cli: Callable[..., Answer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    path = in_parts(tmp_path)
    spoil(tmp_path / "part1.hdf5")
    assert_said(cli, path, "'observations'", "virtual", "rows 5 to 9 are 'obs' of 'part1.hdf5'", *words)


def test_rows_that_a_virtual_dataset_maps_to_nothing(cli: Callable[..., Answer], tmp_path: Path) -> None:
    assert_said(cli, in_parts(tmp_path, slice(0, None, 2)), "5 of its rows, the first 5, are mapped to no file")


def test_numbers_that_a_virtual_dataset_maps_to_nothing(cli: Callable[..., Answer], tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    layout = h5py.VirtualLayout((15, 3), "f4")
    with rewritten(path) as file:
        file["two"] = np.ones((15, 2), "f4")
        layout[:, :2] = h5py.VirtualSource(file["two"])
        file.create_virtual_dataset("observations", layout)
    assert_said(cli, path, "maps 30 of its 45 numbers only")


def test_a_virtual_dataset_of_virtual_datasets(cli: Callable[..., Answer], tmp_path: Path) -> None:
    inner = in_parts(tmp_path)
    inner.rename(tmp_path / "inner.hdf5")
    path = tmp_path / "outer.hdf5"
    layout = h5py.VirtualLayout((15, 3), "f4")
    layout[:] = h5py.VirtualSource("inner.hdf5", "observations", (15, 3))
    with rewritten(path) as file:
        file.create_virtual_dataset("observations", layout)
    assert_same(load_dataset(path), make())
    gone(tmp_path / "part2.hdf5")
    assert_said(cli, path, "rows 0 to 14", "'inner.hdf5', which is virtual", "rows 10 to 14", "'part2.hdf5'")


def test_a_virtual_dataset_that_grows_with_its_parts(cli: Callable[..., Answer], tmp_path: Path) -> None:
    series, growing = tmp_path / "series.hdf5", tmp_path / "growing.hdf5"
    in_parts(tmp_path)
    with rewritten(series) as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        space = h5py.h5s.create_simple((0, 3), (h5py.h5s.UNLIMITED, 3))
        space.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), (5, 3), (5, 3))
        properties.set_virtual(space, b"part%b.hdf5", b"obs", h5py.h5s.create_simple((5, 3)))
        h5py.h5d.create(file.id, b"observations", h5py.h5t.NATIVE_FLOAT, space, properties)
    assert_same(load_dataset(series), make())

    with h5py.File(tmp_path / "all.hdf5", "w") as file:
        file.create_dataset("obs", data=arrays()["observations"], maxshape=(None, 3))
    source = h5py.VirtualSource("all.hdf5", "obs", (15, 3), maxshape=(None, 3))
    layout = h5py.VirtualLayout((15, 3), "f4", maxshape=(None, 3))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    with rewritten(growing) as file:
        file.create_virtual_dataset("observations", layout)
    assert_same(load_dataset(growing), make())
    gone(tmp_path / "all.hdf5")
    assert_said(cli, growing, "'all.hdf5', a file that is missing")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (h5py.SoftLink("/log/actions"), ["a link to '/log/actions'", "this file has nothing"]),
        (h5py.SoftLink("/observations"), ["a link to '/observations'"]),
        (h5py.ExternalLink("gone.hdf5", "/x"), ["'/x' of 'gone.hdf5', a file that is missing"]),
        (h5py.ExternalLink("part0.hdf5", "/x"), ["'/x' of 'part0.hdf5', which has nothing by that name"]),
        (h5py.ExternalLink("text.hdf5", "/x"), ["'/x' of 'text.hdf5', which can't be read", "not an HDF5 file"]),
    ],
    ids=["soft", "loop", "no file", "nothing in it", "no HDF5"],
)
def test_links_that_lead_nowhere(link: Any, words: list[str], cli: Callable[..., Answer], tmp_path: Path) -> None:
    in_parts(tmp_path)
    (tmp_path / "text.hdf5").write_text("hello")
    path = tmp_path / "links.hdf5"
    with rewritten(path) as file:
        file["observations"] = link
    assert_said(cli, path, "'observations'", *words)


def test_links_that_lead_somewhere(tmp_path: Path) -> None:
    in_parts(tmp_path)
    with h5py.File(tmp_path / "all.hdf5", "w") as file:
        file["obs"] = arrays()["observations"]
    path = tmp_path / "links.hdf5"
    with rewritten(path) as file:
        file["observations"] = h5py.ExternalLink("all.hdf5", "/obs")
        file["elsewhere"] = h5py.SoftLink("/nothing")
    assert_same(load_dataset(path), make())


def test_a_group_where_a_field_is_expected(cli: Callable[..., Answer], tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    with rewritten(path) as file:
        file["observations/position"] = np.zeros(15)
        file["observations/velocity"] = np.zeros(15)
    assert_said(cli, path, "'observations' is a group that holds 'position', 'velocity', expected one array")


def test_a_type_where_a_field_is_expected(cli: Callable[..., Answer], tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    with rewritten(path) as file:
        file["observations"] = np.dtype("f4")
    assert_said(cli, path, "'observations' is a named type, expected an array")


def test_arrays_in_groups(cli: Callable[..., Answer], tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    with h5py.File(path, "w") as file:
        for name, values in arrays().items():
            file[f"train/{name}"] = values
        file["test/obs"] = np.zeros(3)
    assert_said(cli, path, "found 'test', 'train'", "'train' holds 'actions', 'observations'", "in no group")
    with h5py.File(path, "w") as file:
        for name, values in arrays().items():
            file[f"log/{name}" if name == "rewards" else name] = values
    assert_said(cli, path, "'rewards' is missing", "'log' holds 'rewards'")
    with h5py.File(path, "w") as file:
        file["data/demo_0/actions"] = np.zeros(3)
    assert_said(cli, path, "robomimic")


def test_a_file_without_arrays(cli: Callable[..., Answer], tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    h5py.File(path, "w").close()
    assert_said(cli, path, "found nothing", "the file holds no arrays")


def test_attributes_of_another_type(cli: Callable[..., Answer], tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    write_hdf5(path, make(env_id="Hopper-v5"))
    with h5py.File(path, "r+") as file:
        file.attrs["env_id"] = np.bytes_(b"Ant-v5")
    assert load_dataset(path).env_id == "Ant-v5"
    with h5py.File(path, "r+") as file:
        file.attrs["env_id"] = h5py.Empty("S1")
    assert load_dataset(path).env_id is None
    with h5py.File(path, "r+") as file:
        file.attrs["env_id"] = ["Ant-v5", "Ant-v4"]
    assert_said(cli, path, "'env_id' has dtype object and shape (2,), expected one text")


def test_rows_that_were_never_written_are_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    with rewritten(path) as file:
        file.create_dataset("observations", (15, 3), "f4", chunks=(4, 3))[:7] = 1
        del file["rewards"]
        file.create_dataset("rewards", (15,), "f4")
        del file["timeouts"]
        file.create_dataset("timeouts", (15,), bool)
    said = [finding.message for finding in validate(path) if "never written" in finding.message]
    assert said == [
        f"{path}: field 'observations' was never written in 2 of its 4 chunks, which are read as 0.0; were all rows logged?",
        f"{path}: field 'rewards' was never written, and is read as 0.0; were all rows logged?",
    ]


# What only mazes have.


@pytest.mark.parametrize(
    "goal", [np.zeros(15, "f4"), np.zeros((15, 7, 2), "f4"), np.zeros((3, 2)), np.full(15, "x", "S1")]
)
def test_goals_are_read_for_mazes_only(goal: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    write_hdf5(path, make(env_id="Reach-v0"))
    with h5py.File(path, "r+") as file:
        file["infos/goal"] = goal
    data = load_dataset(path)
    assert_same(data, make(env_id="Reach-v0"))
    assert data.goals is None
    assert not [finding for finding in validate(path) if finding.level == "error"]
    with pytest.raises(RactdError, match="infos/goal"):
        load_dataset(path, env_id="ractd/maze2d-umaze")
