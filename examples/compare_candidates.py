"""What more candidates and more sampling steps buy: one policy, scored in its environment in every combination.

    python examples/compare_candidates.py runs/demo --candidates 1 8 32 --steps 1 2 4

With N candidates, N sequences are drawn for each action and the return model's favourite is executed. Every combination
meets the same environment seeds, which training did not use.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

import ractd
from ractd.envs import EvaluationResult, evaluate, make_vector
from ractd.envs.environments import environments_of
from ractd.envs.vector import MakeVector


def score(policy: ractd.Policy, env_id: str, episodes: int, execute: int, make: MakeVector) -> EvaluationResult:
    """Closed loop for `execute` 1, else so many actions of each sequence."""
    history = policy.sequence.history
    return evaluate(policy.reset(0).acting(), env_id, episodes=episodes, execute=execute, history=history, make=make)


def row(candidates: int, steps: int, result: EvaluationResult) -> list[str]:
    """A line of the table."""
    normalized = "" if result.mean_score is None else f"{result.mean_score:.1f}"
    return [
        str(candidates),
        str(steps),
        f"{result.mean_return:,.1f} ± {result.return_se:,.1f}",
        normalized,
        f"{result.mean_length:,.0f}",
        f"{1e6 * result.seconds_per_action:,.0f}",
    ]


def main() -> None:
    """Score every combination."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("--policy", default="student")
    parser.add_argument("--env", help="where the policy names none")
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--execute", type=int, default=1)
    arguments = parser.parse_args()

    policy = ractd.Policy.load(arguments.run / "policy" / arguments.policy)
    env_id = arguments.env or (None if policy.environment is None else policy.environment.env_id)
    if env_id is None:
        parser.error("the policy names no environment, give one with --env")
    # The policy's own environment has its settings, step limit and maze.
    own = None if arguments.env else policy.environment
    make = make_vector if own is None else environments_of(own, arguments.run)
    table = Table(title=f"{arguments.policy} in {env_id}, {arguments.episodes} episodes", title_justify="left")
    for column in ("candidates", "steps", "return ± s.e.", "score", "length", "µs/action in the batch"):
        table.add_column(column, justify="right")
    for candidates, steps in product(arguments.candidates, arguments.steps):
        configured = policy.configured(candidates=candidates, steps=steps)
        result = score(configured, env_id, arguments.episodes, arguments.execute, make)
        table.add_row(*row(candidates, steps, result))
    Console().print(table)


if __name__ == "__main__":
    main()
