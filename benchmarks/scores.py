"""Scores of the `cpu` preset: every policy of every dataset, hand-picked reward weights beside `auto`, and pessimism.

    python benchmarks/scores.py --data DIR                 # runs what is missing, two at a time; stop it and go on at will
    python benchmarks/scores.py --data DIR --collect       # only reads the runs that are there

DIR holds the datasets as HDF5 files. Runs are made by the same command that a user types, `ractd train`, one thread each.
Writes benchmarks/results/scores.json and scores.md; rows of runs that are not there (another machine's) stay as they were, and each
says at which commit it was collected.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common import RESULTS, machine, write_result

from ractd.data.scores import standard_error
from ractd.methods.ractd_settings import PRESETS
from ractd.results.tables import markdown_table
from ractd.runs.evaluation import evaluation_path
from ractd.runs.rows import labels, read_file, read_result, read_row
from ractd.runs.tables import with_error

SEEDS = {
    "hopper-medium-replay": (0, 1, 2, 3),
    "hopper-medium-expert": (0, 1, 2),
    "halfcheetah-medium-replay": (0, 1, 2),
    "walker2d-medium-replay": (0, 1, 2, 3),
}
COMPARED = {
    "hopper-medium-replay": (0, 1, 2),
    "hopper-medium-expert": (0, 1, 2),
    "halfcheetah-medium-replay": (0,),
    "walker2d-medium-replay": (0, 1, 2),
}
"""Seeds that the presets' settings were chosen on; the others were run after that."""
WEIGHTS = (0.1, 0.3, 1.0, 3.0)
"""Hand-picked, for normalised returns; Table 9's is 1."""
PESSIMISM = {0: 0.05, 2: 0.1, 3: 0.15}
"""Standard deviations between the return model's members, with the `reward_share` they bear, set beside the preset's."""
ALL = ("--preset", "cpu", "--evaluation.select", "online", "--no-report")
"""Options of every training: the best checkpoint has a row beside the last one's."""


@dataclass
class Options:
    """Which datasets, where the runs go, how many at a time."""

    data: Path
    """Folder of the datasets."""
    runs: Path = Path("runs/scores")
    """Folder of the run directories."""
    jobs: int = 2
    """Runs at a time, one thread each."""
    others: bool = True
    """Also distil students with other reward weights and with pessimism, from the same teachers."""
    collect: bool = False
    """Train nothing, read what is there."""


def commands(options: Options) -> list[list[list[str]]]:
    """Return the commands of all runs in three stages: what is trained by itself, with a teacher of these, and played."""
    first, second, third = [], [], []
    for name, seeds in SEEDS.items():
        path = str(options.data / f"{name}.hdf5")
        for seed in seeds:
            out = options.runs / f"{name}-s{seed}"
            first.append(["train", path, "--out", str(out), "--seed", str(seed), *ALL])
        for seed, out, changed in others(options.runs, name) if options.others else ():
            words = ["--teacher", str(options.runs / f"{name}-s{seed}"), "--only", "student", "--no-plain"]
            second.append(["train", path, "--out", str(out), "--seed", str(seed), *ALL, *words, *changed])
            if not evaluation(out, seed).exists():
                third.append(["eval", str(out), "--seed", str(seed)])
    return [first, second, third]


def weighted(runs: Path, name: str, weight: float) -> Path:
    """Return the run of a hand-picked weight."""
    return runs / f"{name}-s{SEEDS[name][0]}-w{weight:g}"


def pessimistic(runs: Path, name: str, seed: int, pessimism: float) -> Path:
    """Return the run of a pessimism."""
    return runs / f"{name}-s{seed}-k{pessimism:g}"


def others(runs: Path, name: str) -> Iterator[tuple[int, Path, list[str]]]:
    """Yield seed, run and options of the students that are set beside a dataset's."""
    for weight in WEIGHTS:
        yield SEEDS[name][0], weighted(runs, name, weight), ["--reward-weight", str(weight)]
    for pessimism, share in PESSIMISM.items():
        for seed in COMPARED[name]:
            changed = ["--student.pessimism", str(pessimism), "--student.reward-share", str(share)]
            yield seed, pessimistic(runs, name, seed, pessimism), changed


def evaluation(out: Path, seed: int) -> Path:
    """Return where `ractd eval` leaves the score of a run's student."""
    return evaluation_path(out, "student", sampler="consistency", steps=1, episodes=100, execute=1, seed=seed)


def run(arguments: list[str]) -> int:
    """Run one `ractd` command on one thread; its output goes to a log beside the run."""
    out = Path(arguments[arguments.index("--out") + 1] if "--out" in arguments else arguments[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.with_suffix(".log"), "a") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "ractd.cli", *arguments]
        code = subprocess.run(command, stdout=log, stderr=log, env=environment).returncode
    print(f"{arguments[0]} {out}: {'done' if code == 0 else f'exit code {code}'}", flush=True)
    return code


