"""From one string to a dataset: a path, a dataset made here, a D4RL name or a Minari id."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from ractd.data.dataset import OfflineDataset
from ractd.data.fields import Source
from ractd.data.formats import d4rl, hdf5, npz
from ractd.data.formats import minari as minari_format
from ractd.data.reading import load
from ractd.errors import RactdError
from ractd.settings import TerminalsMean

Kind = Literal["made", "recipe", "d4rl", "minari"]

FILE_FORMATS: dict[str, Callable[[Path], Source]] = {
    ".hdf5": hdf5.open_hdf5,
    ".h5": hdf5.open_hdf5,
    ".npz": npz.open_npz,
}

MADE_HERE = {
    "hopper-mixed": "first 200k steps of a SAC run on Hopper, retraced from 8 snapshots: mostly bad, some good",
    **{
        f"maze2d-{size}": f"{millions}M steps of a noisy PD controller to random goals in a maze, D4RL's recipe"
        for size, millions in (("umaze", 1), ("medium", 2), ("large", 4))
    },
}
"""What `ractd.recipes` makes, by name: one that isn't made yet is no unknown one."""

_MINARI_ID = re.compile(r"(?:[\w-]+/)*[\w-]+-v\d+")


@dataclass(frozen=True)
class DatasetInfo:
    """One dataset that `load_dataset` takes by name: what it is, where it lies or comes from, if it is here."""

    name: str
    kind: Kind
    location: str
    present: bool
    description: str


def dataset_dir() -> Path:
    """Return the folder of datasets made here: `$RACTD_DATA`, else `datasets` in the user's data folder."""
    configured = os.environ.get("RACTD_DATA")
    return Path(configured).expanduser() if configured else Path(platformdirs.user_data_dir("ractd")) / "datasets"


def load_dataset(name: str | Path, env_id: str | None = None, ends: TerminalsMean | None = None) -> OfflineDataset:
    """Load a dataset by path (`.hdf5`, `.h5`, `.npz`), by the name of one made here, by D4RL name or by Minari id.

    `env_id` names the Gymnasium environment, replacing what the data says, and `ends` says what terminals are. D4RL names
    and Minari ids are downloaded once. Rewards are as logged, but for data without any: there a success is paid 1.
    Raises RactdError if nothing answers to the name or the data can't be used.
    """
    return load(find_source(name).with_options(env_id=env_id, ends=ends))


def find_source(name: str | Path, download: bool = True) -> Source:
    """Find what `load_dataset` would load, downloading it if need be, without reading it; raises RactdError.

    Without `download`, what is not here, or not read without its arrays, is a source of its environment alone.
    """
    text = os.fspath(name)
    path = Path(text).expanduser()
    if path.is_file() or path.suffix in FILE_FORMATS:
        return _open_file(path)
    built = dataset_dir() / f"{text}.hdf5"
    if built.is_file():
        return hdf5.open_hdf5(built)
    if text in d4rl.DATASETS:
        return d4rl.open_d4rl(text) if download or d4rl.is_here(text) else d4rl.announced(text)
    looks_minari = _MINARI_ID.fullmatch(text) is not None
    if looks_minari and ("/" in text or text in minari_format.local_ids()):
        return minari_format.open_minari(text) if download else minari_format.announced(text)
    raise RactdError(_unknown(text, path, looks_minari))


def _open_file(path: Path) -> Source:
    if not path.exists():
        raise RactdError(f"{path}: no such file")
    if path.suffix not in FILE_FORMATS:
        raise RactdError(f"{path}: unknown kind of file {path.suffix!r}, expected {', '.join(FILE_FORMATS)}")
    return FILE_FORMATS[path.suffix](path)


def _unknown(text: str, path: Path, looks_minari: bool) -> str:
    if path.is_dir():
        return f"{text}: is a folder, expected a dataset file ({', '.join(FILE_FORMATS)}) or a dataset's name"
    if text in MADE_HERE:
        return f"dataset {text!r} is not made yet: run `ractd data make {text}`"
    tried = ["a file", f"a dataset in {dataset_dir()}", "a D4RL name"]
    tried.append("a local Minari id" if looks_minari else "a Minari id")
    known = {*MADE_HERE, *built_names(), *d4rl.DATASETS, *minari_format.local_ids()}
    close = difflib.get_close_matches(text, known, n=3, cutoff=0.6)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return f"dataset {text!r} is not known (tried as {', '.join(tried)}); {meant}`ractd data list` shows all"


def built_names() -> list[str]:
    """Return the names of the datasets in `dataset_dir()`, sorted."""
    return sorted(path.stem for path in dataset_dir().glob("*.hdf5") if not path.name.startswith("."))


def list_datasets() -> list[DatasetInfo]:
    """Return every dataset known by name: those to make, those made, D4RL's and the local Minari ones."""
    built = built_names()
    rows = [
        DatasetInfo(name, "recipe", str(dataset_dir() / f"{name}.hdf5"), name in built, description)
        for name, description in MADE_HERE.items()
    ]
    rows += [
        DatasetInfo(name, "made", str(dataset_dir() / f"{name}.hdf5"), True, _recipe_in(dataset_dir() / f"{name}.hdf5"))
        for name in built
        if name not in MADE_HERE
    ]
    for name, entry in d4rl.DATASETS.items():
        path = d4rl.cache_path(entry)
        present = path.is_file()
        location = str(path) if present else d4rl.url_of(entry)
        rows.append(DatasetInfo(name, "d4rl", location, present, "D4RL" if present else "D4RL, downloaded when loaded"))
    rows += [
        DatasetInfo(name, "minari", str(minari_format.root() / name), True, "local Minari dataset")
        for name in minari_format.local_ids()
    ]
    return rows


def _recipe_in(path: Path) -> str:
    try:
        return hdf5.open_hdf5(path).recipe
    except RactdError as error:
        return str(error)
