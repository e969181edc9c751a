"""Maze2D: transitions per second and peak memory of making the data, and how near the environment is to D4RL's.

    python benchmarks/maze_data.py [--steps 200000]

Each measurement is a process of its own, so that its peak memory is its own. The environment is compared by D4RL's two
reference policies: uniform actions, and the policy behind D4RL's maximum, which is not an expert: its controller plans for
the first of 100 episodes only and pulls straight towards the goal in the others, into the walls between. The controller
that plans in every episode is beside them.
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from common import print_table, summary, write_result
from numpy.typing import NDArray

from ractd.data.scores import REFERENCES
from ractd.envs import ActionSequencePolicy, evaluate
from ractd.envs.maze import MAZES, Maze, WaypointController
from ractd.processors import cores
from ractd.recipes.mazes import make_maze_dataset, transitions_of

GOAL = 20_000
D4RL_EPISODES = 100
"""Episodes that D4RL's reference returns are means of."""


@dataclass
class Options:
    """How much is measured."""

    steps: int | None = None
    """Transitions of each dataset; by default D4RL's sizes."""
    repeats: int = 3
    """Measurements of each, interleaved."""
    episodes: int = 400
    """Episodes of each reference policy."""
    child: str | None = None
    """One measurement, for the processes that this one starts: 'MAZE THREADS STEPS'."""


def measure(name: str, threads: int, steps: int) -> dict[str, Any]:
    """Make a dataset in this process: transitions a second and a CPU second, peak memory in MiB, the file's digest."""
    with tempfile.TemporaryDirectory() as folder:
        start, busy = time.perf_counter(), time.process_time()
        path = make_maze_dataset(MAZES[name], transitions=steps, directory=folder, threads=threads)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        mebibytes = path.stat().st_size / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    rates = {"rate": steps / seconds, "cpu_rate": steps / busy}
    return {**rates, "peak_mib": peak, "file_mib": mebibytes, "digest": digest}


def in_a_process(name: str, threads: int, steps: int) -> dict[str, Any]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--child", f"{name} {threads} {steps}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def generation(options: Options) -> dict[str, Any]:
    """Every maze on one thread and on all cores."""
    counts = sorted({1, cores()})
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {(name, n): [] for name in MAZES for n in counts}
    for _ in range(options.repeats):
        for (name, threads), results in runs.items():
            results.append(in_a_process(name, threads, options.steps or transitions_of(MAZES[name])))
            print(f"{name}, {threads} threads: {results[-1]['rate']:,.0f} transitions/s", flush=True)
    return {
        name: {
            "transitions": options.steps or transitions_of(MAZES[name]),
            "file_mib": runs[name, 1][0]["file_mib"],
            "same_bytes": len({r["digest"] for n in counts for r in runs[name, n]}) == 1,
            "threads": {
                n: {
                    "transitions_per_second": summary([r["rate"] for r in runs[name, n]]),
                    "transitions_per_cpu_second": summary([r["cpu_rate"] for r in runs[name, n]]),
                    "peak_mib": max(r["peak_mib"] for r in runs[name, n]),
                }
                for n in counts
            },
        }
        for name in MAZES
    }


def uniform(maze: Maze) -> ActionSequencePolicy:
    """Actions drawn uniformly."""
    rng = np.random.default_rng(0)
    return lambda seen: rng.uniform(-1, 1, (len(seen), 1, 2))


def straight(maze: Maze) -> ActionSequencePolicy:
    """The PD controller with the goal for its only waypoint."""

    def policy(seen: NDArray[np.float32]) -> NDArray[Any]:
        states = seen[:, -1]
        actions: NDArray[Any] = np.clip(10 * (maze.goal - states[:, :2]) - states[:, 2:], -1, 1)
        return actions[:, None]

    return policy


def planner(maze: Maze) -> ActionSequencePolicy:
    """The planner over cells and its PD controller, for one wave of episodes."""
    controllers: list[WaypointController] = []

    def policy(seen: NDArray[np.float32]) -> NDArray[Any]:
        states = seen[:, -1].astype(np.float64)
        if not controllers:
            controllers.append(WaypointController(maze, len(states), np.random.default_rng(0)))
            goals = np.tile(maze.goal, (len(states), 1))
            controllers[0].aim(np.arange(len(states)), states[:, :2], goals)
        return controllers[0](states)[0][:, None]

    return policy


def returns(episodes: int) -> dict[str, Any]:
    """What the reference policies earn here and in D4RL."""
    policies: dict[str, tuple[Callable[[Maze], ActionSequencePolicy], int | None]] = {
        "uniform actions (D4RL's minimum)": (uniform, 0),
        "straight to the goal (D4RL's maximum)": (straight, 1),
        "planner and controller": (planner, None),
    }
    results: dict[str, Any] = {}
    for name, maze in MAZES.items():
        results[name] = {}
        for label, (make, bound) in policies.items():
            result = evaluate(make(maze), maze.env_id, episodes=episodes, num_envs=episodes)
            theirs = None if bound is None else REFERENCES[name][bound]
            # Of 100 episodes of theirs, spread as ours are, against all of ours.
            error = float(np.hypot(result.return_se, result.returns.std() / np.sqrt(D4RL_EPISODES)))
            results[name][label] = {
                "mean_return": result.mean_return,
                "return_se": result.return_se,
                "mean_score": result.mean_score,
                "success_rate": float((result.returns > 0).mean()),
                "d4rl": theirs,
                "standard_errors_apart": None if theirs is None else (result.mean_return - theirs) / error,
            }
            print(f"{name}, {label}: {result.mean_return:.1f}", flush=True)
    return results


def main() -> None:
    """Measure, print, write `benchmarks/results/maze_data.json`."""
    options = tyro.cli(Options, description=__doc__)
    if options.child is not None:
        name, threads, steps = options.child.split()
        print(json.dumps(measure(name, int(threads), int(steps))))
        return
    made = generation(options)
    rows = []
    for name, result in made.items():
        for threads, of in result["threads"].items():
            speed = of["transitions_per_second"]
            busy = of["transitions_per_cpu_second"]["median"]
            numbers = [
                f"{speed['median']:,.0f}",
                f"{100 * speed['spread']:.0f}%",
                f"{busy:,.0f}",
                f"{of['peak_mib']:.0f}",
            ]
            rows.append([name, str(threads), f"{result['transitions']:,}", *numbers])
    title = f"Maze2D data; goal {GOAL:,} transitions/s on 2 cores"
    columns = ["maze", "threads", "rows", "rows/s", "spread", "rows per CPU s", "peak MiB"]
    print_table(title, columns, rows)
    earned = returns(options.episodes)
    rows = [
        [
            f"{name}: {label}",
            f"{of['mean_return']:.1f} ± {of['return_se']:.1f}",
            "" if of["d4rl"] is None else f"{of['d4rl']:.1f}",
            "" if of["d4rl"] is None else f"{of['standard_errors_apart']:+.1f}",
            f"{of['mean_score']:.1f}",
            f"{100 * of['success_rate']:.0f}%",
        ]
        for name, policies in earned.items()
        for label, of in policies.items()
    ]
    columns = ["policy", "return ± s.e.", "D4RL", "s.e. apart", "score", "success"]
    print_table(f"returns of {options.episodes} episodes beside D4RL's reference returns", columns, rows)
    settings = {"repeats": options.repeats, "episodes": options.episodes, "goal": GOAL}
    print(write_result("maze_data", {**settings, "generation": made, "returns": earned}).name)


if __name__ == "__main__":
    main()
