"""A method of one's own, in one file: cloning in which transitions of higher returns count more.

    python examples/own_method.py hopper-mixed --out own

Reward-weighted regression (Peters and Schaal, 2007). The rest of ractd knows it by one line of a registry.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

import ractd
from ractd.data import return_to_go
from ractd.methods import METHODS, Method, best_and_last
from ractd.networks.actor import Actor
from ractd.policies import Sampling
from ractd.settings import NotNegative, Optimization, Settings
from ractd.training.loop import Draws, Follower, Terms, Update, averaged_copy
from ractd.training.run import Run
from ractd.training.selection import train_policy


@dataclass(frozen=True)
class WeightedCloning(Settings):
    """Its settings: whoever derives from `Settings` has horizon, seed and evaluation as well."""

    beta: NotNegative = 1.0
    """Weights are exp(beta z), z the return-to-go in standard deviations from the mean; 0 is plain cloning."""
    gamma: Annotated[float, Meta(ge=0, le=1)] = 0.99
    """Discount of the returns."""
    network: Actor = field(default_factory=Actor)
    """What acts."""
    optimization: Optimization = field(default_factory=lambda: Optimization(steps=10_000))
    """How it is trained; its moving average is the policy."""


def weighted_error(actor: torch.nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Terms:
    """Return the mean of `w |x - actor(condition)|^2`; what a loss returns beside `loss` is what the logger shows."""
    condition, x, weight = batch
    error = (actor(condition) - x).square().mean((1, 2))
    return {"loss": (weight * error).mean(), "error": error.detach().mean()}


def train(run: Run) -> None:
    """Train the one stage, and save the policy of its last checkpoint, and of its best where that is asked for."""
    config: WeightedCloning = run.config
    z = torch.from_numpy(return_to_go(run.dataset, config.gamma))
    weights = (config.beta * (z - z.mean()) / z.std().clamp(min=1e-6)).clamp(max=5).exp()
    weights /= weights.mean()
    run.seed_weights("own")
    actor = config.network.build(run.sequence.shape, run.sequence.condition_dim)
    average, optimization = averaged_copy(actor), config.optimization

    def gather(draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        return *run.samples.gather(draws), weights[draws["index"]]

    stage = run.stage_of(
        "own",
        [Update("network", actor, partial(weighted_error, actor), optimization)],
        [Follower("average", actor, average, optimization.ema, grows=True)],
        lambda generator: run.samples.draw(optimization.batch_size, generator),
        gather,
    )
    train_policy(
        run, "own", stage, average, partial(run.policy, average, config.network, Sampling("direct", "mean"), None)
    )


METHOD = Method(
    name="own",
    summary="cloning in which transitions of higher returns count more",
    source="Reinforcement Learning by Reward-Weighted Regression (Peters and Schaal, 2007)",
    presets={"cpu": WeightedCloning()},
    train=train,
    variants=lambda config: best_and_last("weighted cloning", "own"),
    needs=frozenset({"rewards"}),
)
METHODS["own"] = f"{__name__}:METHOD"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=10_000)
    arguments = parser.parse_args()
    config = WeightedCloning(optimization=Optimization(steps=arguments.steps))
    config = replace(config, evaluation=replace(config.evaluation, episodes=10))
    result = ractd.train(arguments.log, method="own", config=config, out=arguments.out)
    for row in result.rows:
        print(row.variant, row.checkpoint, row.mean_return)
