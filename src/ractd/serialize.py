"""Dataclasses to JSON and back, with every mistake named: the configuration of runs and policy files."""

from __future__ import annotations

import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from ractd.config import MLP, UNet
from ractd.errors import RactdError

T = TypeVar("T")

KINDS: dict[str, type] = {"mlp": MLP, "unet": UNet}
"""Classes that share a field; JSON tells them apart by `kind`."""


def to_json(value: Any) -> Any:
    """Return a dataclass as plain dictionaries, lists and numbers."""
    if is_dataclass(value):
        kinds = [("kind", name) for name, cls in KINDS.items() if isinstance(value, cls)]
        return dict(kinds) | {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


def from_json(cls: type[T], content: Any, path: Path) -> T:
    """Rebuild a dataclass; raises `RactdError` naming file and field for what is missing, unknown or of another type."""
    return typing.cast(T, _read(cls, content, path, cls.__name__))


def _read(kind: Any, content: Any, path: Path, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return content
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, content, path, where)
    if origin is typing.Literal:
        if content in arguments:
            return content
        raise RactdError(f"{path}: {where} is {content!r}, expected one of {list(arguments)}")
    if origin is tuple:
        if isinstance(content, list):
            return tuple(_read(arguments[0], item, path, f"{where}[{i}]") for i, item in enumerate(content))
    elif origin is dict:
        if isinstance(content, dict):
            return content
    elif is_dataclass(kind):
        if isinstance(content, dict):
            return _read_dataclass(kind, content, path, where)
    elif kind is float and type(content) in (int, float):
        return float(content)
    elif type(content) is kind:
        return content
    name = getattr(kind, "__name__", str(kind))
    raise RactdError(f"{path}: {where} is {content!r}, expected {name}")


def _read_union(options: tuple[Any, ...], content: Any, path: Path, where: str) -> Any:
    if content is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    if isinstance(content, dict) and "kind" in content:
        options = tuple(option for option in options if option is KINDS.get(str(content["kind"])))
    errors = []
    for option in options:
        try:
            return _read(option, content, path, where)
        except RactdError as error:
            errors.append(error)
    raise (
        errors[-1]
        if errors
        else RactdError(f"{path}: {where} is {content!r}, expected one of the kinds {sorted(KINDS)}")
    )


def _read_dataclass(cls: Any, content: dict[str, Any], path: Path, where: str) -> Any:
    content = {key: value for key, value in content.items() if key != "kind" or cls not in KINDS.values()}
    known = {f.name: f for f in fields(cls)}
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise RactdError(f"{path}: unknown field '{unknown[0]}' in {where}, expected {', '.join(known)}")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, f in known.items():
        if name in content:
            values[name] = _read(hints[name], content[name], path, f"{where}.{name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise RactdError(f"{path}: field '{name}' of {where} is missing")
    try:
        return cls(**values)
    except RactdError as error:
        raise RactdError(f"{path}: {where}: {error}") from None
