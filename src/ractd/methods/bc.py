"""Behaviour cloning: a network that does what the data did, in all episodes or in the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ractd.data import OfflineDataset
from ractd.data.shares import best_episodes
from ractd.errors import RactdError
from ractd.methods import Method, Variant, best_and_last, main_optimization, meanings
from ractd.networks.actor import Actor, DeterministicActor, GaussianActor
from ractd.policies import Sampling
from ractd.settings import Optimization, PositiveShare, Settings
from ractd.training.loop import Follower, Terms, Update, averaged_copy
from ractd.training.run import Asked, Run
from ractd.training.selection import train_policy


@dataclass(frozen=True)
class BC:
    """What behaviour cloning clones, and how."""

    share: PositiveShare = 1.0
    """Share of the *transitions* that is cloned: the episodes of the highest returns first, until they hold as much."""
    network: Actor = field(default_factory=Actor)
    """What acts."""
    optimization: Optimization = field(default_factory=lambda: Optimization(steps=10_000, learning_rate=1e-3))
    """How it is trained; its moving average is the policy."""


@dataclass(frozen=True)
class BCConfig(Settings):
    """One run of behaviour cloning."""

    bc: BC = field(default_factory=BC)
    """What is its own."""


def squared_error(actor: DeterministicActor, condition: Tensor, x: Tensor) -> Terms:
    """Return the mean squared error of the actor's sequences against the data's, x `[B, n, D]`."""
    loss = (actor(condition) - x).square().mean()
    return {"loss": loss, "mse": loss.detach()}


def negative_log_likelihood(actor: GaussianActor, condition: Tensor, x: Tensor) -> Terms:
    """Return `-log pi(x | condition)` of the data's sequences, x `[B, n, D]`."""
    loss = -actor.log_prob(condition, x).mean()
    return {"loss": loss, "std": actor.log_std.detach().exp().mean()}


LOSSES: dict[str, Callable[[Any, Tensor, Tensor], Terms]] = {
    "deterministic": squared_error,
    "gaussian": negative_log_likelihood,
}
"""The loss of each head."""


def train(run: Run) -> None:
    """Clone the best episodes, and save the policy."""
    config: BC = run.config.bc
    best, sentence = best_episodes(run.dataset, config.share)
    rows = torch.from_numpy(best)
    run.log.say(f"cloning {sentence}")
    run.seed_weights("bc")
    actor = config.network.build(run.sequence.shape, run.sequence.condition_dim)
    average = averaged_copy(actor)
    loss, samples, optimization = LOSSES[config.network.head], run.samples, config.optimization
    stage = run.stage_of(
        "bc",
        [Update("network", actor, lambda batch: loss(actor, *batch), optimization)],
        [Follower("average", actor, average, optimization.ema, grows=True)],
        lambda generator: samples.draw(optimization.batch_size, generator, rows),
        samples.gather,
    )
    policy = partial(run.policy, average, config.network, Sampling("direct", "mean"), None)
    train_policy(run, "bc", stage, average, policy)


def resolve(config: BCConfig, data: OfflineDataset, asked: Asked) -> BCConfig:
    """Refuse a share where no episode is better than another."""
    if config.bc.share != 1 and not data.has_rewards:
        raise RactdError(
            f"--bc.share is {config.bc.share}, expected 1: {data.name!r} has no rewards, so no episode is best"
        )
    return config


def variants(config: BCConfig) -> tuple[Variant, ...]:
    """Return the rows of a result."""
    share = config.bc.share
    return best_and_last("BC" if share == 1 else f"BC, best {share:.0%}", "bc")


METHOD = Method(
    name="bc",
    summary="behaviour cloning: does what the data did, in all episodes or in the best",
    source="ALVINN: An Autonomous Land Vehicle in a Neural Network (Pomerleau, 1988)",
    presets={"cpu": BCConfig(), "best-tenth": BCConfig(bc=BC(share=0.1))},
    train=train,
    variants=variants,
    resolve=resolve,
    main_settings=(
        "bc.share",
        "bc.network.layers",
        "bc.network.head",
        *main_optimization("bc"),
    ),
    networks=lambda config: (config.bc.network,),
    termination_penalty=lambda config: 0.0,
    meanings=meanings.BC,
    part_needs="rewards, for a share below 1",
)
