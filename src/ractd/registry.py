"""Registries: a name, and where what it names is found; nothing is imported before it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from ractd.errors import RactdError


def unknown(what: str, name: str, known: Iterable[str]) -> RactdError:
    """Say that there is no such thing, which there are, and which was probably meant."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return RactdError(f"unknown {what} {name!r}, expected one of {', '.join(known)}{hint}")


def find(registry: Mapping[str, str], name: str, what: str) -> Any:
    """Return what a registry has by a name; `registry` maps names to "module:attribute", `what` is what it has many of.

    Raises `RactdError` naming the known ones, and the nearest.
    """
    if name not in registry:
        raise unknown(what, name, registry)
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
