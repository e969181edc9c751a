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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.dataset import CONTINUOUS
from ractd.data.end_fields import MARKS, MIXED, SUCCESSES, advice_without_terminals
from ractd.data.environment import REGISTERED, EnvironmentSettings, settings_for
from ractd.data.findings import Finding, error, warning
from ractd.data.ranges import BLOCK_ROWS
from ractd.data.rewards import is_maze
from ractd.errors import RactdError
from ractd.settings import TerminalsMean, from_json

Array = NDArray[Any]

# Names that other tools give to the same thing, which users have to rename; names of ends: `end_fields`.
ALIASES: dict[str, tuple[str, ...]] = {
    "observations": ("observation", "obs", "states", "state"),
    "actions": ("action", "acts", "act"),
    "rewards": ("reward", "rews", "rew"),
}
FORMS = (*ALIASES, "terminals", "timeouts")
"""The fields that a dataset has; beside them `GOALS`, `SUCCESSES` and `NEXT` are read, and others are ignored."""
REQUIRED = ("observations", "actions", "terminals")
GOALS = "infos/goal"
"""D4RL's name for where the behaviour was going, [N, 2]; read for mazes, elsewhere the name means what its writer wants."""
METADATA = ("env_id", "env_settings", "recipe", "maze")
"""The texts that a file has beside its arrays."""
CARRIED = ("name", "env_id", "env_settings", "recipe", "maze", "terminals_mean")
"""What a source and the dataset made of it have in common, beside arrays."""
NEXT = "next_observations"
"""D4RL's name for the observation after each row's action, [N, O]; of it only each episode's last row is kept."""
MATRICES = ("observations", "actions", GOALS)
FLAGS = ("terminals", "timeouts", SUCCESSES, MARKS)
DAMAGE = (OSError, EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile)
"""What h5py, zipfile and zlib raise on a damaged file."""


@dataclass(frozen=True)
class Field:
    """One array of a file: its shape, its dtype and a function that reads it in blocks of rows, in order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[Array]]
    array: Array | None = None
    """The whole array, where it is in memory already."""
    stored_as: str = ""
    """Its name in the file, where that is another than ours."""


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
    terminals_mean: TerminalsMean | None = None
    """What the user says that terminals are."""
    notes: tuple[Finding, ...] = ()
    """What its reader found, `where` left out."""

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that are read, where they are there."""
        names = (*FORMS, SUCCESSES, MARKS)
        return (*names, GOALS) if is_maze(self.env_id) else names

    @property
    def has_rewards(self) -> bool:
        """Whether there are rewards; what isn't downloaded yet is taken to have some."""
        return not self.fields or "rewards" in self.fields

    def with_options(
        self, env_id: str | None = None, env_steps: int | None = None, ends: TerminalsMean | None = None
    ) -> Source:
        """Return the source with what a user says of it: its environment, the step limit, and what terminals are."""
        return replace(
            self,
            env_id=env_id or self.env_id,
            env_settings=settings_for(self.env_id, self.env_settings, env_id, env_steps),
            terminals_mean=ends or self.terminals_mean,
        )


def field_of(array: Array) -> Field:
    """Return a field over an array that is in memory."""

    def blocks() -> Iterator[Array]:
        for start in range(0, len(array), BLOCK_ROWS):
            yield array[start : start + BLOCK_ROWS]

    return Field(array.shape, array.dtype, blocks, array)


def source_of(
    where: Path, name: str | None, fields: Mapping[str, Field], texts: Mapping[str, Any], **options: Any
) -> Source:
    """Return a file's source; of its `texts`, named in `METADATA`, each that is something else is an error.

    Data whose environment can't be made are data all the same. `options` are further fields of the source.
    """
    metadata, notes = dict.fromkeys(METADATA, ""), list(options.pop("notes", ()))
    for key, value in texts.items():
        if isinstance(value, bytes):
            metadata[key] = value.decode("utf-8", "replace")
        elif isinstance(value, str):
            metadata[key] = value
        elif value is not None and getattr(value, "shape", ()) is not None:
            dtype, shape = getattr(value, "dtype", type(value).__name__), getattr(value, "shape", ())
            what = f"{key!r} has dtype {dtype}" + (f" and shape {shape}" if shape else "")
            notes.append(error(f"{what}, expected one text; write it as such, or leave it out"))
    settings, text = REGISTERED, metadata["env_settings"]
    try:
        settings = from_json(EnvironmentSettings, json.loads(text), Path("env_settings")) if text else REGISTERED
    except (RactdError, ValueError, RecursionError) as fault:
        settings = EnvironmentSettings(fault=f"its settings can't be used ({fault})")
    return Source(
        where=str(where),
        name=name or where.stem,
        fields=fields,
        env_id=metadata["env_id"] or None,
        env_settings=settings,
        recipe=metadata["recipe"],
        maze=metadata["maze"],
        notes=tuple(notes),
        **options,
    )


