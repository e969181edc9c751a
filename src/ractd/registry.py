"""Registries: a name, and where what it names is found; nothing is imported before it is asked for."""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ractd.errors import RactdError


def unknown(what: str, name: str, known: Iterable[str]) -> RactdError:
    """Say that there is no such thing, which there are, and which was probably meant."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return RactdError(f"unknown {what} {name!r}, expected one of {', '.join(known)}{hint}")


def find(registry: Mapping[str, str], name: str, what: str, where: str | Path = "") -> Any:
    """Return what a registry has by a name; `registry` maps names to "module:attribute", `what` is what it has many of.

    Raises `RactdError` naming `where` it was asked for, the known ones, and the nearest.
    """
    if name not in registry:
        fault = unknown(what, name, registry)
        raise RactdError(f"{where}: {fault}") if where else fault
    return pkgutil.resolve_name(registry[name])
