"""How long a report takes and how large it is.

python benchmarks/report.py --run runs/scores/hopper-medium-replay-s0

Each time is that of the command as a user types it, start of Python included. Writes benchmarks/results/report.json.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from common import print_table, summary, write_result

from ractd.errors import RactdError
from ractd.runs.rows import read_result


@dataclass
class Options:
    """Which run, how often."""

    run: Path
    """A finished run, whose dataset is where it was."""
    repeats: int = 3
    """Reports with and without video."""


def report(run: Path, *words: str) -> tuple[float, float, dict[str, Any]]:
    """Write a report; return its wall time, its processor time (the renderer's included), its sizes and its gaps."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "ractd.cli", "report", str(run), "-o", str(page), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise RactdError(f"{run}: there is no report of it: {done.stderr}")
        pictures = sum(path.stat().st_size for path in page.with_suffix("").iterdir())
        gaps = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("not shown: ")]
        facts = {"page_bytes": page.stat().st_size, "pictures_bytes": pictures, "not_shown": gaps}
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, facts


def main() -> None:
    """Measure reports with and without video."""
    options = tyro.cli(Options, description=__doc__)
    result = read_result(options.run)
    if result is None:
        raise RactdError(f"{options.run}: has no result yet")
    played = result.rows[0].protocol
    episodes = 0 if played is None else played.episodes
    measured: dict[str, Any] = {}
    for name, words in (("with video", []), ("without video", ["--no-video"])):
        runs = [report(options.run, *words) for _ in range(options.repeats)]
        times = {"wall_seconds": summary([run[0] for run in runs]), "cpu_seconds": summary([run[1] for run in runs])}
        measured[name] = times | runs[-1][2]
    rows = [
        [
            name,
            f"{entry['wall_seconds']['median']:.1f}",
            f"{entry['cpu_seconds']['median']:.1f}",
            f"{entry['page_bytes'] / 1e6:.2f}",
            f"{entry['pictures_bytes'] / 1e6:.2f}",
        ]
        for name, entry in measured.items()
    ]
    print_table(
        f"report of {options.run.name}, {episodes} episodes", ["", "wall s", "cpu s", "page MB", "PNG MB"], rows
    )
    print(write_result("report", {"dataset": result.content["dataset"]["name"], "episodes": episodes, **measured}))


if __name__ == "__main__":
    main()
