"""From a file's fields to a dataset: the one place that knows the layout and checks it.

A reader lists what a file holds as a `Source`; `read` turns it into a dataset and findings. Loading stops at the first
error, validating collects them all.
"""

from __future__ import annotations

import difflib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ractd.data.dataset import CONTINUOUS, OfflineDataset
from ractd.data.ranges import BLOCK_ROWS
from ractd.envs.settings import REGISTERED, EnvironmentSettings
from ractd.errors import RactdError
from ractd.serialize import from_json

Array = NDArray[Any]

# Names that other tools give to the same thing.
ALIASES: dict[str, tuple[str, ...]] = {
    "observations": ("observation", "obs", "states", "state"),
    "actions": ("action", "acts", "act"),
    "rewards": ("reward", "rews", "rew"),
    "terminals": ("terminal", "dones", "done", "terminations", "terminated", "is_terminal"),
    "timeouts": ("timeout", "truncations", "truncation", "truncated", "is_truncated"),
}
FORMS = tuple(ALIASES)
"""The fields that are read; others are ignored."""
REQUIRED = ("observations", "actions", "rewards", "terminals")
GOALS = "infos/goal"
"""D4RL's name for where the behaviour was going, [N, 2]; read for mazes, elsewhere the name means what its writer wants."""
MAZE_IDS = "ractd/maze"
"""What the environment ids of mazes begin with."""
METADATA = ("env_id", "env_settings", "recipe", "maze")
"""The texts that a file has beside its arrays."""
MATRICES = ("observations", "actions", GOALS)
FLAGS = ("terminals", "timeouts")
DAMAGE = (OSError, EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile)
"""What h5py, zipfile and zlib raise on a damaged file."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (`error`) or suspicious (`warning`) about a dataset, in one sentence."""

    level: Literal["error", "warning"]
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


