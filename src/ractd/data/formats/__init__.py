"""Formats of datasets: each is one file that opens what it knows as a `Source`, and one line here."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from ractd.data.fields import Source
from ractd.errors import RactdError

FILES: dict[str, tuple[str, ...]] = {
    ".hdf5": ("ractd.data.formats.hdf5:open_hdf5",),
    ".h5": ("ractd.data.formats.hdf5:open_hdf5",),
    ".npz": ("ractd.data.formats.npz:open_npz",),
}
"""By a file's suffix, what opens it, `(path) -> Source | None`: the first that knows its layout, and so doesn't return None."""
NAMED: tuple[str, ...] = ("ractd.data.formats.made", "ractd.data.formats.d4rl", "ractd.data.formats.minari")
"""What knows datasets by names or folders, in the order in which they are asked: modules that are a `NamedFormat`."""


@dataclass(frozen=True)
class DatasetInfo:
    """One dataset that `load_dataset` takes by name: what it is, where it lies or comes from, if it is here."""

    name: str
    kind: str
    location: str
    present: bool
    description: str


class NamedFormat(Protocol):
    """A module that knows datasets by their names."""

    CALLED: str
    """What it takes a name for, e.g. `a Minari id`."""

    def find(self, name: str, download: bool) -> Source | None:
        """Open a dataset, None where the name is none of its; without `download` a source of its environment alone will do."""

    def datasets(self) -> Iterable[DatasetInfo]:
        """Return the datasets that it knows."""


def named() -> list[NamedFormat]:
    """Return the modules of `NAMED`."""
    return [cast(NamedFormat, importlib.import_module(module)) for module in NAMED]


def open_file(path: Path) -> Source:
    """Open a dataset's file by its suffix.

    Raises:
        RactdError: for one that is not there, damaged, or of no format in `FILES`.
    """
    if not path.exists():
        raise RactdError(f"{path}: no such file")
    if path.suffix not in FILES:
        raise RactdError(f"{path}: unknown kind of file {path.suffix!r}, expected {', '.join(FILES)}")
    for opener in FILES[path.suffix]:
        source: Source | None = pkgutil.resolve_name(opener)(path)
        if source is not None:
            return source
    raise RactdError(f"{path}: none of the formats of {path.suffix} files has its layout")
