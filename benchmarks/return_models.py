"""What a return model is worth to a policy: the plain student, moved along the return model's gradient, in the environment.

    python benchmarks/return_models.py DATASET --run RUN [--episodes 32]

RUN has a plain student of the same dataset. For every variant of the return model and seed, the plain student's action is moved
by two steps along the gradient of R, `delta` on average over the data (in actions scaled to [-1, 1]), clipped, and executed. No
student is trained for this, so it is cheap; it shows what reward distillation can hope for, and how far the sample should move.
What is measured is kept, so it can be stopped and goes on. Writes benchmarks/results/return_models-<dataset>.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from common import RESULTS, print_table, write_result
from numpy.typing import NDArray
from rich.console import Console

from ractd.critics import Critic
from ractd.critics.settings import ReturnModel
from ractd.data import load_dataset
from ractd.envs.evaluate import evaluate
from ractd.methods.ractd import METHOD
from ractd.methods.ractd_resolve import resolve
from ractd.methods.ractd_settings import PRESETS
from ractd.policies import Policy
from ractd.runs.train import prepare
from ractd.training.critic import train_critic
from ractd.training.log import Log
from ractd.training.metrics import Metrics
from ractd.training.run import Asked

DELTAS = (0.1, 0.2, 0.3, 0.4, 0.6)
SEEDS = (0, 1, 2)
OURS = PRESETS["cpu"].return_model
RETURN_MODELS: dict[str, ReturnModel] = {
    "paper (Table 8, B.2)": ReturnModel(optimization=OURS.optimization),
    "Table 8, gamma 0.99": ReturnModel(gamma=0.99, optimization=OURS.optimization),
    "cpu preset, without action noise": replace(OURS, action_noise=0.0),
    "cpu preset, gamma 0.99": replace(OURS, gamma=0.99),
    "cpu preset": OURS,
}
FIRST_SEED = 300_000_000
"""Environment seeds that neither training nor the final evaluation uses."""


@dataclass
class Options:
    """Which data, whose plain student."""

    dataset: tyro.conf.Positional[str]
    """What `ractd train` takes."""
    run: Path
    """A run on it, whose plain student is moved."""
    episodes: int = 32
    """Episodes of each score."""


def moved(plain: Policy, critic: Critic, delta: float, unit: float) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """Return the plain student moved along the gradient of a return model; `unit` is its mean norm on the data."""
    sequence = plain.sequence

    def act(observation: NDArray[Any]) -> NDArray[np.float32]:
        state = sequence.condition(torch.as_tensor(observation, dtype=torch.float32))
        action = sequence.scaled(torch.from_numpy(plain.act(observation)))
        for _ in range(2):
            action = (action + delta / 2 * gradient(critic, state, action) / unit).clamp(-1, 1)
        return sequence.normalizer.raw_action(action[:, None]).numpy()

    return act


def gradient(critic: Critic, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Return the gradient of R by scaled actions `[B, A]`."""
    action = action.clone().requires_grad_()
    (slope,) = torch.autograd.grad(critic.row(state, action).sum(), action)
    return slope


def main() -> None:
    """Measure what is missing, then print the table."""
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    data = load_dataset(options.dataset)
    assert data.env_id is not None
    plain = Policy.load(options.run / "policy" / "plain")
    name = f"return_models-{data.name}"
    path = RESULTS / f"{name}.json"
    scores: dict[str, Any] = json.loads(path.read_text())["scores"] if path.exists() else {}
    for label, model in RETURN_MODELS.items():
        for seed in SEEDS:
            if str(seed) in scores.setdefault(label, {}):
                continue
            config = resolve(replace(PRESETS["cpu"], seed=seed, return_model=model), data, Asked())
            where, silent = Path("runs/return_models") / f"{data.name}-{label}-s{seed}", Log(Console(quiet=True), None)
            critic = train_critic(prepare(METHOD, config, data, where, Accelerator(cpu=True), Metrics(None), silent))
            every = slice(0, None, max(1, data.num_transitions // 4096))
            state = plain.sequence.normalizer.observation(torch.from_numpy(data.observations[every]))
            logged = plain.sequence.normalizer.action(torch.from_numpy(data.actions[every]))
            unit = float(gradient(critic, state, logged).norm(dim=1).mean())
            scores[label][str(seed)] = [
                evaluate(
                    moved(plain.reset(seed), critic, delta, unit),
                    data.env_id,
                    episodes=options.episodes,
                    execute=1,
                    seed=FIRST_SEED,
                ).mean_score
                for delta in DELTAS
            ]
            print(label, seed, scores[label][str(seed)], flush=True)
            write_result(name, {"episodes": options.episodes, "deltas": DELTAS, "scores": scores})
    rows = [
        [label, *(f"{np.mean(column):.1f} ± {np.std(column):.1f}" for column in zip(*seeds.values(), strict=True))]
        for label, seeds in scores.items()
    ]
    print_table(data.name, ["return model (mean ± std over seeds)", *(f"delta {delta}" for delta in DELTAS)], rows)


if __name__ == "__main__":
    main()
