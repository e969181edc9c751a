"""From the words of a command line to a command."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import is_dataclass, replace
from typing import Annotated, Any, NoReturn, TypeVar

import tyro
from tyro.conf import DisallowNone, Suppress, arg
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

T = TypeVar("T")
Shows = Callable[[str], bool | None]
"""Whether help shows the option at a place, as `student.optimization.steps`."""
HELP = {"-h", "--help", "--help-all"}
SETTINGS = "config"
"""The field of a command whose own fields are options without a prefix."""

EXAMPLE = "Example: "
"""What a paragraph begins with that is to be copied, and so stays a line."""


def all_of(place: str) -> bool:
    """Show every option."""
    return True


def read(
    kind: type[T], name: str, words: Sequence[str], *, about: str | None = None, shows: Shows = all_of, **options: Any
) -> T:
    """Read the words after `ractd NAME` as a command of this kind.

    Args:
        kind: The command's class, whose fields are its options.
        name: What it is called.
        words: What was typed.
        about: What its help says first, by default the docstring of its class.
        shows: Whether `--help` shows the option at a place; None for one that `--help-all` leaves out, too.
        options: Of `tyro.cli`.

    Raises:
        SystemExit: After help, with 0, and for words that the command doesn't know, with 2.
    """
    if HELP & {*words}:
        _help(kind, name, about or inspect.getdoc(kind) or "", shows, "--help-all" in words, options)
    command: T = tyro.cli(kind, prog=f"ractd {name}", args=list(words), **options)
    return command


def _help(kind: type[Any], name: str, about: str, shows: Shows, everything: bool, options: dict[str, Any]) -> NoReturn:
    print(wrapped(about), end="\n\n")
    hidden: set[str] = set()
    with suppress(SystemExit):
        tyro.cli(
            kind,
            prog=f"ractd {name}",
            args=["--help"],
            description="",  # tyro would break no line of it
            config=(DisallowNone,),
            registry=of_help(lambda place: shows(place) is not None if everything else shows(place), hidden),
            **options,
        )
    if not everything and (more := sum(shows(place) is not None for place in hidden)):
        print(wrapped(f"'ractd {name} --help-all' shows {more} more."))
    raise SystemExit(0)


def wrapped(text: str) -> str:
    """Break the lines of paragraphs where the terminal ends, but not those of examples."""
    width = shutil.get_terminal_size().columns
    return "\n\n".join(
        part if part.startswith(EXAMPLE) else textwrap.fill(part, width, break_on_hyphens=False)
        for part in text.split("\n\n")
    )


def of_help(shows: Shows = all_of, hidden: set[str] | None = None) -> ConstructorRegistry:
    """Return how help reads dataclasses: some options left out, and noted as `hidden`, no `(default: None)`, texts that flow."""
    registry = ConstructorRegistry()
    places: dict[int, str] = {}
    within = False

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal within
        if within or not is_dataclass(info.type):
            return None
        within = True
        spec = ConstructorRegistry.get_struct_spec(info)
        within = False
        if not isinstance(spec, StructConstructorSpec):
            return None
        where = places.get(id(info.default), "")
        return replace(spec, fields=tuple(field(each, where) for each in spec.fields))

    def field(each: StructFieldSpec, where: str) -> StructFieldSpec:
        marks: list[Any] = [arg(help_behavior_hint=_hint)]
        if is_dataclass(each.default):
            places[id(each.default)] = where if each.name == SETTINGS else f"{where}{each.name}."
        elif not shows(where + each.name):
            marks.append(Suppress)
            if hidden is not None:
                hidden.add(where + each.name)
        return replace(each, type=Annotated[(each.type, *marks)], helptext=lambda: _flowing(each))  # type: ignore[arg-type]

    return registry


def _hint(default: str) -> str:
    return "" if default in ("None", "False", "") else f"(default: {default})"


def _flowing(field: StructFieldSpec) -> str | None:
    text = field.helptext() if callable(field.helptext) else field.helptext
    return text and " ".join(text.split())


def read_with_training(kind: type[T], name: str, words: Sequence[str]) -> T:
    """Read a command that trains, whose `train_options` are the words after '--'."""
    at = list(words).index("--") if "--" in words else len(words)
    command: Any = read(kind, name, words[:at])
    trains: T = replace(command, train_options=tuple(words[at + 1 :]))
    return trains
