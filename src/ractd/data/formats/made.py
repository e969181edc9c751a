"""Datasets that were made here, in a folder of their own: what `ractd.recipes` makes, and what a user put there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from ractd.data.fields import Source
from ractd.data.formats import DatasetInfo
from ractd.data.formats.hdf5 import open_hdf5
from ractd.errors import RactdError

MADE_HERE = {
    "hopper-mixed": "first 200k steps of a SAC run on Hopper, retraced from 8 snapshots: mostly bad, some good",
    **{
        f"maze2d-{size}": f"{millions}M steps of a noisy PD controller to random goals in a maze, D4RL's recipe"
        for size, millions in (("umaze", 1), ("medium", 2), ("large", 4))
    },
}
"""What `ractd.recipes` makes, by name: one that isn't made yet is no unknown one."""


def dataset_dir() -> Path:
    """Return the folder of datasets made here: `$RACTD_DATA`, else `datasets` in the user's data folder."""
    configured = os.environ.get("RACTD_DATA")
    return (
        Path(os.path.expanduser(configured)) if configured else Path(platformdirs.user_data_dir("ractd")) / "datasets"
    )


def dataset_file(name: str, directory: str | Path | None = None) -> Path:
    """Return where a dataset of that name is, or will be: in `directory`, by default `dataset_dir()`."""
    return Path(dataset_dir() if directory is None else directory) / f"{name}.hdf5"


def built_names() -> list[str]:
    """Return the names of the datasets in `dataset_dir()`, sorted."""
    return sorted(path.stem for path in dataset_dir().glob("*.hdf5") if not path.name.startswith("."))


CALLED = "a dataset that was made here"


def find(name: str, download: bool) -> Source | None:
    """Open a dataset in `dataset_dir()`; one that could be made is an error that says how."""
    path = dataset_file(name)
    if path.is_file():
        return open_hdf5(path)
    if name in MADE_HERE:
        raise RactdError(f"dataset {name!r} is not made yet: run `ractd data make {name}`")
    return None


def datasets() -> Iterator[DatasetInfo]:
    """Yield what can be made, and what else was."""
    built = built_names()
    for name, description in MADE_HERE.items():
        yield DatasetInfo(name, "recipe", str(dataset_file(name)), name in built, description)
    for name in built:
        if name not in MADE_HERE:
            yield DatasetInfo(name, "made", str(dataset_file(name)), True, _recipe_in(dataset_file(name)))


def _recipe_in(path: Path) -> str:
    try:
        return open_hdf5(path).recipe
    except RactdError as error:
        return str(error)
