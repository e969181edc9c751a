"""RACTD with a critic that follows it beside cloning the best tenth: last checkpoints, seeds, and the goals that were set.

    python benchmarks/goals.py --data DIR                # trains what is missing, dataset by dataset; stop it and go on at will
    python benchmarks/goals.py --data DIR --collect      # only reads the runs that are there

DIR holds the datasets as HDF5 files. Each is one `ractd compare`, with 16 checkpoints played during training: they choose nothing
here, but say how far the last is below the best. Other ways to sample the last one are `ractd eval`: no noise at T, two and four
steps, 32 candidates. Writes benchmarks/results/goals.json, goals.md and docs/figures/goals.png; what is known of runs that are not
there stays, and each says at which commit it was first collected.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common import RESULTS, machine, write_result
from matplotlib import pyplot as plt

from ractd.data.scores import normalized_score
from ractd.files import replacing
from ractd.results.statistics import FEWEST_SEEDS, t_interval
from ractd.results.tables import markdown_table
from ractd.runs.rows import Result, read_file, read_result, select
from ractd.runs.tables import with_error

METHODS = {"RACTD": "ractd:preset=following", "cloning": "bc:preset=best-tenth"}
PLAIN: dict[str, Any] = {"sampler": "consistency", "steps": 1, "candidates": 1}
OTHERS: dict[str, dict[str, Any]] = {
    "no noise": {"sampler": "central"},
    "2 steps": {"steps": 2},
    "4 steps": {"steps": 4},
    "32 candidates": {"candidates": 32},
}
"""Other ways to sample RACTD's last checkpoint than `PLAIN`, as options of `ractd eval`."""
LAST = "student-last"
DATASETS = ("hopper-medium-replay", "hopper-medium-expert", "halfcheetah-medium-replay", "walker2d-medium-replay")
"""Those that settings are chosen on; no setting was chosen on the seeds 3 and 4."""
UNTOUCHED = tuple(
    f"{name}-{kind}"
    for name in ("hopper", "walker2d", "halfcheetah")
    for kind in ("medium", "medium-expert")
    if (name, kind) != ("hopper", "medium-expert")
)
"""Those that no setting may be chosen on."""
GOALS: dict[str, tuple[float, ...]] = {
    "RACTD, last": (97, 113, 50, 76),
    "above cloning": (0, 5, 5, 14),
    "last, % of the best of 16": (98, 98, 97, 95),
    "2 steps": (-3, -3, -3, -6),
    "4 steps": (-3, -3, -3, -6),
    "32 candidates": (-2, -2, -2, -2),
    "s until a point below cloning's best": (240, 240, 150, 150),
    "s in all": (480, 480, 480, 480),
}
"""By dataset, in their order: at least so much, of seconds at most."""


@dataclass
class Options:
    """Which datasets, where the runs go."""

    data: Path
    """Folder of the datasets."""
    runs: Path = Path("runs/goals")
    """Folder of the comparisons, one a dataset."""
    datasets: tuple[str, ...] = DATASETS
    """Which of them; add the untouched ones only once the settings stand."""
    seeds: int = 5
    """Seeds of each."""
    collect: bool = False
    """Train nothing, read what is there."""


def ractd(*words: str | Path) -> int:
    """Run a command of ractd on one core, and return its exit code."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", "ractd.cli", *map(str, words)], env=environment).returncode


def run_of(options: Options, dataset: str, method: str, seed: int) -> Path:
    """Return where `ractd compare` keeps a run."""
    return options.runs / dataset / f"{dataset}-{method.replace(':', '_')}-s{seed}"


def train(options: Options) -> int:
    """Train what is missing; return the first exit code that is not 0."""
    for name in options.datasets:
        words = ("--seeds", str(options.seeds), "--out", options.runs / name, "--no-report")
        if code := ractd("compare", options.data / f"{name}.hdf5", "--methods", *METHODS.values(), *words):
            return code
        for seed in range(options.seeds):
            run = run_of(options, name, METHODS["RACTD"], seed)
            for way in OTHERS.values():
                flags = [word for option, value in way.items() for word in (f"--{option}", str(value))]
                if evaluated(run, way) is None and (code := ractd("eval", run, "--policy", LAST, *flags)):
                    return code
    return 0


def evaluated(run: Path, way: dict[str, Any]) -> float | None:
    """Return the score of the last checkpoint, sampled in another way; None where that isn't measured."""
    for path in (run / "evaluations").glob(f"{LAST}-*.json"):
        for row in select(read_file(path, run).rows, policy=LAST, **PLAIN | way):
            score: float | None = row.to_json()["mean_score"]
            return score
    return None


