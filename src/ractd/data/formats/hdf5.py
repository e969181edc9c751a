"""HDF5 in D4RL's layout: one dataset per field, one row a transition, read and written in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ractd.data.dataset import OfflineDataset
from ractd.data.end_fields import MEANINGS, NESTED, SUCCESSES
from ractd.data.environment import REGISTERED
from ractd.data.fields import ALIASES, FORMS, GOALS, METADATA, NEXT, Array, Field, Source, source_of
from ractd.data.findings import Finding, warning
from ractd.data.ranges import BLOCK_ROWS
from ractd.data.scores import reference
from ractd.files import replacing
from ractd.settings import to_json

if TYPE_CHECKING:
    import h5py

CHUNK_ROWS = 16_384


def open_hdf5(path: str | Path, name: str | None = None) -> Source:
    """List what an HDF5 file holds without reading its data; raises RactdError if it is no whole HDF5 file."""
    from ractd.data.formats.hdf5_faults import fault, find, link_fault, listed, unwritten

    path = Path(path)
    fields: dict[str, Field] = {}
    unreadable: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    unfilled: list[Finding] = []
    with listed(path) as file:
        for key in (*file, GOALS, *NESTED):
            item = find(file, key)
            if item is None and "/" in key:
                continue
            why = link_fault(file, key) if item is None else fault(item)
            if why:
                unreadable[key] = why
            else:
                fields[key] = Field(tuple(item.shape or ()), item.dtype, _blocks(path, key))
                # Flags that were never raised need not be written.
                if key in ALIASES and (gap := unwritten(item)):
                    unfilled.append(warning(f"field {key!r} {gap}; were all rows logged?"))
            if isinstance(item, Mapping):
                groups[key] = list(item)
        texts = {key: file.attrs.get(key) for key in METADATA}
    hint = _hint(fields, groups)
    return source_of(path, name, fields, texts, unreadable=unreadable, hint=hint, notes=unfilled)


def _hint(fields: Mapping[str, Field], groups: Mapping[str, list[str]]) -> str:
    if any(group.startswith("episode_") for group in groups):
        return "this is Minari's layout, load it by its Minari id instead"
    if "data" in groups and not fields:
        return "this looks like robomimic's layout, write its demonstrations one after the other in D4RL's"
    named = {*FORMS, *chain(*ALIASES.values(), *MEANINGS.values())}
    holding = {group: inside for group, inside in groups.items() if not fields or named & set(inside)}
    if not holding:
        return "" if fields else "the file holds no arrays; write one a field, with one row a transition"
    shown = "; ".join(
        f"{group!r} holds {', '.join(map(repr, inside[:6])) or 'nothing'}" for group, inside in holding.items()
    )
    return f"it has groups ({shown}), and D4RL's layout has one array a field, in no group; write it so"


def _blocks(path: Path, key: str) -> Any:
    def blocks() -> Iterator[Array]:
        from ractd.data.formats.hdf5_faults import open_file

        with open_file(path) as file:
            data = file[key]
            # A block that cuts through a chunk would have it decompressed twice.
            chunk = data.chunks[0] if data.chunks else 1
            rows = max(1, BLOCK_ROWS // chunk) * chunk
            for start in range(0, len(data), rows):
                yield data[start : start + rows]

    return blocks


def write_hdf5(path: str | Path, dataset: OfflineDataset, attrs: Mapping[str, str | float | int] | None = None) -> None:
    """Write a dataset in D4RL's layout, gzip-compressed; the file appears whole or not at all.

    Where it knows what its episodes ended with, `next_observations` are written: the next rows', and those. `attrs` go beside the
    file's attributes `env_id` and `recipe`.
    """
    with create_hdf5(Path(path)) as file:
        for field in (*FORMS, SUCCESSES):
            values = getattr(dataset, field)
            if values is not None and (field != "rewards" or dataset.has_rewards):
                _write_field(file, field, values)
        if dataset.final_observations is not None:
            after = np.roll(dataset.observations, -1, axis=0)
            after[dataset.episode_ends - 1] = dataset.final_observations
            _write_field(file, NEXT, after)
        if dataset.goals is not None:
            _write_field(file, GOALS, dataset.goals)
        known = {"env_id": dataset.env_id or "", "recipe": dataset.recipe}
        if dataset.env_settings != REGISTERED:
            known["env_settings"] = json.dumps(to_json(dataset.env_settings))
        if dataset.maze:
            known["maze"] = dataset.maze
        file.attrs.update({**known, **(attrs or {})})


def reference_attributes(env_id: str) -> dict[str, float]:
    """Return D4RL's attributes of the returns that score 0 and 100 in an environment, none where it has no references."""
    return dict(zip(("ref_min_score", "ref_max_score"), reference(env_id) or (), strict=False))


@contextmanager
def create_hdf5(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file to write to, which appears at `path` whole when the block ends, or not at all."""
    import h5py

    with replacing(path) as partial, h5py.File(partial, "w") as file:
        yield file


def _write_field(file: h5py.File, name: str, values: Array) -> None:
    chunks = (min(CHUNK_ROWS, len(values)), *values.shape[1:])
    file.create_dataset(name, data=values, chunks=chunks, compression="gzip", shuffle=True)
