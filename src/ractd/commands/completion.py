"""`ractd --tyro-print-completion SHELL`: a script with which a shell completes `ractd`'s command lines."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass
from typing import Annotated, Any, Union

import tyro
from tyro.conf import DisallowNone, OmitSubcommandPrefixes, subcommand

from ractd.commands import COMMANDS
from ractd.commands.data import SUBCOMMANDS
from ractd.commands.parsing import of_help
from ractd.commands.train import of_method
from ractd.methods import method_named


def write_script(words: Sequence[str]) -> None:
    """Write the script that the words ask for, with the options of the default method.

    Raises:
        SystemExit: Always.
    """
    files = {name: importlib.import_module(f"ractd.commands.{name}") for name in COMMANDS}
    kinds = {name: getattr(file, name.capitalize(), None) for name, file in files.items()}
    kinds["data"] = make_dataclass("Data", [("command", _any_of(SUBCOMMANDS))])
    method = method_named("ractd")
    kinds["train"], default = of_method(method, method.presets[method.default])
    config = DisallowNone, OmitSubcommandPrefixes
    tyro.cli(_any_of(kinds, train=default), prog="ractd", args=list(words), config=config, registry=of_help())


def _any_of(kinds: Mapping[str, Any], **defaults: Any) -> Any:
    """Return the type of which each command, by its name, is one, some of them with a default."""
    marks = {name: subcommand(name, default=defaults.get(name, tyro.MISSING_NONPROP)) for name in kinds}
    return Union[tuple(Annotated[kind, marks[name]] for name, kind in kinds.items())]  # noqa: UP007