def curve(result: Result, directory: Path, stage: str) -> list[list[float]]:
    """Return processor seconds and score of each checkpoint that was played."""
    metrics = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    played = [line for line in metrics if line.get("stage") == stage and "episode_return" in line]
    seconds, steps = result.content["stages"][stage]["processor_seconds"], result.content["stages"][stage]["steps"]
    env_id = result.content["dataset"]["env_id"]
    scores = normalized_score(env_id, np.array([line["episode_return"] for line in played]))
    assert scores is not None
    return [[line["step"] / steps * seconds, score] for line, score in zip(played, scores.tolist(), strict=True)]


def measured(directory: Path) -> dict[str, Any] | None:
    """Return what a run brought, None of one that is not finished."""
    result = read_result(directory)
    if result is None or not result.complete:
        return None
    main = result.rows[0]
    one = {"steps": 1, "candidates": 1, "variant": main.variant}
    last, best = (select(result.rows, checkpoint=which, **one)[0].to_json() for which in ("last", "best"))
    others = {name: evaluated(directory, way) for name, way in OTHERS.items()}
    return {
        "last": last["mean_score"],
        "last_se": last["score_se"],
        "best": best["mean_score"],
        "others": {name: score for name, score in others.items() if score is not None},
        "processor_seconds": last["processor_seconds"],
        "curve": curve(result, directory, main.policy),
        "data": result.content["behavior"]["mean_score"],
        "commit": machine()["commit"],
    }


def collect(options: Options) -> dict[str, Any]:
    """Read every run that is there, the last result of the others."""
    kept = RESULTS / "goals.json"
    runs: dict[str, Any] = json.loads(kept.read_text())["runs"] if kept.exists() else {}
    for name in (*DATASETS, *UNTOUCHED):
        for title, method in METHODS.items():
            for seed in range(options.seeds):
                found, key = measured(run_of(options, name, method, seed)), f"{name}, {title}, seed {seed}"
                if found is not None and found | {"commit": ""} != runs.get(key, {}) | {"commit": ""}:
                    runs[key] = found
    return {"runs": runs}


