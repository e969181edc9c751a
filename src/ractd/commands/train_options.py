"""Which settings the words of `ractd train` start from: those of the method, preset and dataset that they name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any

from ractd.data.registry import find_source
from ractd.errors import RactdError
from ractd.methods import METHODS, Method, method_named
from ractd.methods.presets import preset_for
from ractd.registry import unknown
from ractd.settings import Registered, with_kind

DEFAULT = "cpu"
"""The preset that each method has."""
HELP = {"-h", "--help"}
KIND = ".kind"


def method_in(words: Sequence[str]) -> Method:
    """Return the method that words name; raises `RactdError` for an unknown one."""
    return method_named(value_in(words, "--method") or "ractd")


def preset_in(words: Sequence[str], method: Method, dataset: str | None) -> str:
    """Return the preset that words name, else the one that their dataset asks for; help opens no dataset.

    Raises `RactdError` for an unknown preset, and a maze where the method can't plan.
    """
    named = value_in(words, "--preset")
    if named is not None and named not in method.presets:
        raise unknown(f"preset of {method.name}", named, method.presets)
    if named is not None or dataset is None or HELP & set(words):
        return named or DEFAULT
    try:
        source = find_source(dataset, download=False)
    except RactdError:
        # Training looks for it again, and says what is wrong.
        return DEFAULT
    env_id = value_in(words, "--env") or source.env_id
    return preset_for(method, dataset, env_id, source.maze, source.where)


def value_in(words: Sequence[str], option: str) -> str | None:
    """Return the last value that an option of one word is given."""
    for before, word in reversed(list(pairwise(["", *words]))):
        if before == option or word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return None


SWITCHES = re.compile(r"--plain|--report|.*(--|\.)no-.*|.*=.*|[^-].*|")
"""What no value follows, among words."""
NUMBER = re.compile(r"[\d.]+(e[-+]?\d+)?")


def dataset_in(words: Sequence[str]) -> str | None:
    """Return the first word that is neither an option nor the value of one, nor a number of several."""
    for before, word in pairwise(["", *words]):
        if not word.startswith("-") and SWITCHES.fullmatch(before) and not NUMBER.fullmatch(word):
            return word
    return None


def with_kinds(words: Sequence[str], settings: Any) -> tuple[list[str], Any]:
    """Take the kinds that words name into settings, as `--teacher.network.kind unet`, and return the other words."""
    others = []
    left = iter(words)
    for word in left:
        option, equals, value = word.partition("=")
        place = option.removeprefix("--").removesuffix(KIND).replace("-", "_")
        if not (option.startswith("--") and option.endswith(KIND)) or _has_field(settings, place, "kind"):
            others.append(word)
            continue
        try:
            settings = with_kind(settings, place, value if equals else next(left, ""))
        except RactdError as error:
            raise RactdError(f"{option}: {error}") from None
    return others, settings


def kinds_in(settings: Any, place: str = "--") -> Iterator[str]:
    """Yield the options that take another kind of something."""
    for field in fields(settings):
        value, name = getattr(settings, field.name), place + field.name.replace("_", "-")
        if isinstance(value, Registered):
            yield name + KIND
        if is_dataclass(value):
            yield from kinds_in(value, f"{name}.")


def _has_field(settings: Any, place: str, name: str) -> bool:
    """Tell whether the settings at a place have a field of this name."""
    for part in place.split("."):
        settings = getattr(settings, part, None)
    return is_dataclass(settings) and name in {f.name for f in fields(settings)}


def check_options(
    words: Sequence[str], dataset: str | None, method: Method, preset: str, settings: Any, own: Collection[str]
) -> None:
    """Raise `RactdError` for an option that the settings, of a preset, haven't, and those of another preset or method have.

    `own` are the options that are no settings.
    """
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        name = option.removeprefix("--").replace("-", "_")
        if name in own or _has(settings, name):
            continue
        having = [other for other, its in method.presets.items() if _has(its, name)]
        if having:
            whose = ""
            if dataset is not None and value_in(words, "--preset") is None:
                find_source(dataset, download=False)
                whose = f", which is the default for dataset {dataset!r},"
            raise RactdError(
                f"{option}: the preset {preset!r}{whose} has no such option; leave it out, or name a preset that has it, "
                f"as {', '.join(having)}"
            )
        having = [other for other in METHODS if any(_has(its, name) for its in method_named(other).presets.values())]
        if having:
            others = ", ".join(having)
            raise RactdError(f"{option} is no option of method {method.name!r}, but of {others}; leave it out")


def _has(settings: Any, names: str) -> bool:
    """Tell whether settings have what an option names."""
    for name in names.split("."):
        name = name if hasattr(settings, name) else name.removeprefix("no_")
        if not hasattr(settings, name):
            return False
        settings = getattr(settings, name)
    return True
