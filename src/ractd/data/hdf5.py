"""HDF5 in D4RL's layout: one dataset per field, one row a transition, read and written in pieces."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ractd.data.dataset import BLOCK_ROWS, Floats, OfflineDataset
from ractd.data.fields import GOALS, Array, Field, Source
from ractd.errors import RactdError

if TYPE_CHECKING:
    import h5py

CHUNK_ROWS = 16_384


def open_hdf5(path: str | Path, name: str | None = None) -> Source:
    """List what an HDF5 file holds without reading its data; raises RactdError if it is no whole HDF5 file."""
    import h5py

    path = Path(path)
    fields: dict[str, Field] = {}
    groups = []
    try:
        with h5py.File(path, "r") as file:
            for key, item in file.items():
                if isinstance(item, h5py.Dataset):
                    fields[key] = Field(tuple(item.shape or ()), item.dtype, _blocks(path, key))
                else:
                    groups.append(key)
            goals = file.get(GOALS)
            if isinstance(goals, h5py.Dataset):
                fields[GOALS] = Field(tuple(goals.shape or ()), goals.dtype, _blocks(path, GOALS))
            attributes = {key: _text(file.attrs.get(key)) for key in ("env_id", "recipe", "maze")}
    except FileNotFoundError as error:
        raise RactdError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise RactdError(f"{path}: is a folder, expected an HDF5 file") from error
    except PermissionError as error:
        raise RactdError(f"{path}: not readable by this user") from error
    except (OSError, RuntimeError, KeyError) as error:
        raise RactdError(f"{path}: {_complaint(path, error)}") from error
    hint = ""
    if any(group.startswith("episode_") for group in groups):
        hint = "this is Minari's layout, load it by its Minari id instead"
    elif "data" in groups and not fields:
        hint = "this looks like robomimic's layout, write its demonstrations one after the other in D4RL's"
    return Source(
        where=str(path),
        name=name or path.stem,
        fields=fields,
        env_id=attributes["env_id"] or None,
        recipe=attributes["recipe"],
        maze=attributes["maze"],
        hint=hint,
    )


def _blocks(path: Path, key: str) -> Any:
    def blocks() -> Iterator[Array]:
        import h5py

        with h5py.File(path, "r") as file:
            data = file[key]
            # A block that cuts through a chunk would have it decompressed twice.
            chunk = data.chunks[0] if data.chunks else 1
            rows = max(1, BLOCK_ROWS // chunk) * chunk
            for start in range(0, len(data), rows):
                yield data[start : start + rows]

    return blocks


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def _complaint(path: Path, error: Exception) -> str:
    size = path.stat().st_size
    if size == 0:
        return "the file is empty"
    with open(path, "rb") as file:
        signature = file.read(8)
    if signature == b"\x89HDF\r\n\x1a\n":
        reason = str(error).splitlines()[0]
        return f"the HDF5 file is damaged or cut off ({size:,} bytes; {reason}); copy or download it again"
    return f"not an HDF5 file (it starts with {signature!r}); expected D4RL's layout in HDF5"


def write_hdf5(
    path: str | Path,
    dataset: OfflineDataset,
    next_observations: Floats | None = None,
    attrs: Mapping[str, str | float | int] | None = None,
) -> None:
    """Write a dataset in D4RL's layout, gzip-compressed; the file appears whole or not at all.

    `next_observations` [N, O] is kept for other tools; `attrs` go beside the file's attributes `env_id` and `recipe`.
    """
    path = Path(path)
    if next_observations is not None and next_observations.shape != dataset.observations.shape:
        raise RactdError(
            f"{path}: next_observations has shape {next_observations.shape}, expected {dataset.observations.shape}"
        )
    with create_hdf5(path) as file:
        for field in ("observations", "actions", "rewards", "terminals", "timeouts"):
            _write_field(file, field, getattr(dataset, field))
        if next_observations is not None:
            _write_field(file, "next_observations", np.asarray(next_observations, dtype=np.float32))
        if dataset.goals is not None:
            _write_field(file, GOALS, dataset.goals)
        maze = {"maze": dataset.maze} if dataset.maze else {}
        file.attrs.update({"env_id": dataset.env_id or "", "recipe": dataset.recipe, **maze, **(attrs or {})})


@contextmanager
def create_hdf5(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file to write to, which appears at `path` whole when the block ends, or not at all."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        with h5py.File(temporary, "w") as file:
            yield file
        _share(temporary)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write_field(file: h5py.File, name: str, values: Array) -> None:
    chunks = (min(CHUNK_ROWS, len(values)), *values.shape[1:])
    # Chunks over 4 GiB are HDF5's limit; one row of anything we read is far below.
    assert math.prod(chunks) * values.itemsize < 2**32
    file.create_dataset(name, data=values, chunks=chunks, compression="gzip", shuffle=True)


def _share(path: str) -> None:
    # mkstemp makes the file private; a dataset gets the permissions that any new file would have.
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)