def seeds_of(runs: dict[str, Any], dataset: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return RACTD's and cloning's run of each seed that both have."""
    pairs = ([runs.get(f"{dataset}, {title}, seed {seed}") for title in METHODS] for seed in range(100))
    return [(ours, theirs) for ours, theirs in pairs if ours and theirs]


def over_seeds(values: Sequence[float]) -> str:
    """Return a mean, from three seeds on with half its 95% t interval."""
    values = [value for value in values if np.isfinite(value)]
    if not values:
        return "not measured"
    mean = float(np.mean(values))
    half = t_interval(np.array(values))[1] - mean if len(values) >= FEWEST_SEEDS else None
    return with_error(mean, half)


def seconds_until(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Return the processor seconds until a played checkpoint was within a point of cloning's best; infinite where none was."""
    return min((seconds for seconds, score in ours["curve"] if score >= theirs["best"] - 1), default=np.inf)


Pair = tuple[dict[str, Any], dict[str, Any]]
LINES: dict[str, Callable[[Pair], float]] = {
    "cloning, last": lambda pair: pair[1]["last"],
    "RACTD, last": lambda pair: pair[0]["last"],
    "above cloning": lambda pair: pair[0]["last"] - pair[1]["last"],
    "last, % of the best of 16": lambda pair: 100 * pair[0]["last"] / pair[0]["best"],
    "no noise": lambda pair: pair[0]["others"].get("no noise", np.nan) - pair[0]["last"],
    "2 steps": lambda pair: pair[0]["others"].get("2 steps", np.nan) - pair[0]["last"],
    "4 steps": lambda pair: pair[0]["others"].get("4 steps", np.nan) - pair[0]["last"],
    "32 candidates": lambda pair: pair[0]["others"].get("32 candidates", np.nan) - pair[0]["last"],
    "s until a point below cloning's best": lambda pair: seconds_until(*pair),
    "s in all": lambda pair: pair[0]["processor_seconds"],
}
"""What a pair of runs of one seed says."""


def table(runs: dict[str, Any], datasets: Sequence[str]) -> str:
    """Return the goals and what was reached; a column is a dataset."""
    pairs = {name: seeds_of(runs, name) for name in datasets}
    pairs = {name: found for name, found in pairs.items() if found}
    lines = [["behaviour data", *(f"{found[0][0]['data']:.1f}" for found in pairs.values())]]
    for title, value in LINES.items():
        cells = []
        for name, found in pairs.items():
            values = [value(pair) for pair in found]
            seconds = title.startswith("s ")
            text = f"{np.median(values):.0f}" if seconds else over_seeds(values)
            if title in GOALS and name in DATASETS and text != "not measured":
                goal = GOALS[title][DATASETS.index(name)]
                text += f" (goal {goal:g})"
            cells.append(text.replace("inf", "never"))
        lines.append([title, *cells])
        if title in ("cloning, last", "RACTD, last"):
            lines.append(["worst seed", *(f"{min(value(pair) for pair in found):.1f}" for found in pairs.values())])
    counts = {name: "1 seed" if len(found) == 1 else f"{len(found)} seeds" for name, found in pairs.items()}
    return markdown_table(["", *(f"{name}, {count}" for name, count in counts.items())], lines)


def markdown(content: dict[str, Any]) -> str:
    """Return the tables that README and benchmarks/README.md show."""
    tables = [table(content["runs"], DATASETS)]
    if any(seeds_of(content["runs"], name) for name in UNTOUCHED):
        tables.append(table(content["runs"], UNTOUCHED))
    return "\n".join(tables)


def draw(runs: dict[str, Any], path: Path) -> None:
    """Draw both methods' last checkpoints, a dot a seed, and the score against processor time."""
    names = [name for name in DATASETS if seeds_of(runs, name)]
    colors = dict(zip(METHODS, ("#4a7cc4", "#cf7417"), strict=True))
    titles = {"RACTD": "RACTD, a critic follows it", "cloning": "cloning the best tenth"}
    plt.rcParams["axes.titlesize"] = "medium"
    figure, axes = plt.subplots(1, len(names), figsize=(3 * len(names), 2.8), constrained_layout=True, squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for position, title in enumerate(METHODS):
            for pair in seeds_of(runs, name):
                curve = np.array(pair[position]["curve"])
                axis.plot(*curve.T, color=colors[title], alpha=0.5, linewidth=1)
                axis.plot(
                    pair[position]["processor_seconds"], pair[position]["last"], "o", color=colors[title], markersize=5
                )
        axis.set(title=name, xlabel="processor seconds", ylim=(0, None))
        axis.grid(color="#d7dce2")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("D4RL-normalised score")
    handles = [plt.Line2D([], [], color=colors[title], marker="o", label=titles[title]) for title in METHODS]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    options = tyro.cli(Options, description=__doc__)
    code = 0 if options.collect else train(options)
    content = collect(options)
    path = write_result("goals", content)
    path.with_suffix(".md").write_text(markdown(content))
    draw(content["runs"], RESULTS.parent.parent / "docs/figures/goals.png")
    print(markdown(content))
    sys.exit(code)


if __name__ == "__main__":
    main()
