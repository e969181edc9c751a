"""Which settings the words of `ractd train` start from: those of the method, preset and dataset that they name."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any

from ractd.commands.parsing import HELP
from ractd.data.registry import find_source
from ractd.errors import RactdError
from ractd.methods import Method, method_named
from ractd.methods.places import KIND, has, places, why_not, with_other_kind
from ractd.methods.presets import default_preset, preset_named


def method_in(words: Sequence[str]) -> Method:
    """Return the method that words name; raises `RactdError` for an unknown one."""
    return method_named(value_in(words, "--method") or "ractd")


def preset_in(words: Sequence[str], method: Method, dataset: str | None) -> str:
    """Return the preset that words name, else the one that their dataset asks for; help opens no dataset.

    Raises `RactdError` for an unknown preset, and a maze where the method can't plan.
    """
    named = value_in(words, "--preset")
    if named is not None:
        preset_named(method, named)
    if named is not None or dataset is None or HELP & set(words):
        return named or method.default
    return default_preset(method, dataset, value_in(words, "--env"), value_in(words, "--teacher") is not None)


def value_in(words: Sequence[str], option: str) -> str | None:
    """Return the last value that an option of one word is given."""
    for before, word in reversed(list(pairwise(["", *words]))):
        if before == option or word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return None


SWITCHES = re.compile(r"--plain|--report|.*(--|\.)no-.*|.*=.*|[^-].*|")
"""What no value follows, among words."""
NUMBER = re.compile(r"[\d.]+(e[-+]?\d+)?")


def dataset_in(words: Sequence[str], method: Method) -> str | None:
    """Return the first word that is neither an option of a method nor the value of one, nor a number of several."""
    presets = method.presets.values()
    own = {spelt(place) for each in presets for place in places(each) if isinstance(attrgetter(place)(each), bool)}
    for before, word in pairwise(["", *words]):
        if word.startswith("-") or NUMBER.fullmatch(word):
            continue
        if before in own or SWITCHES.fullmatch(before):
            return word
    return None


def with_kinds(words: Sequence[str], settings: Any) -> tuple[list[str], Any]:
    """Take the kinds that words name into settings, as `--teacher.network.kind unet`, and return the other words."""
    others = []
    left = iter(words)
    for word in left:
        option, equals, value = word.partition("=")
        place = _place(option)
        if option.startswith("--") and place.endswith(KIND) and not has(settings, place):
            settings = with_other_kind(settings, place, value if equals else next(left, ""), option)
        else:
            others.append(word)
    return others, settings


def check_options(
    words: Sequence[str], dataset: str | None, method: Method, preset: str, settings: Any, own: Collection[str]
) -> None:
    """Raise `RactdError` for an option that the settings, of a preset, haven't, and those of another preset or method have.

    `own` are the options that are no settings.
    """
    default_of = dataset if dataset is not None and value_in(words, "--preset") is None else ""
    for place in places_in(words):
        if place in own or has(settings, place):
            continue
        if default_of and any(has(its, place) for its in method.presets.values()):
            find_source(default_of, download=False)  # what is wrong with the data, which chose the preset, comes first
        if told := why_not(method, preset, settings, place, default_of, spelt):
            raise RactdError(told)


def places_in(words: Sequence[str]) -> list[str]:
    """Return the places that the options among words are of."""
    return [_place(word.partition("=")[0]) for word in words if word.startswith("--")]


def _place(option: str) -> str:
    """Return the place of a setting that an option, or its opposite, is of."""
    within, dot, name = option.removeprefix("--").replace("-", "_").rpartition(".")
    return within + dot + name.removeprefix("no_")


def spelt(place: str) -> str:
    """Return the option of a place."""
    return "--" + place.replace("_", "-")
