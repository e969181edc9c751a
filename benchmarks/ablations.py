"""RACTD with one thing changed at a time: what its data term sees, its critic, its start, its steps; last checkpoints.

    python benchmarks/ablations.py --data DIR            # trains what is missing; stop it and go on at will
    python benchmarks/ablations.py --data DIR --collect  # only reads the runs that are there

DIR holds the datasets as HDF5 files. Each variant is one `ractd train` with other options than the default's, on one thread.
Nothing is played on the way. Writes benchmarks/results/ablations.json and ablations.md; what is known of other runs stays.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from common import RESULTS, machine, write_result
from goals import DATASETS, ractd

from ractd.registry import unknown
from ractd.results.tables import markdown_table
from ractd.runs.rows import read_result, select
from ractd.runs.tables import with_error

FIXED = ("--no-plain", "--reward-weight", "auto", "--student.pessimism", "0")
TEACHER = ("--student.distilled", "--teacher.loss", "square")
VARIANTS: dict[str, tuple[str, ...]] = {
    "the default": (),
    "the paper's stages": ("--preset", "cpu", "--no-plain"),
    "eq. 7 sees the best 5%": ("--student.share", "0.05"),
    "the best 10%": ("--student.share", "0.1"),
    "the best 50%": ("--student.share", "0.5"),
    "all data": ("--student.share", "1"),
    "no reward": ("--reward-weight", "0"),
    "no reward, all data": ("--reward-weight", "0", "--student.share", "1"),
    "Q weighs 2.5": ("--reward-weight", "2.5"),
    "Q weighs 10": ("--reward-weight", "10"),
    "the mean of both Q pays": ("--student.pessimism", "0"),
    "no distance penalty": ("--student.following.distance-penalty", "0"),
    "1 step of rewards": ("--student.following.n-step", "1"),
    "6,000 steps": ("--student.optimization.steps", "6000"),
    "24,000 steps": ("--student.optimization.steps", "24000"),
    "starts from a teacher": TEACHER,
    "starts from a teacher, all data": (*TEACHER, "--student.share", "1"),
    "CTM": (*TEACHER, "--student.ctm-weight", "1", "--student.ctm-share", "0.25"),
    "CTM, all data": (*TEACHER, "--student.ctm-weight", "1", "--student.ctm-share", "0.25", "--student.share", "1"),
    "fixed returns-to-go": ("--return-model.kind", "return-to-go", *FIXED),
    "fixed, SARSA": ("--return-model.kind", "sarsa", *FIXED),
    "fixed, IQL": ("--return-model.kind", "iql", *FIXED),
    "fixed, IQL, all data by advantage": (
        *("--return-model.kind", "iql", *FIXED),
        *("--student.share", "1", "--student.advantage-temperature", "4"),
    ),
}
"""Each with its options."""


@dataclass
class Options:
    """Which datasets, where the runs go."""

    data: Path
    """Folder of the datasets."""
    runs: Path = Path("runs/ablations")
    """Folder of the runs."""
    datasets: tuple[str, ...] = DATASETS
    """Which of them."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Which changes, in which order."""
    seed: int = 0
    """A seed that settings are chosen on."""
    collect: bool = False
    """Train nothing, read what is there."""


def run_of(options: Options, dataset: str, variant: str) -> Path:
    """Return where a run is kept."""
    return options.runs / f"{dataset}-s{options.seed}" / re.sub(r"[^\w-]", "", variant.replace(" ", "-"))


def measured(run: Path) -> dict[str, Any] | None:
    """Return what a run brought by one step and by four, None of one that is not finished."""
    result = read_result(run) if run.exists() else None
    if result is None or not result.complete:
        return None
    (one,) = (row.to_json() for row in select(result.rows, policy="student", candidates=1, steps=1))
    four = [
        row.to_json()["mean_score"] for row in select(result.rows, policy="student", steps=4)
    ]  # none without reward
    return {
        "score": one["mean_score"],
        "se": one["score_se"],
        "four_steps": four[0] if four else None,
        "episodes": len(one["returns"]),
        "processor_seconds": one["processor_seconds"],
        "collapse": (result.content["stages"].get("student") or {}).get("collapse"),
        "watch": watched(run),
        "commit": machine()["commit"],
    }


def watched(run: Path) -> dict[str, float]:
    """Return what the watch for collapse saw last, of a student that has a teacher."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    looks = [line for line in lines if line["stage"] == "student" and "watch_out_of_bounds" in line]
    return {name: value for name, value in looks[-1].items() if name.startswith("watch_")} if looks else {}


def collect(options: Options) -> dict[str, Any]:
    """Read every run that is there, the last result of the others."""
    kept = RESULTS / "ablations.json"
    content: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"seed": options.seed, "runs": {}}
    runs: dict[str, Any] = content["runs"] if content["seed"] == options.seed else {}
    for dataset in options.datasets:
        for variant in VARIANTS:
            if (found := measured(run_of(options, dataset, variant))) is not None:
                runs[f"{dataset}, {variant}"] = found
    return {"seed": options.seed, "options": {name: list(words) for name, words in VARIANTS.items()}, "runs": runs}


def table(runs: dict[str, Any]) -> str:
    """Return a line a variant: its score in one step with its standard error, by four steps, and seconds.

    Students that the watch for collapse has warned of are `condemned`.
    """
    lines, datasets = [], list(dict.fromkeys(name.partition(", ")[0] for name in runs))
    for variant in VARIANTS:
        found = [runs.get(f"{dataset}, {variant}") for dataset in datasets]
        cells = [
            ""
            if of is None
            else with_error(of["score"], of["se"])
            + (f"; {of['four_steps']:.1f}" if of["four_steps"] is not None else "")
            + (", condemned" if of["collapse"] else "")
            for of in found
        ]
        seconds = [of["processor_seconds"] for of in found if of is not None]
        if seconds:
            lines.append([variant, *cells, f"{sum(seconds) / len(seconds):.0f}"])
    return markdown_table(["one step; four", *datasets, "s"], lines)


def main() -> None:
    """Train what is missing, then write the table."""
    options = tyro.cli(Options, description=__doc__)
    for name in options.variants:
        if name not in VARIANTS:
            sys.exit(str(unknown("variant", name, VARIANTS)))
    code = 0
    if not options.collect:
        for variant in options.variants:
            for dataset in options.datasets:
                run, data = run_of(options, dataset, variant), options.data / f"{dataset}.hdf5"
                if measured(run) is None:
                    code = ractd("train", data, "--seed", str(options.seed), "--out", run, *VARIANTS[variant]) or code
    content = collect(options)
    path = write_result("ablations", content)
    path.with_suffix(".md").write_text(table(content["runs"]))
    print(table(content["runs"]))
    sys.exit(code)


if __name__ == "__main__":
    main()
