"""Milliseconds a step of every stage, before and after: a commit, this one, and its options, in turns in one run.

    python benchmarks/steps.py [--before 042d264] [--rounds 5]

Each turn is one `benchmarks/training.py` of the commit's own tree, on one thread; a turn's share of the peak is of the peak that it
measured itself. Writes benchmarks/results/steps.json and steps.md.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from common import RESULTS, summary, write_result
from same_numbers import ROOT, checked_out, run

from ractd.results.tables import markdown_table


@dataclass
class Options:
    """What is compared, and for how long."""

    before: str = "042d264"
    """The commit to compare with: the last of the first edition."""
    rounds: int = 5
    """Turns of each."""
    seconds: float = 2.0
    """Of each stage in each turn."""


WAYS = {
    "before": ("before", ()),
    "fp32": ("now", ()),
    "bf16": ("now", ("--precision", "bf16")),
    "compiled": ("now", ("--compile",)),
}
"""Whose code, and which options of training.py."""
KEYS = ("ms_per_step", "share_of_peak", "first_step_seconds")


def turn(tree: Path, words: tuple[str, ...], seconds: float) -> dict[str, dict[str, float]]:
    """Return ms a step and the share of the peak of each stage."""
    path = tree / "benchmarks/results/training.json"
    kept = path.read_bytes()
    try:
        run(
            tree,
            str(tree / "benchmarks/training.py"),
            "--threads",
            "1",
            "--repeats",
            "1",
            "--seconds",
            str(seconds),
            *words,
        )
        results: dict[str, Any] = json.loads(path.read_text())["results"]
    finally:
        path.write_bytes(kept)
    return {stage: {key: number(of[key]) for key in KEYS if key in of} for stage, of in results.items()}


def number(found: Any) -> float:
    """Return a number, of several repeats their median."""
    return float(found["median"] if isinstance(found, dict) else found)


def table(result: dict[str, dict[str, Any]]) -> str:
    """Return a line a stage: ms a step and the share of the peak each way, and times the steps a second of before."""
    lines = []
    for stage in result["fp32"]:
        cells, before = [], result["before"].get(stage)
        for way in WAYS:
            of = result[way].get(stage)
            if of is None:
                cells.append("")
                continue
            cell = f"{of['ms_per_step']['median']:.1f} ms"
            if way != "bf16":  # the peak is that of single precision
                cell += f", {of['share_of_peak']['median']:.0%}"
            if before is not None and way != "before":
                pairs = zip(before["ms_per_step"]["values"], of["ms_per_step"]["values"], strict=True)
                cell += f", {statistics.median(old / new for old, new in pairs):.2f} times"
            if way == "compiled":
                cell += f", after {max(of['first_step_seconds']['values']):.0f} s"  # later turns find it in a cache
            cells.append(cell)
        lines.append([stage, *cells])
    return markdown_table(["", *WAYS], lines)


def main() -> None:
    """Measure in turns, write, show."""
    options = tyro.cli(Options, description=__doc__)
    turns: dict[str, list[dict[str, dict[str, float]]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder, checked_out(options.before, Path(folder)) as before:
        trees = {"before": before, "now": ROOT}
        for _ in range(options.rounds):
            for way, (tree, words) in WAYS.items():
                turns[way].append(turn(trees[tree], words, options.seconds))
    result = {
        way: {
            stage: {key: summary([one[stage][key] for one in found]) for key in found[0][stage]} for stage in found[0]
        }
        for way, found in turns.items()
    }
    write_result("steps", {"before": options.before, "rounds": options.rounds, "result": result})
    (RESULTS / "steps.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
