"""`ractd methods`. It imports every method, and torch with them: a method's one file is all that says what it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ractd.commands.consoles import out
from ractd.commands.parsing import read


@dataclass
class Methods:
    """List the methods: what each does, what data it needs beside observations and actions, and where it is from.

    'ractd train --method NAME --help' shows a method's options.
    """

    def run(self) -> None:
        from rich.table import Table

        from ractd.methods import METHODS, method_named

        table = Table.grid(padding=(0, 2))
        for method in map(method_named, METHODS):
            needs = ", ".join(sorted(method.needs, reverse=True)) or "observations and actions"
            more = f"; {method.part_needs}" if method.part_needs else ""
            table.add_row(method.name, f"{method.summary}\nneeds: {needs}{more}\nsource: {method.source}\n")
        out.print(table, markup=False, highlight=False)


parse = partial(read, Methods, "methods")
