"""Settings by their places, as `student.optimization.steps`: which there are, how they are changed, what is said of others."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from ractd.errors import RactdError
from ractd.methods import METHODS, Method, method_named
from ractd.settings import Registered, check, with_kind

KIND = ".kind"
"""What a place ends with that takes another kind of what is there."""


def places(settings: Any, within: str = "") -> Iterator[str]:
    """Yield the place of every setting, and those that take another kind of a part."""
    for field in fields(settings):
        value, place = getattr(settings, field.name), within + field.name
        if isinstance(value, Registered):
            yield place + KIND
        if is_dataclass(value):
            yield from places(value, f"{place}.")
        else:
            yield place


def has(settings: Any, place: str) -> bool:
    """Tell whether settings have something at a place."""
    name, _, rest = place.partition(".")
    if not is_dataclass(settings) or name not in {field.name for field in fields(settings)}:
        return False
    return not rest or has(getattr(settings, name), rest)


def changed(
    method: Method, preset: str, settings: Any, changes: Mapping[str, Any], others: Collection[str] = ()
) -> Any:
    """Return settings of a method, of a preset or of none, with other values at some places.

    Raises `RactdError` for a place that they have not, naming the nearest of theirs and of `others`, and a value out of its range.
    """
    kinds = {place for place in changes if place.endswith(KIND) and not has(settings, place)}
    for place in sorted(changes, key=lambda place: place not in kinds):
        if place in kinds:
            settings = with_other_kind(settings, place, changes[place], place)
        elif has(settings, place):
            settings = _with(settings, place, changes[place])
        else:
            told = why_not(method, preset, settings, place)
            known = [*places(settings), *others]
            raise RactdError(told or f"{place!r} is no option of method {method.name!r}{meant(place, known)}")
    settings = check(settings)
    check_read(changes, settings)
    return settings


def check_read(named: Collection[str], settings: Any, spell: Callable[[str], str] = repr) -> None:
    """Raise `RactdError` where a place that is named is one that nothing reads beside the other settings."""
    for place in named:
        if why := unread(place, settings, spell):
            raise RactdError(f"{spell(place)}: {why}, or leave it out")


def unread(place: str, settings: Any, spell: Callable[[str], str]) -> str:
    """Return why nothing reads a place beside the other settings, nothing where something does."""
    return next((why for idle, why in settings.idle(spell) if f"{place}.".startswith(f"{idle}.")), "")


def with_other_kind(settings: Any, place: str, kind: str, option: str) -> Any:
    """Return settings with another kind of what is at a place; raises `RactdError` naming the `option` where that can't be."""
    try:
        return with_kind(settings, place.removesuffix(KIND), kind)
    except RactdError as error:
        raise RactdError(f"{option}: {error}") from None


def _with(settings: Any, place: str, value: Any) -> Any:
    name, _, rest = place.partition(".")
    return replace(settings, **{name: _with(getattr(settings, name), rest, value) if rest else value})


def why_not(
    method: Method, preset: str, settings: Any, place: str, default_of: str = "", spell: Callable[[str], str] = repr
) -> str:
    """Say which other preset or method has a place that settings, of a preset, have not; nothing where none has.

    `default_of` is the dataset that the preset is the default of, `spell` how places are written.
    """
    if having := [name for name, its in method.presets.items() if has(its, place)]:
        what = f"the preset {preset!r}" if preset else "config"
        what += f", which is the default for dataset {default_of!r}," if default_of else ""
        return (
            f"{spell(place)}: {what} has no such option; leave it out, or name a preset that has "
            f"it, as {', '.join(having)}"
        )
    if having := [name for name in METHODS if any(has(its, place) for its in method_named(name).presets.values())]:
        hint = meant(place, list(places(settings)), spell) or "; leave it out"
        return f"{spell(place)} is no option of method {method.name!r}, but of {', '.join(having)}{hint}"
    return ""


def meant(place: str, known: Collection[str], spell: Callable[[str], str] = repr) -> str:
    """Return which of the known places one was probably meant to be, as the end of a sentence."""
    last = place.rpartition(".")[2]
    same = [other for other in known if other.rpartition(".")[2] == last]
    near = difflib.get_close_matches(place, known, 1, 0.9)
    near = near or difflib.get_close_matches(place, same or known, 3, 0.0 if same else 0.6)
    return f"; did you mean {' or '.join(map(spell, near))}?" if near else ""
