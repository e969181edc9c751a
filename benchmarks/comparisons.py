"""Make the comparisons in tables of `ractd reproduce` again, from the means by seed that their files hold: no run is needed.

    python benchmarks/comparisons.py [results/paper/table3.json ...]

Writes the comparisons and the interquartile means of each table's JSON and Markdown, for tables that were made when these had
other rules; the rest of the files stays as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common import RESULTS

from ractd.files import read_json, replacing, write_json
from ractd.reproduce import EXPERIMENTS, comparisons
from ractd.reproduce.lines import Line, Measured, TableSource
from ractd.reproduce.tables import PaperTable, markdown

SECTIONS = re.compile(r"## The paper's comparisons\n.*?(?=\n## Data\n)", re.DOTALL)


def lines_of(content: dict[str, Any]) -> list[Line]:
    """Return a table's lines, each seed's mean as its only sample."""
    lines = []
    for line in content["lines"]:
        seeds = {
            int(seed): Measured(
                {name: np.array([means[seed]]) for name, means in line["by_seed"].items() if seed in means},
                run,
                busy=int(seed) in line.get("busy", []),
            )
            for seed, run in line["runs"].items()
        }
        lines.append(Line(line["dataset"], line["method"], seeds=seeds))
    return lines


def compare_again(path: Path) -> dict[str, int]:
    """Rewrite a table's comparisons; return how many are in each state."""
    content = read_json(path)
    experiment, lines = EXPERIMENTS[content["name"]], lines_of(content)
    sources = [TableSource(each["name"], each, each["published"], each["unit"]) for each in content["datasets"]]
    found = comparisons(experiment, lines, sources)
    table = PaperTable(content["name"], experiment, lines, found, sources, {}, content["settings"])
    content |= {
        "comparisons": [asdict(each) for each in found],
        "aggregates": table.aggregates().to_dict("records"),
    }
    section = SECTIONS.search(markdown(table))
    assert section is not None
    said = path.with_suffix(".md")
    text, count = SECTIONS.subn(lambda _: section[0], said.read_text())
    assert count == 1, f"{said}: no comparisons"
    with replacing(said) as partial:
        partial.write_text(text)
    write_json(path, content)
    return Counter(each.state for each in found)


def main(tables: tyro.conf.Positional[tuple[Path, ...]] = ()) -> None:
    """Make the comparisons again, by default of the tables in `results/paper`."""
    for path in tables or sorted((RESULTS / "paper").glob("*.json")):
        states = compare_again(path)
        print(f"{path.name}: " + ", ".join(f"{count} {state}" for state, count in states.items()))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
