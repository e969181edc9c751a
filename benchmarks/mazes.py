"""Planners in D4RL's mazes: every policy open loop (the paper's Table 2) and closed loop, with the CPU presets.

    python benchmarks/mazes.py                     # makes data, trains and evaluates what is missing; stop it and go on at will
    python benchmarks/mazes.py --collect           # only reads the runs that are there

Runs are made by the commands that a user types, one thread each. Writes benchmarks/results/mazes.json and mazes.md, and copies the
pictures of plans to docs/figures.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import tyro
from common import RESULTS, write_result

from ractd.data.formats.made import built_names
from ractd.data.scores import standard_error
from ractd.reproduce.paper import MAZES, published
from ractd.results.tables import markdown_table
from ractd.runs.evaluation import evaluation_path
from ractd.runs.rows import labels, read_file, read_result, read_row
from ractd.runs.tables import with_error

POLICIES = {"teacher": "teacher", "plain": "plain student", "student": "RACTD"}
"""Those that are also evaluated closed loop, and the rows of a result that they are."""
PAPER = {
    maze: {
        method: float(published("table2").score[maze, method])
        for method in ("Diffuser", "CTD (plain student)", "RACTD")
    }
    for maze in MAZES
}
"""Table 2 of the paper; CTD is consistency trajectory distillation without reward."""
COMPARED, EPISODES = ("plain", "student"), 1_000
"""Policies that are played from many more starts, the same ones, since their scores lie close together."""
FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"


@dataclass
class Options:
    """Which mazes, where the runs go, how many at a time."""

    mazes: tuple[str, ...] = tuple(PAPER)
    """Names of D4RL's mazes."""
    runs: Path = Path("runs/mazes")
    """Folder of the run directories."""
    replan: int = 32
    """Steps between plans, closed loop."""
    jobs: int = 2
    """Mazes at a time, one thread each."""
    collect: bool = False
    """Train nothing, read what is there."""


def run(log: Path, *arguments: str) -> int:
    """Run one `ractd` command on one thread, its output to a log beside the run; return its exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as file:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "ractd.cli", *arguments]
        code = subprocess.run(command, stdout=file, stderr=file, env=environment).returncode
    print(f"{' '.join(arguments)}: {'done' if code == 0 else f'exit code {code}'}", flush=True)
    return code


def played(out: Path, name: str, episodes: int, execute: int) -> Path:
    """Return where `ractd eval` leaves the score of a policy that executes so many steps of each plan."""
    sampler, steps = ("heun", 80) if name == "teacher" else ("consistency", 1)
    return evaluation_path(out, name, sampler=sampler, steps=steps, episodes=episodes, execute=execute, seed=0)


def horizon(out: Path) -> int:
    """Return the steps of a run's plans: all are executed open loop."""
    return int(json.loads((out / "config.json").read_text())["config"]["horizon"])


def make(maze: str, options: Options) -> int:
    """Make one maze's data, planner and closed-loop scores; return 1 where the planner isn't trained."""
    out = options.runs / f"{maze}-s0"
    log = out.with_suffix(".log")
    if maze not in built_names():
        run(log, "data", "make", maze)
    if run(log, "train", maze, "--out", str(out), "--evaluation.select", "online"):
        return 1
    for name in POLICIES:
        if not played(out, name, 100, options.replan).exists():
            run(log, "eval", str(out), "--policy", name, "--replan", str(options.replan))
    loops = {horizon(out): (), options.replan: ("--replan", str(options.replan))}
    for name, (execute, loop) in product(COMPARED, loops.items()):
        if not played(out, name, EPISODES, execute).exists():
            run(log, "eval", str(out), "--policy", name, "--episodes", str(EPISODES), *loop)
    return 0


def compared(out: Path, execute: int) -> dict[str, Any] | None:
    """Return RACTD's score less the plain student's, from the same starts."""
    paths = [played(out, name, EPISODES, execute) for name in COMPARED]
    if not all(path.exists() for path in paths):
        return None
    plain, student = (read_file(path, out).rows[0] for path in paths)
    if student.scores is None or plain.scores is None:
        return None
    differences = student.scores - plain.scores
    scores = {"plain": plain.mean_score, "student": student.mean_score}
    found = {"difference": float(differences.mean()), "error": standard_error(differences)}
    return {"episodes": EPISODES, **found, **scores}


