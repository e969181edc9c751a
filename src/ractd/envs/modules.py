"""Environments of a module of one's own, `module:Id-v0`: imported when their user types it, and never for a file."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ractd.data.environment import gymnasium_with_robotics
from ractd.errors import RactdError

_imported: set[str] = set()


def registered_name(env_id: str) -> str:
    """Return an id as Gymnasium's registry has it, without the module that `import_environment` imported.

    Raises `RactdError` for a module that it did not import: Gymnasium would, whoever wrote the id.
    """
    module, colon, name = env_id.partition(":")
    if not colon:
        return env_id
    if module not in _imported:
        raise RactdError(
            f"environment {env_id!r} names a module, which only the command line may have imported: "
            f"if you trust it, give --env {env_id} to 'ractd train' or 'ractd eval'"
        )
    return name


def import_environment(env_id: str | None) -> None:
    """Import the module of an id `module:Id-v0` that a user typed; ids without a module need nothing.

    The module is searched in the working directory first. Raises `RactdError` where it fails or doesn't register the id.
    """
    module, colon, name = (env_id or "").partition(":")
    if not colon:
        return
    gymnasium = gymnasium_with_robotics()
    before = set(gymnasium.registry)
    with _working_directory():
        _import(module, f"--env {env_id}: module {module!r}")
        spec = gymnasium.registry.get(name)
        if spec is None:
            others = sorted(set(gymnasium.registry) - before)
            found = f"it registers {', '.join(others)}" if others else "call gymnasium.register in it"
            raise RactdError(f"--env {env_id}: module {module!r} registers no environment {name!r}; {found}")
        if isinstance(spec.entry_point, str):  # what makes it, while the working directory is still searched
            _import(spec.entry_point.partition(":")[0], f"--env {env_id}: its entry point {spec.entry_point!r}")
    _imported.add(module)


def _import(module: str, what: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RactdError(f"{what} can't be imported ({why})") from error


@contextmanager
def _working_directory() -> Iterator[None]:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
