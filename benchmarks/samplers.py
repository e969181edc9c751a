"""Every sampler of a trained run's policies, by its steps: network evaluations, time per action, score.

    python benchmarks/samplers.py runs/scores/hopper-medium-replay-s0 [runs/ddpm] [--episodes 100] [--steps 5 10 20 40 80]

Stop it and go on at will: a row that is measured with the same weights, episodes and seed is not measured again, and rows of
other runs stay. The run of a DDPM teacher is one more RUN. Writes benchmarks/results/samplers.json and samplers.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from common import RESULTS, write_result
from rich.console import Console
from tyro.conf import Positional

from ractd.diffusion.samplers import SAMPLERS
from ractd.envs.environments import environments_of
from ractd.envs.seeds import environment_seed
from ractd.policies import Policy
from ractd.policies.files import WEIGHTS
from ractd.results.tables import markdown_table
from ractd.runs.latency import time_policies
from ractd.runs.scoring import row_of, score


@dataclass
class Options:
    """Which runs, and how much of them."""

    runs: Positional[tuple[Path, ...]]
    """Run directories."""
    policies: tuple[str, ...] = ("teacher", "student")
    """Which of their policies."""
    episodes: int = 100
    """Episodes of each row."""
    steps: tuple[int, ...] = (5, 10, 20, 40, 80)
    """Bins of a teacher's schedule, steps of a DDPM teacher: those that it has."""
    student_steps: tuple[int, ...] = (1, 2, 3, 4)
    """Steps of a student."""
    seed: int = 0
    """Seeds environments and noise."""
    threads: int = 1
    """Threads of the networks."""


def ways(policy: Policy, options: Options) -> Iterator[Policy]:
    """Yield the policy with each of its samplers and steps."""
    sampling = policy.sampling
    for name, sampler in SAMPLERS[sampling.kind].items():
        least, most = sampler.limits(sampling.schedule)
        for steps in options.student_steps if sampling.jumps else options.steps:
            if least <= steps <= most:
                yield policy.configured(sampler=name, steps=steps)


def same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Say whether two rows are of the same policy, sampled in the same way."""
    return all(row[key] == other[key] for key in ("policy", "variant", "sampler", "steps"))


def measured(row: dict[str, Any], identity: str, options: Options) -> bool:
    """Say whether a row is as it would be measured now."""
    found = row["sha256"], row["threads"], row["protocol"]["episodes"], row["protocol"]["seed"]
    return found == (identity, options.threads, options.episodes, environment_seed(options.seed))


def markdown(runs: dict[str, Any]) -> str:
    """Return a table of each run."""
    columns = ("policy", "sampler", "steps", "NFE", "ms per action", "score ± s.e.", "episodes")
    parts = []
    for name, rows in runs.items():
        lines = []
        for row in rows:
            mean, se = row["mean_score"], row["score_se"]
            if mean is None:
                mean, se = row["mean_return"], row["return_se"]
            how = (row["variant"], row["sampler"], row["steps"], row["nfe"], f"{row['ms_per_action']:.2f}")
            lines.append([*map(str, how), f"{mean:.1f} ± {se or 0:.1f}", str(row["protocol"]["episodes"])])
        parts += [f"{name}\n", markdown_table(columns, lines)]
    return "\n".join(parts)


def main() -> None:
    """Measure what is missing, the quick rows first; write the tables after each row."""
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    path, console = RESULTS / "samplers.json", Console()
    runs: dict[str, Any] = json.loads(path.read_text())["runs"] if path.exists() else {}
    for run in options.runs:
        there = [run / "policy" / name for name in options.policies if (run / "policy" / name).is_dir()]
        if not there:
            raise SystemExit(f"{run}: has none of the policies {', '.join(options.policies)}")
        weights = {place: hashlib.sha256((place / WEIGHTS).read_bytes()).hexdigest() for place in there}
        todo = [(place, policy) for place in there for policy in ways(Policy.load(place), options)]
        rows = runs.setdefault(run.resolve().name, [])
        for place, policy in sorted(todo, key=lambda item: item[1].evaluations):
            sampling, environment = policy.sampling, policy.environment
            if environment is None:
                raise SystemExit(f"{place}: names no environment to score in")
            row = row_of(policy, place.name, place.name if sampling.kind != "DDPM teacher" else sampling.kind, None)
            found = next((old for old in rows if same(old, row.to_json())), None)
            if found is not None and measured(found, weights[place], options):
                continue
            execute = policy.sequence.horizon if policy.sequence.open_loop else 1
            row = score(
                row,
                policy,
                environment.env_id,
                options.episodes,
                execute,
                options.seed,
                console,
                environments_of(environment, place),
            )
            new = replace(row, **time_policies({"": policy})[0][""]).to_json() | {"sha256": weights[place]}
            rows[:] = [old for old in rows if not same(old, new)] + [new]
            rows.sort(key=lambda old: (old["variant"], old["sampler"], old["steps"]))
            write_result("samplers", {"runs": runs})
            path.with_suffix(".md").write_text(markdown(runs))
            console.print(
                f"{run.name}: {row.variant}, {row.sampler}, {row.steps} steps: {row.mean_return:,.0f}", highlight=False
            )
    console.print(markdown(runs), markup=False)


if __name__ == "__main__":
    main()