@dataclass(frozen=True)
class Field:
    """One array of a file: its shape, its dtype and a function that reads it in blocks of rows, in order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[Array]]
    array: Array | None = None
    """The whole array, where it is in memory already."""


@dataclass(frozen=True)
class Source:
    """What a dataset could be made of: `where` names it in messages, `fields` are its arrays by name."""

    where: str
    name: str
    fields: Mapping[str, Field]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """What is there under a name but is no array that can be read, and why: the rest of a sentence that the name begins."""
    env_id: str | None = None
    env_settings: EnvironmentSettings = REGISTERED
    recipe: str = ""
    maze: str = ""
    hint: str = ""
    """What to do if the layout is not D4RL's, where the reader recognised another one."""
    episode_limit: int | None = None
    """Steps after which every episode ends, for files that keep no timeouts."""
    notes: tuple[Finding, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that are read, where they are there."""
        return (*FORMS, GOALS) if (self.env_id or "").startswith(MAZE_IDS) else FORMS


def field_of(array: Array) -> Field:
    """Return a field over an array that is in memory."""

    def blocks() -> Iterator[Array]:
        for start in range(0, len(array), BLOCK_ROWS):
            yield array[start : start + BLOCK_ROWS]

    return Field(array.shape, array.dtype, blocks, array)


def texts(found: Mapping[str, Any], where: str) -> tuple[dict[str, str], tuple[Finding, ...]]:
    """Return a file's `METADATA` as text, "" where there is none, with an error for each that is something else."""
    metadata, notes = dict.fromkeys(METADATA, ""), []
    for key, value in found.items():
        if isinstance(value, bytes):
            metadata[key] = value.decode("utf-8", "replace")
        elif isinstance(value, str):
            metadata[key] = value
        elif value is not None and getattr(value, "shape", ()) is not None:
            dtype, shape = getattr(value, "dtype", type(value).__name__), getattr(value, "shape", ())
            what = f"{key!r} has dtype {dtype}" + (f" and shape {shape}" if shape else "")
            notes.append(Finding("error", f"{where}: {what}, expected one text; write it as such, or leave it out"))
    return metadata, tuple(notes)


def settings_in(text: str) -> EnvironmentSettings:
    """Read what a file says of its environment besides the id, JSON; data whose environment can't be made is data all the same."""
    try:
        return from_json(EnvironmentSettings, json.loads(text), Path("env_settings")) if text else REGISTERED
    except (RactdError, ValueError) as error:
        return EnvironmentSettings(fault=f"its settings can't be used ({error})")


def load(source: Source) -> OfflineDataset:
    """Read a source; raises RactdError with the first thing that is wrong and the number of others."""
    dataset, findings = read(source)
    errors = [finding.message for finding in findings if finding.level == "error"]
    if errors:
        more = len(errors) - 1
        rest = f" ({more} more problem{'s' if more > 1 else ''}: `ractd data validate` lists all)" if more else ""
        raise RactdError(errors[0] + rest)
    assert dataset is not None
    return dataset


def read(source: Source) -> tuple[OfflineDataset | None, list[Finding]]:
    """Read a source and return the dataset, None if its layout does not allow one, with everything found on the way.

    A dataset with numbers that are not finite is returned, for whoever goes on looking; the findings say so.
    """
    findings = [*source.notes, *check_layout(source)]
    sound = not any(finding.level == "error" for finding in findings)
    arrays: dict[str, Array] = {}
    for name in source.names:
        if name in source.fields and not any(_layout_of(source, name)):
            array, found = read_field(source, name)
            findings += found
            if array is not None:
                arrays[name] = array
            sound = sound and array is not None
    if not sound:
        return None, findings
    if "timeouts" not in arrays:
        arrays["timeouts"] = _implied_timeouts(arrays["terminals"], source.episode_limit)
    goals = arrays.pop(GOALS, None)
    dataset = OfflineDataset(
        name=source.name,
        env_id=source.env_id,
        env_settings=source.env_settings,
        source=source.where,
        recipe=source.recipe,
        maze=source.maze,
        goals=goals,
        **arrays,
    )
    return dataset, findings


def check_layout(source: Source) -> Iterator[Finding]:
    """Yield what is wrong with names, ranks, types and lengths; reads no data."""
    listed = ", ".join(repr(name) for name in sorted({*source.fields, *source.unreadable})) or "nothing"
    for name in source.names:
        if name in source.unreadable:
            yield Finding("error", f"{source.where}: field {name!r} {source.unreadable[name]}")
            continue
        if name in source.fields:
            yield from _layout_of(source, name)
            continue
        if name == GOALS:
            continue
        meant = _misnamed(name, source.fields)
        if name in REQUIRED:
            advice = f"rename {meant!r} to {name!r}" if meant else source.hint or f"add it ({_expected(name)})"
            yield Finding("error", f"{source.where}: field {name!r} is missing, found {listed}; {advice}")
        elif meant:
            yield Finding("error", f"{source.where}: field {meant!r} is not D4RL's name, rename it to {name!r}")
        elif source.episode_limit is None:
            yield Finding(
                "warning",
                f"{source.where}: no field 'timeouts', so only terminals end an episode; "
                "if a time limit ended some, add it (bool, one a row)",
            )
    lengths = {
        name: source.fields[name].shape[0]
        for name in source.names
        if name in source.fields and source.fields[name].shape
    }
    if 0 in lengths.values():
        yield Finding(
            "error", f"{source.where}: {', '.join(k for k, n in lengths.items() if n == 0)} is empty: no transitions"
        )
    elif len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {rows:,}" for name, rows in lengths.items())
        yield Finding(
            "error", f"{source.where}: fields have different lengths ({found}), expected one row a transition in each"
        )


def _expected(name: str) -> str:
    if name in MATRICES:
        return "float32 of shape (N, dimensions)"
    return "bool of shape (N,)" if name in FLAGS else "float32 of shape (N,)"


def _misnamed(name: str, present: Iterable[str]) -> str | None:
    free = {key.lower(): key for key in present if key not in ALIASES}
    for alias in (name, *ALIASES[name]):
        if alias in free:
            return free[alias]
    close = difflib.get_close_matches(name, free, n=1, cutoff=0.8)
    return free[close[0]] if close and close[0] != "next_observations" else None


def _layout_of(source: Source, name: str) -> Iterator[Finding]:
    shape, dtype = source.fields[name].shape, source.fields[name].dtype
    if name == "actions" and dtype.kind in "iub":
        yield Finding(
            "error", f"{source.where}: field {name!r} has dtype {dtype}, expected {_expected(name)}; {CONTINUOUS}"
        )
    elif dtype.kind not in "fiub":
        yield Finding(
            "error",
            f"{source.where}: field {name!r} has dtype {dtype}, expected {_expected(name)}; save it again as such",
        )
    elif name in MATRICES and (len(shape) != 2 or shape[1] == 0):
        advice = "reshape it to (N, 1)" if len(shape) == 1 else "flatten each row"
        yield Finding("error", f"{source.where}: field {name!r} has shape {shape}, expected (N, dimensions); {advice}")
    elif name not in MATRICES and len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        yield Finding("error", f"{source.where}: field {name!r} has shape {shape}, expected (N,)")


def read_field(source: Source, name: str) -> tuple[Array | None, list[Finding]]:
    """Read one field in blocks as float32 (bool for flags); the second item says where it is damaged or not finite."""
    stored = source.fields[name]
    dtype = np.dtype(np.bool_ if name in FLAGS else np.float32)
    rows, width = stored.shape[0], stored.shape[1] if name in MATRICES else 1
    keep = stored.array is not None and stored.array.dtype == dtype and stored.array.flags.c_contiguous
    out = stored.array.reshape(rows, width) if keep and stored.array is not None else np.empty((rows, width), dtype)
    at, bad, first = 0, 0, ""
    try:
        for block in stored.blocks():
            block = np.asarray(block).reshape(-1, width)
            part = out[at : at + len(block)]
            if not keep:
                with np.errstate(over="ignore"):
                    part[:] = block
            odd = ~np.isfinite(block if name in FLAGS else part)
            if odd.any():
                bad += int(odd.sum())
                row, column = np.argwhere(odd)[0]
                if not first:
                    value = block[row, column]
                    kind = "NaN" if np.isnan(value) else "too large for float32" if np.isfinite(value) else "infinite"
                    first = f"row {at + row}" + (f", dimension {column}" if name in MATRICES else "") + f" is {kind}"
            at += len(block)
    except RactdError as error:
        return None, [Finding("error", str(error))]
    except DAMAGE as error:
        what = f"field {name!r} can't be read from row {at} on ({_line(error)})"
        return None, [Finding("error", f"{source.where}: {what}; the file is damaged or cut off, copy it again")]
    if at != rows:
        return None, [
            Finding("error", f"{source.where}: field {name!r} ends at row {at} of {rows}; the file is cut off")
        ]
    findings = []
    if bad:
        findings.append(
            Finding(
                "error",
                f"{source.where}: field {name!r} holds {bad:,} number{'s' if bad > 1 else ''} not finite in float32; "
                f"{'the first, ' if bad > 1 else ''}{first}; drop or repair those episodes",
            )
        )
    return out if name in MATRICES else out.reshape(rows), findings


def _implied_timeouts(terminals: Array, limit: int | None) -> Array:
    timeouts = np.zeros(len(terminals), np.bool_)
    if limit is not None:
        starts = np.concatenate([[0], np.flatnonzero(terminals) + 1])
        for start, end in zip(starts, [*(starts[1:] - 1), len(terminals)], strict=True):
            timeouts[start + limit - 1 : end : limit] = True
    return timeouts


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
