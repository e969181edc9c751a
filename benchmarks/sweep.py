"""What a second worker saves, and whether a sweep that is killed comes to the same table.

    python benchmarks/sweep.py [--dataset hopper-mixed] [--trials 8] [--steps 1000]

The same trainings, one CPU each, with one worker, with two, and with two that are killed with -9 in the middle and started
again. Each time is that of the command as a user types it, start of Python and Ray included. Writes benchmarks/results/sweep.json.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from common import print_table, write_result

from ractd.errors import RactdError

GOAL = 1.7
WEIGHTS = ("0.1", "0.3")


@dataclass
class Options:
    """Which trainings."""

    dataset: str = "hopper-mixed"
    """As for 'ractd train'; 'ractd data make hopper-mixed' makes the default."""
    trials: int = 8
    """Trainings of a sweep, an even number: two reward weights."""
    steps: int = 1_000
    """Of each teacher; its return model and its student take half as many."""
    directory: Path | None = None
    """Where the sweeps are kept; by default a temporary directory."""
    results: Path = Path(__file__).parent / "results"
    """Directory of sweep.json."""

    def command(self, out: Path, jobs: int) -> list[str]:
        """Return the arguments of `ractd sweep`."""
        sweep = [self.dataset, "--vary", "student.reward-weight", *WEIGHTS, "--seeds", str(self.trials // len(WEIGHTS))]
        train = {
            "--preset": "demo",
            "--return-model.optimization.steps": str(self.steps // 2),
            "--teacher.optimization.steps": str(self.steps),
            "--student.optimization.steps": str(self.steps // 2),
            "--evaluation.episodes": "8",
            "--evaluation.select": "online",
            "--evaluation.checkpoints": "2",
            "--evaluation.checkpoint-episodes": "4",
        }
        words = [word for pair in train.items() for word in pair]
        return ["sweep", *sweep, "--jobs", str(jobs), "--out", str(out), "--", *words, "--no-plain"]


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start `ractd`, its output in a file."""
    with log.open("ab") as stream:
        return subprocess.Popen([sys.executable, "-m", "ractd.cli", *command], stdout=stream, stderr=stream)


def finish(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a sweep; raises `RactdError` where it fails."""
    if process.wait():
        raise RactdError(f"the sweep ended with exit code {process.returncode}:\n{log.read_text()}")


def finished(out: Path) -> int:
    """Count the trainings whose result is complete."""
    return sum('"complete": true' in path.read_text() for path in out.glob("*/result.json"))


def timed(options: Options, out: Path, jobs: int) -> float:
    """Run a whole sweep and return its wall time."""
    log, begin = out.with_suffix(".log"), time.perf_counter()
    finish(start(options.command(out, jobs), log), log)
    return time.perf_counter() - begin


def killed(options: Options, out: Path) -> int:
    """Kill a sweep when half of its trainings are done, go on, and return how many were done when it was killed."""
    log = out.with_suffix(".log")
    process = start(options.command(out, 2), log)
    while finished(out) < options.trials // 2:
        if process.poll() is not None:
            raise RactdError(f"the sweep ended before it could be killed:\n{log.read_text()}")
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = finished(out)
    finish(start(options.command(out, 2), log), log)
    return done


def main() -> None:
    """Run the three sweeps."""
    options = tyro.cli(Options, description=__doc__)
    if options.trials < 4 or options.trials % len(WEIGHTS):
        raise RactdError(f"--trials is {options.trials}, expected an even number from 4")
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        names = ("one worker", "two workers", "killed")
        outs = {name: directory / name.replace(" ", "-") for name in names}
        one, two = timed(options, outs["one worker"], 1), timed(options, outs["two workers"], 2)
        done = killed(options, outs["killed"])
        tables = {name: pd.read_csv(out / "sweep.csv").drop(columns="processor_seconds") for name, out in outs.items()}
    same = {name: tables[name].equals(tables["one worker"]) for name in ("two workers", "killed")}
    print(tables["one worker"].to_string())
    print_table(
        f"{options.trials} trainings on {options.dataset}",
        ["", "wall s", "same table"],
        [
            ["one worker", f"{one:.1f}", ""],
            ["two workers", f"{two:.1f}", "yes" if same["two workers"] else "no"],
            [f"two, killed after {done} and continued", "", "yes" if same["killed"] else "no"],
        ],
    )
    print(f"ratio {one / two:.2f} (goal {GOAL})")
    content: dict[str, Any] = {
        "dataset": Path(options.dataset).name,
        "trials": options.trials,
        "teacher_steps": options.steps,
        "wall_seconds": {"one worker": one, "two workers": two},
        "ratio": one / two,
        "goal": GOAL,
        "killed_after": done,
        "same_table": same,
    }
    print(write_result("sweep", content, options.results))


if __name__ == "__main__":
    main()