def check_layout(source: Source, names: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is wrong with names, ranks, types and lengths; reads no data. `names` is `names_of_ends` of the file."""
    stored = {name for name, each in source.fields.items() if not each.stored_as} | set(names.values())
    listed = ", ".join(repr(name) for name in sorted({*stored, *source.unreadable})) or "nothing"
    for name in source.names:
        if name in source.unreadable:
            yield error(f"field {name!r} {source.unreadable[name]}")
            continue
        if name in source.fields:
            yield from layout_of(source, name)
            continue
        if name not in FORMS:
            continue
        meant = _misnamed(name, source.fields)
        if name == "terminals" and not meant:
            advice = advice_without_terminals(names)
            if advice is not None:
                advice = source.hint or advice
                yield error(f"field {name!r} is missing, found {listed}; {advice}")
            elif MARKS in names and names[MARKS].lower() not in MIXED:
                yield warning(
                    f"field {names[MARKS]!r} says where episodes end and nothing says why, so they are taken as cut there; add "
                    "'terminals' (bool, one a row) where the environment ended them"
                )
        elif name in REQUIRED or (name == "rewards" and (meant or source.hint)):
            advice = f"rename {meant!r} to {name!r}" if meant else source.hint or f"add it ({_expected(name)})"
            yield error(f"field {name!r} is missing, found {listed}; {advice}")
        elif meant:
            yield error(f"field {meant!r} is not D4RL's name, rename it to {name!r}")
        elif name == "timeouts" and MARKS not in names and source.episode_limit is None:
            yield warning(
                "no field 'timeouts', so only terminals end an episode; if a time limit ended some, add it (bool, one a row)"
            )
    lengths = {
        source.fields[name].stored_as or name: source.fields[name].shape[0]
        for name in source.names
        if name in source.fields and source.fields[name].shape
    }
    if empty := [name for name, rows in lengths.items() if rows == 0]:
        yield error(f"{', '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty: no transitions")
    elif len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {rows:,}" for name, rows in lengths.items())
        yield error(f"fields have different lengths ({found}), expected one row a transition in each")


def _expected(name: str) -> str:
    if name in MATRICES:
        return "float32 of shape (N, dimensions)"
    return "bool of shape (N,)" if name in FLAGS else "float32 of shape (N,)"


def _misnamed(name: str, present: Iterable[str]) -> str | None:
    free = {key.lower(): key for key in present if key not in FORMS}
    for alias in (name, *ALIASES.get(name, ())):
        if alias in free:
            return free[alias]
    close = difflib.get_close_matches(name, free, n=1, cutoff=0.8)
    return free[close[0]] if close and close[0] != NEXT else None


def layout_of(source: Source, name: str) -> Iterator[Finding]:
    """Yield what is wrong with a field's rank or type."""
    shape, dtype = source.fields[name].shape, source.fields[name].dtype
    called = source.fields[name].stored_as or name
    if name == "actions" and dtype.kind in "iub":
        yield error(f"field {name!r} has dtype {dtype}, expected {_expected(name)}; {CONTINUOUS}")
    elif dtype.kind not in "fiub":
        yield error(f"field {called!r} has dtype {dtype}, expected {_expected(name)}; save it again as such")
    elif name in MATRICES and (len(shape) != 2 or shape[1] == 0):
        advice = "reshape it to (N, 1)" if len(shape) == 1 else "flatten each row"
        yield error(f"field {called!r} has shape {shape}, expected (N, dimensions); {advice}")
    elif name not in MATRICES and len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        yield error(f"field {called!r} has shape {shape}, expected (N,)")
