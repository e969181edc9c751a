"""TD3+BC: TD3 whose actor is also held to the data's actions (Fujimoto and Gu, A Minimalist Approach to Offline RL, 2021)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from ractd.critics.q import QFunction, QPart
from ractd.methods import Method, best_and_last, main_optimization, meanings
from ractd.networks.actor import Actor
from ractd.networks.ensemble import Ensemble
from ractd.policies import Sampling
from ractd.settings import Count, NotNegative, OneActionSettings, Optimization, PositiveShare
from ractd.training.loop import Draws, Follower, Terms, Update, averaged_copy
from ractd.training.run import Run
from ractd.training.selection import train_policy
from ractd.training.transitions import Batch, TransitionSamples


@dataclass(frozen=True)
class TD3BC:
    """How TD3+BC learns; the defaults are the paper's, but for fewer steps with a falling learning rate."""

    alpha: NotNegative = 2.5
    """How much Q counts beside the data's actions."""
    gamma: Annotated[float, Meta(ge=0, le=1)] = 0.99
    """Discount."""
    n_step: Count = 1
    """Steps whose rewards are summed before a value is taken; the paper's is 1."""
    tau: PositiveShare = 0.005
    """How far the target networks move towards the trained ones at a time."""
    policy_noise: NotNegative = 0.2
    """Standard deviation of the noise on the target's actions, which are in [-1, 1]."""
    noise_clip: NotNegative = 0.5
    """Largest such noise."""
    delay: Count = 2
    """The actor and the targets move in one of so many steps."""
    network: Actor = field(default_factory=Actor)
    """What acts."""
    critic_layers: tuple[Count, ...] = (256, 256)
    """Widths of the Linear + ReLU layers of both Q networks."""
    critic_layer_norm: bool = False
    """Normalise their hidden layers."""
    optimization: Optimization = field(default_factory=lambda: Optimization(200_000, weight_decay=0, max_grad_norm=1e6))
    """How all networks are trained; the actor's moving average is the policy."""


@dataclass(frozen=True)
class TD3BCConfig(OneActionSettings):
    """One run of TD3+BC."""

    td3_bc: TD3BC = field(default_factory=TD3BC)
    """What is its own."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield each field that can't stand beside the others, and what is expected of it."""
        yield from super().contradictions()
        if self.td3_bc.network.head != "deterministic":
            yield "td3_bc.network.head", "'deterministic': Q's gradient moves the action itself"


def critic_loss(
    critic: Ensemble, target_critic: Ensemble, target_actor: nn.Module, batch: Batch, noise: Tensor, clip: float
) -> Terms:
    """Return the squared errors of both Q against `r + gamma min Q'(s', pi'(s') + noise)` (as in TD3); `noise` is `[B, A]`."""
    with torch.no_grad():
        action = (target_actor(batch.next_condition).flatten(1) + noise.clamp(-clip, clip)).clamp(-1, 1)
        after = target_critic(torch.cat([batch.next_condition, action], 1)).amin(0)
        target = batch.reward + batch.discount * after
    q = critic(torch.cat([batch.condition, batch.action], 1))
    return {"loss": (q - target).square().mean(1).sum(), "q": q.detach().mean(), "target": target.mean()}


def actor_loss(
    actor: nn.Module, critic: Ensemble, batch: Batch, alpha: float, mean: Callable[[Tensor], Tensor] = lambda x: x
) -> Terms:
    """Return `-lambda Q1(s, pi(s)) + (pi(s) - a)^2`, `lambda = alpha / mean |Q1|` of the actor's actions (section 5)."""
    action = actor(batch.condition).flatten(1)
    q = critic(torch.cat([batch.condition, action], 1))[0]
    weight = alpha / mean(q.detach().abs().mean())
    bc = (action - batch.action).square().mean()
    return {"loss": bc - weight * q.mean(), "bc": bc.detach(), "q": q.detach().mean(), "lambda": weight}


def train(run: Run) -> None:
    """Train actor and critics in turns, and save the policy."""
    config: TD3BC = run.config.td3_bc
    sequence, optimization = run.sequence, config.optimization
    samples = TransitionSamples(sequence, run.dataset, config.n_step, config.gamma)
    run.seed_weights("td3_bc")
    actor = config.network.build(sequence.shape, sequence.condition_dim)
    q = QFunction.build(QPart(config.critic_layers, config.critic_layer_norm, 2, samples.unit, config.gamma), sequence)
    critic, target_critic, target_actor = q.ensemble, averaged_copy(q.ensemble), averaged_copy(actor)
    average = averaged_copy(actor)

    def draw(generator: torch.Generator) -> Draws:
        drawn = samples.draw(optimization.batch_size, generator)
        return drawn | {"noise": torch.randn(optimization.batch_size, sequence.action_dim, generator=generator)}

    def gather(draws: Draws) -> tuple[Batch, Tensor]:
        return samples.gather(draws), config.policy_noise * draws["noise"]

    def lower_critic(given: tuple[Batch, Tensor]) -> Terms:
        return critic_loss(critic, target_critic, target_actor, *given, config.noise_clip)

    def lower_actor(given: tuple[Batch, Tensor]) -> Terms:
        return actor_loss(actor, critic, given[0], config.alpha, run.mean_over_processes)

    stage = run.stage_of(
        "td3_bc",
        [
            Update("critic", critic, lower_critic, optimization),
            Update("actor", actor, lower_actor, optimization, every=config.delay),
        ],
        [
            Follower("target critic", critic, target_critic, 1 - config.tau, every=config.delay),
            Follower("target actor", actor, target_actor, 1 - config.tau, every=config.delay),
            Follower("average", actor, average, optimization.ema, grows=True, every=config.delay),
        ],
        draw,
        gather,
        exploded=None,
    )
    policy = partial(run.policy, average, config.network, Sampling("direct", "mean"), q)
    train_policy(run, "td3_bc", stage, average, policy)


METHOD = Method(
    name="td3_bc",
    summary="TD3 whose actor is also held to the data's actions",
    source="A Minimalist Approach to Offline Reinforcement Learning (Fujimoto and Gu, 2021)",
    presets={"cpu": TD3BCConfig()},
    train=train,
    variants=lambda config: best_and_last("TD3+BC", "td3_bc"),
    main_settings=("td3_bc.alpha", "td3_bc.gamma", "td3_bc.network.layers", *main_optimization("td3_bc")),
    networks=lambda config: (config.td3_bc.network,),
    termination_penalty=lambda config: 0.0,
    needs=frozenset({"rewards"}),
    meanings=meanings.TD3_BC,
)
