"""Judge the tables of `ractd reproduce` again, from the means by seed that their files hold: no run is needed.

    python benchmarks/verdicts.py [results/paper/table3.json ...]

Writes the comparisons and the interquartile means of each table's JSON and Markdown, for tables that were made when these had
other rules; the rest of the files stays as it is.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common import RESULTS

from ractd.files import read_json, replacing, write_json
from ractd.reproduce import EXPERIMENTS, judge
from ractd.reproduce.lines import Line, Measured, Source
from ractd.reproduce.tables import Table, markdown

SECTIONS = re.compile(r"## The paper's comparisons\n.*?(?=\n## Data\n)", re.DOTALL)


def lines_of(content: dict[str, Any]) -> list[Line]:
    """Return a table's lines, each seed's mean as its only sample."""
    lines = []
    for line in content["lines"]:
        seeds = {
            int(seed): Measured(
                {name: np.array([means[seed]]) for name, means in line["by_seed"].items() if seed in means},
                run,
                fixed=not run,  # the data has no run
                busy=int(seed) in line.get("busy", []),
            )
            for seed, run in line["runs"].items()
        }
        lines.append(Line(line["dataset"], line["method"], seeds=seeds))
    return lines


def judge_again(path: Path) -> dict[str, int]:
    """Rewrite a table's verdicts; return how many comparisons are in each state."""
    content = read_json(path)
    experiment, lines = EXPERIMENTS[content["name"]], lines_of(content)
    sources = [Source(each["name"], each, each["published"], each["unit"]) for each in content["datasets"]]
    verdicts, means = judge(experiment, lines, sources)
    table = Table(content["name"], experiment, lines, verdicts, sources, {}, content["settings"], means)
    content |= {"comparisons": [asdict(each) for each in verdicts], "aggregates": [asdict(each) for each in means]}
    found = SECTIONS.search(markdown(table, []))
    assert found is not None
    said = path.with_suffix(".md")
    text, count = SECTIONS.subn(lambda _: found[0], said.read_text())
    assert count == 1, f"{said}: no comparisons"
    with replacing(said) as partial:
        partial.write_text(text)
    write_json(path, content)
    return {state: sum(each.state == state for each in verdicts) for state in dict.fromkeys(v.state for v in verdicts)}


def main(tables: tyro.conf.Positional[tuple[Path, ...]] = ()) -> None:
    """Judge the tables again, by default those in `results/paper`."""
    for path in tables or sorted((RESULTS / "paper").glob("*.json")):
        states = judge_again(path)
        print(f"{path.name}: " + ", ".join(f"{count} {state}" for state, count in states.items()))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
