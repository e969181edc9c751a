"""From one string to a dataset: a path, a dataset made here, a D4RL name or a Minari id."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ractd.data.dataset import OfflineDataset
from ractd.data.fields import Source
from ractd.data.formats import FILES, DatasetInfo, named, open_file
from ractd.data.reading import load
from ractd.errors import RactdError
from ractd.settings import TerminalsMean


def load_dataset(name: str | Path, env_id: str | None = None, ends: TerminalsMean | None = None) -> OfflineDataset:
    """Load a dataset by path (`.hdf5`, `.h5`, `.npz`), by the name of one made here, by D4RL name or by Minari id.

    D4RL names and Minari ids are downloaded once. Rewards are as logged, but for data without any: there a success is paid 1.

    Args:
        name: a path or a name.
        env_id: the Gymnasium environment, replacing what the data says.
        ends: what terminals are, where no success flags say it.

    Raises:
        RactdError: if nothing answers to the name or the data can't be used.
    """
    return load(find_source(name).with_options(env_id=env_id, ends=ends))


def find_source(name: str | Path, download: bool = True) -> Source:
    """Find what `load_dataset` would load, downloading it if need be, without reading it.

    Without `download`, what is not here, or not read without its arrays, is a source of its environment alone.

    Raises:
        RactdError: if nothing answers to the name.
    """
    text = os.fspath(name)
    path = Path(os.path.expanduser(text))  # leaves "~" alone where there is no such user
    if path.is_file() or path.suffix in FILES:
        return open_file(path)
    formats = named()
    for each in formats:
        if (source := each.find(text, download)) is not None:
            return source
    if path.is_dir():
        raise RactdError(f"{text}: is a folder, expected a dataset file ({', '.join(FILES)}) or a dataset's name")
    close = difflib.get_close_matches(text, [info.name for info in list_datasets()], n=3, cutoff=0.6)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    tried = ", ".join(["a file", *(each.CALLED for each in formats)])
    raise RactdError(f"dataset {text!r} is not known (tried as {tried}); {meant}`ractd data list` shows all")


def list_datasets() -> list[DatasetInfo]:
    """Return every dataset known by name: those to make, those made, D4RL's and the local Minari ones."""
    return [info for each in named() for info in each.datasets()]
