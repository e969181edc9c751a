"""HDF5 and npz: what is written is what is read, and nothing half-written appears."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pytest
from conftest import Answer
from dataset_factory import FIELDS, arrays, assert_same, make, save_npz

from ractd.data import load_dataset, write_hdf5
from ractd.data.formats import hdf5 as hdf5_module
from ractd.errors import RactdError


def save_h5(path: Path, fields: dict[str, Any], **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            file.create_dataset(name, data=values, **options)
    return path


def test_hdf5_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_module, "BLOCK_ROWS", 7)
    monkeypatch.setattr(hdf5_module, "CHUNK_ROWS", 4)
    data = make([9, 1, 30], name="toy", env_id="Hopper-v5")
    final = data.observations[data.episode_ends - 1] + 1
    data = replace(data, final_observations=final)
    path = tmp_path / "deep" / "toy.hdf5"
    write_hdf5(path, data, attrs={"ref_min_score": -20.5})
    again = load_dataset(path)
    assert_same(data, again)
    assert (again.name, again.env_id, again.recipe, again.source) == ("toy", "Hopper-v5", "random numbers", str(path))
    with h5py.File(path) as file:
        assert file.attrs["ref_min_score"] == -20.5
        assert file["observations"].compression == "gzip"
        after = np.concatenate([data.observations[1:], final[-1:]])
        after[data.episode_ends - 1] = final
        np.testing.assert_array_equal(file["next_observations"][:], after)
    np.testing.assert_array_equal(again.final_observations, final)  # type: ignore[arg-type]
    assert [p.name for p in path.parent.iterdir()] == ["toy.hdf5"]
    assert oct(path.stat().st_mode & 0o777) == oct(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "toy.hdf5"
    write_hdf5(path, make())
    before = path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(hdf5_module, "_write_field", full_disk)
    with pytest.raises(RactdError, match=r"toy\.hdf5: could not be written \(No space .* is untouched"):
        write_hdf5(path, make(seed=1))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["toy.hdf5"]


def test_hdf5_as_others_write_it(tmp_path: Path) -> None:
    fields = arrays()
    path = save_h5(
        tmp_path / "theirs.h5",
        {
            "observations": fields["observations"].astype(np.float64),
            "actions": fields["actions"].astype(np.float16),
            "rewards": fields["rewards"].reshape(-1, 1),
            "terminals": fields["terminals"].astype(np.uint8),
            "timeouts": fields["timeouts"].astype(np.float32).reshape(-1, 1),
            "infos/qpos": np.zeros((3, 2)),
            "metadata/algorithm": b"SAC",
            "next_observations": np.full((15, 3), np.nan),
            "extra": np.zeros(4),
        },
    )
    data = load_dataset(path)
    for name in ("observations", "rewards", "terminals", "timeouts"):
        np.testing.assert_array_equal(getattr(data, name), fields[name])
    np.testing.assert_allclose(data.actions, fields["actions"], atol=1e-3)


def test_hdf5_chunked_by_column_and_missing_timeouts(tmp_path: Path) -> None:
    fields = arrays([40_000, 60_000])
    del fields["timeouts"]
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name, values in fields.items():
            file.create_dataset(name, data=values, chunks=(3_000, *([1] * (values.ndim - 1))), compression="gzip")
    data = load_dataset(tmp_path / "x.hdf5")
    np.testing.assert_array_equal(data.observations, fields["observations"])
    assert not data.timeouts.any()
    assert data.episode_ends.tolist() == [40_000, 100_000]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_as_others_write_it(tmp_path: Path, save: Callable[..., None], order: Literal["C", "F"]) -> None:
    fields = arrays([40_000, 40_000])
    wide = {name: np.asarray(value, dtype=np.float64, order=order) for name, value in fields.items()}
    save(tmp_path / "x.npz", **wide, env_id=np.array("Hopper-v5"))
    data = load_dataset(tmp_path / "x.npz")
    assert data.env_id == "Hopper-v5"
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(data, name), fields[name])


def test_npz_with_environment_and_recipe(tmp_path: Path) -> None:
    data = make(env_id="Walker2d-v5")
    save_npz(tmp_path / "toy.npz", data)
    again = load_dataset(tmp_path / "toy.npz")
    assert_same(data, again)
    assert (again.name, again.env_id, again.recipe) == ("toy", "Walker2d-v5", "random numbers")


class Bomb:
    """An object whose unpickling would be seen."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("import os; os.environ['RACTD_TEST_BOMB'] = '1'",))


@pytest.mark.parametrize(
    "text", [b"Hopper-v5", "Hopper-v5", np.array("Hopper-v5", ">U20"), np.array(b"Hopper-v5", "S30")]
)
def test_npz_metadata_is_text_or_bytes(text: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays(), env_id=text, recipe="", maze=b"")
    data = load_dataset(tmp_path / "x.npz")
    assert (data.env_id, data.recipe, data.maze) == ("Hopper-v5", "", "")