def collect(options: Options) -> dict[str, Any]:
    """Read every run that is there, the last result of the others, and copy its picture."""
    kept = RESULTS / "mazes.json"
    runs: dict[str, Any] = json.loads(kept.read_text())["runs"] if kept.exists() else {}
    for maze in options.mazes:
        result = read_result(out := options.runs / f"{maze}-s0")
        if result is None:
            continue
        if (out / "plans.png").exists():
            shutil.copy(out / "plans.png", FIGURES / f"{maze}.png")
        closed = (path for name in POLICIES if (path := played(out, name, 100, options.replan)).exists())
        result.content["dataset"].pop("source", None)
        runs[out.name] = {
            "complete": result.complete,
            "dataset": result.content["dataset"],
            "stages": result.content["stages"],
            "compared": {"open": compared(out, horizon(out)), "closed": compared(out, options.replan)},
            "rows": [row.to_json() for row in (*result.rows, *(read_file(path, out).rows[0] for path in closed))],
        }
    return {"runs": runs}


def cells(row: dict[str, Any] | None) -> list[str]:
    """Return score, share of episodes that came to the goal, and mean return, of one row."""
    if row is None:
        return ["", "", ""]
    score = with_error(row["mean_score"], row["score_se"])
    return [score, f"{row['success_rate']:.0%}", f"{row['mean_return']:.0f}"]


def markdown(content: dict[str, Any]) -> str:
    """Return one table a maze."""
    parts = ["Times were taken beside whatever else ran; those of an idle machine are in `inference_maze2d-*.json`."]
    for name, run in content["runs"].items():
        maze, rows = run["dataset"]["name"], run["rows"]
        seconds = sum(stage["seconds"] for stage in run["stages"].values())
        whole = max(row["protocol"]["execute"] for row in rows)
        sampled = ("policy", "sampler", "steps", "candidates")
        closed = {tuple(row[key] for key in sampled): row for row in rows if row["protocol"]["execute"] < whole}
        lines = []
        for label, row in zip(labels([read_row(row, name) for row in rows]), rows, strict=True):
            if row["protocol"]["execute"] == whole:
                both = [*cells(row), *cells(closed.get(tuple(row[key] for key in sampled)))]
                lines.append([label, str(row["nfe"]), f"{row['ms_per_action']:.2f}", *both])
        loops = [heading for loop in ("open", "closed") for heading in (f"{loop} loop: score", "reached", "return")]
        table = markdown_table(["policy", "NFE", "ms a plan", *loops], lines).rstrip()
        said = [f"**{maze}** (all stages: {seconds / 60:.0f} minutes)", "", table]
        pairs = ", ".join(
            f"{loop} loop {pair['difference']:+.1f} ± {pair['error']:.1f} ({pair['student']:.1f} and {pair['plain']:.1f})"
            for loop, pair in run["compared"].items()
            if pair
        )
        if pairs:
            said += ["", f"RACTD less the plain student, {EPISODES:,} episodes from the same starts: {pairs}."]
        if maze in PAPER:
            figures = ", ".join(f"{method} {score}" for method, score in PAPER[maze].items())
            said += ["", f"The paper's Table 2, on D4RL's own data and environment: {figures}."]
        parts.append("\n".join(said))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run what is missing, then write the tables."""
    options, codes = tyro.cli(Options, description=__doc__), list[int]()
    if not options.collect:
        with ThreadPoolExecutor(options.jobs) as pool:
            codes = list(pool.map(lambda maze: make(maze, options), options.mazes))
    content = collect(options)
    path = write_result("mazes", content)
    path.with_suffix(".md").write_text(markdown(content))
    print(markdown(content))
    sys.exit(1 if any(codes) else 0)


if __name__ == "__main__":
    main()