def collect(options: Options) -> dict[str, Any]:
    """Read every run that is there, the last result of the others."""
    kept = RESULTS / "scores.json"
    content: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"datasets": {}, "runs": {}}
    content = {"datasets": content["datasets"], "runs": content["runs"]}
    commit = {"commit": machine()["commit"]}
    for name, seeds in SEEDS.items():
        for seed in seeds:
            result = read_result(out := options.runs / f"{name}-s{seed}")
            if result is None or not result.complete:
                continue
            content["datasets"][name] = {key: result.content[key] for key in ("dataset", "behavior")}
            content["datasets"][name]["dataset"].pop("source", None)
            rows = [row.to_json() for row in result.rows]
            content["runs"][out.name] = {**commit, "stages": result.content["stages"], "rows": rows}
        for seed, out, _ in others(options.runs, name):
            if (path := evaluation(out, seed)).exists():
                content["runs"][out.name] = {**commit, "rows": [row.to_json() for row in read_file(path, out).rows]}
    return content


def rows_of(content: dict[str, Any], run: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of a run by name, none of a run that is not there."""
    rows = content["runs"].get(run.name, {"rows": []})["rows"]
    return dict(zip(labels([read_row(row, run.name) for row in rows]), rows, strict=True))


def over_seeds(rows: Sequence[dict[str, Any] | None]) -> str:
    """Return one seed's score ± standard error over its episodes, or several seeds' mean ± standard error over them."""
    known = [row for row in rows if row]
    if not known or len(known) < len(rows):
        return "not run"
    if len(known) == 1:
        return with_error(known[0]["mean_score"], known[0]["score_se"])
    scores = [row["mean_score"] for row in known]
    return with_error(float(np.mean(scores)), standard_error(scores))


def table(content: dict[str, Any], columns: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Return every policy's network evaluations, median ms per action and scores; a column is a dataset and its seeds."""
    data = (f"{content['datasets'][name]['behavior']['mean_score']:.1f}" for name, _ in columns)
    lines = [["behaviour data", "", "", *data]]
    runs = [[rows_of(content, Path(f"{name}-s{seed}")) for seed in seeds] for name, seeds in columns]
    for label in dict.fromkeys(label for column in runs for rows in column for label in rows):
        found = [[rows[label] for rows in column if label in rows] for column in runs]
        rows = [row for column in found for row in column]
        ms = f"{np.median([row['ms_per_action'] for row in rows]):.2f}"
        lines.append([label, str(rows[0]["nfe"]), ms, *map(over_seeds, found)])
    return markdown_table(["policy", "NFE", "ms", *(titled(name, seeds) for name, seeds in columns)], lines)


def student_of(content: dict[str, Any], run: Path) -> dict[str, Any] | None:
    """Return the first row of a run, which is its student by itself; None of a run that is not there."""
    return next(iter(rows_of(content, run).values()), None)


def pessimism_table(content: dict[str, Any], columns: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Return RACTD's scores by pessimism and share; a column is a dataset and the seeds it is about."""
    preset = PRESETS["cpu"].student
    found = [[student_of(content, Path(f"{name}-s{seed}")) for seed in seeds] for name, seeds in columns]
    lines = [[f"preset: {preset.pessimism:g}, share {preset.reward_share:g}", *map(over_seeds, found)]]
    for pessimism, share in PESSIMISM.items():
        runs = [[pessimistic(Path(), name, seed, pessimism) for seed in seeds] for name, seeds in columns]
        cells = [over_seeds([student_of(content, run) for run in column]) for column in runs]
        lines.append([f"{pessimism:g}, share {share:g}", *cells])
    return markdown_table(["RACTD, pessimism", *(titled(name, seeds) for name, seeds in columns)], lines)


def titled(name: str, seeds: Sequence[object]) -> str:
    """Return the title of a column."""
    return f"{name}, {f'{len(seeds)} seeds' if len(seeds) > 1 else f'seed {seeds[0]}'}"


def markdown(content: dict[str, Any]) -> str:
    """Return the tables that README and benchmarks/README.md show."""
    runs = {
        name: [seed for seed in SEEDS[name] if f"{name}-s{seed}" in content["runs"]] for name in content["datasets"]
    }
    compared = {name: COMPARED[name] for name in runs}
    weights = [["auto", *(over_seeds([student_of(content, Path(f"{name}-s{SEEDS[name][0]}"))]) for name in runs)]]
    for weight in WEIGHTS:
        found = [student_of(content, weighted(Path(), name, weight)) for name in runs]
        weights.append([f"{weight:g}", *(over_seeds([row]) for row in found)])
    tables = [
        table(content, list(runs.items())),
        table(content, [(name, (seed,)) for name, seeds in runs.items() for seed in seeds]),
        markdown_table(["RACTD, reward weight", *runs], weights),
        pessimism_table(content, list(compared.items())),
        pessimism_table(content, [(name, (seed,)) for name, seeds in compared.items() for seed in seeds]),
    ]
    return "\n".join(tables)


def main() -> None:
    """Run what is missing, then write the tables."""
    options = tyro.cli(Options, description=__doc__)
    codes: list[int] = []
    if not options.collect:
        with ThreadPoolExecutor(options.jobs) as pool:
            for stage in commands(options):
                codes += pool.map(run, stage)
    content = collect(options)
    path = write_result("scores", content)
    path.with_suffix(".md").write_text(markdown(content))
    print(markdown(content))
    sys.exit(1 if any(codes) else 0)


if __name__ == "__main__":
    main()