@pytest.mark.parametrize("key", ["env_id", "recipe", "maze"])
@pytest.mark.parametrize(
    ("value", "what"),
    [
        (np.array(["Hopper-v5"]), "dtype <U9 and shape (1,)"),
        (np.array(None), "dtype object"),
        (np.array([Bomb()], object), "dtype object and shape (1,)"),
        (5, "dtype int64"),
    ],
    ids=["one in a list", "none", "pickle", "number"],
)
def test_npz_metadata_of_another_type(
    key: str, value: Any, what: str, tmp_path: Path, cli: Callable[..., Answer]
) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **arrays(), **{key: value})
    said = f"{path}: {key!r} has {what}, expected one text; write it as such, or leave it out"
    for words in (("train", path, "--out", tmp_path / "run"), ("data", "validate", path)):
        answer = cli(*words)
        assert answer.code == 2
        assert f"error: {said}" in (answer.out + answer.err).splitlines()
    assert not (tmp_path / "run").exists()
    assert "RACTD_TEST_BOMB" not in os.environ


def test_pickled_objects_are_refused_and_never_opened(tmp_path: Path) -> None:
    fields = arrays()
    objects = np.empty(15, dtype=object)
    objects[:] = [Bomb() for _ in range(15)]
    np.savez(tmp_path / "x.npz", **(fields | {"rewards": objects, "more": objects}))
    with pytest.raises(RactdError, match=r"field 'rewards' has dtype object, expected float32 of shape \(N,\)"):
        load_dataset(tmp_path / "x.npz")
    assert "RACTD_TEST_BOMB" not in os.environ


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3)",
        "{'descr': '<f4', 'fortran_order': False, 'shape': '(4, 3)}",
    ],
)
def test_npz_with_a_damaged_header(header: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        text = header.ljust(117) + "\n"
        archive.writestr("observations.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    with pytest.raises(RactdError, match=r"x\.npz: not a whole \.npz archive"):
        load_dataset(tmp_path / "x.npz")


def test_data_larger_than_memory_is_one_sentence(tmp_path: Path) -> None:
    rows = 4 * 10**12
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name, width in (("observations", (3,)), ("actions", (1,)), ("rewards", ()), ("terminals", ())):
            file.create_dataset(name, (rows, *width), "f4" if name != "terminals" else "?", chunks=(1024, *width))
    with pytest.raises(
        RactdError, match=r"field 'observations' takes 44,703\.5 GiB as float32, more memory than there is"
    ):
        load_dataset(tmp_path / "x.hdf5")


def test_fields_of_types_that_numpy_lacks(tmp_path: Path) -> None:
    path = save_h5(tmp_path / "x.hdf5", arrays())
    with h5py.File(path, "r+") as file:
        h5py.h5d.create(file.id, b"time", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((3,)))
    assert load_dataset(path).num_transitions == len(arrays()["rewards"])
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        h5py.h5d.create(file.id, b"rewards", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((3,)))
    with pytest.raises(RactdError, match="field 'rewards' has a type that NumPy has none for, expected numbers"):
        load_dataset(path)


def test_npz_cut_off_or_of_another_kind(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", **arrays([20_000]))
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RactdError, match=r"cut\.npz: not a whole \.npz archive"):
        load_dataset(tmp_path / "cut.npz")
    damaged = bytearray(whole)
    damaged[len(whole) // 4] ^= 0xFF
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(
        RactdError, match=r"damaged\.npz: field 'observations' can't be read from row .*damaged or cut off"
    ):
        load_dataset(tmp_path / "damaged.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(RactdError, match="not a whole"):
        load_dataset(tmp_path / "text.npz")


def test_hdf5_cut_off_empty_or_of_another_kind(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "x.hdf5", make([20_000]))
    whole = (tmp_path / "x.hdf5").read_bytes()
    (tmp_path / "cut.hdf5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.hdf5").write_bytes(b"")
    (tmp_path / "page.hdf5").write_text("<!DOCTYPE html>")
    (tmp_path / "folder.hdf5").mkdir()
    for name, message in {
        "cut": r"cut\.hdf5: the HDF5 file is damaged or cut off \([\d,]+ bytes",
        "empty": "the file is empty",
        "page": "not an HDF5 file .*<!DOCTY",
        "folder": "is a folder",
        "absent": r"absent\.hdf5: no such file",
    }.items():
        with pytest.raises(RactdError, match=message):
            load_dataset(tmp_path / f"{name}.hdf5")


def test_hdf5_with_a_damaged_chunk_names_field_and_row(tmp_path: Path) -> None:
    path = tmp_path / "x.hdf5"
    write_hdf5(path, make([200_000], obs=2))
    with h5py.File(path) as file:
        place = file["observations"].id.get_chunk_info(8)
    with open(path, "r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\0" * place.size)
    first = place.chunk_offset[0] // 65_536 * 65_536
    with pytest.raises(RactdError, match=f"field 'observations' can't be read from row {first} on"):
        load_dataset(path)


def test_other_layouts_are_recognised(tmp_path: Path) -> None:
    minari = save_h5(
        tmp_path / "m.hdf5", {"episode_0/observations": np.zeros((3, 2)), "episode_1/actions": np.zeros(3)}
    )
    with pytest.raises(RactdError, match="Minari's layout, load it by its Minari id"):
        load_dataset(minari)
    robomimic = save_h5(tmp_path / "r.hdf5", {"data/demo_0/actions": np.zeros((3, 2))})
    with pytest.raises(RactdError, match="robomimic"):
        load_dataset(robomimic)
