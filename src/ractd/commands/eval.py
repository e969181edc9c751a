"""`ractd eval`. Heavy imports wait until it runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ractd.commands.consoles import out
from ractd.commands.parsing import read


@dataclass
class Eval:
    """Score a policy of a run in its environment, and keep the numbers in RUN/evaluations."""

    run_directory: Annotated[Positional[Path], arg(name="run", metavar="RUN")]
    """A run directory."""
    policy: str | None = None
    """Which of the run's policies, by default its main one. RACTD has student, with --preset cpu also teacher and plain, with
    --evaluation.select online also student-last."""
    episodes: int = 100
    """Episodes."""
    execute: Annotated[int | None, arg(aliases=["--replan"])] = None
    """Actions of each sequence that are executed before the next is sampled: by default 1, closed loop, and for a planner
    its whole plan, open loop."""
    candidates: int | None = None
    """Sequences drawn for each action, of which the return model's favourite is executed."""
    sampler: str | None = None
    """How it samples. A student: consistency (its default), central, jumps. A teacher: heun (its default), euler, euler-ancestral,
    dpmpp-2m, ddim. A DDPM teacher: ddpm (its default), ddim."""
    steps: int | None = None
    """Sampling steps: network evaluations of a student or a DDPM teacher; bins of a teacher's schedule."""
    env: str | None = None
    """Gymnasium environment, where the policy doesn't name one; module:Id-v0 imports a module of yours, which a policy's
    file alone never does."""
    env_steps: int | None = None
    """Steps after which its episodes are cut, where that is not the policy's own limit."""
    seed: int = 0
    """Seeds environments and noise."""

    def run(self) -> None:
        from ractd.envs.modules import import_environment
        from ractd.runs.evaluation import evaluate_policy
        from ractd.runs.tables import table_of

        import_environment(self.env)
        result = evaluate_policy(
            self.run_directory,
            self.policy,
            episodes=self.episodes,
            execute=self.execute,
            candidates=self.candidates,
            sampler=self.sampler,
            steps=self.steps,
            env_id=self.env,
            env_steps=self.env_steps,
            seed=self.seed,
            console=out,
        )
        out.print(table_of(result))


parse = partial(read, Eval, "eval")
