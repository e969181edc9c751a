"""Implicit Q-learning: values of the best actions that the data has, without asking about others (Kostrikov et al., Offline
Reinforcement Learning with Implicit Q-Learning, 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import torch
from msgspec import Meta
from torch import nn

from ractd.critics.q import QFunction, QPart
from ractd.critics.td import LARGEST_WEIGHT
from ractd.methods import Method, best_and_last, main_optimization, meanings
from ractd.networks.actor import Actor, GaussianActor, mlp
from ractd.networks.ensemble import Ensemble
from ractd.policies import Sampling
from ractd.settings import Count, NotNegative, OneActionSettings, Optimization, PositiveShare
from ractd.training.loop import Follower, Terms, Update, averaged_copy
from ractd.training.run import Run
from ractd.training.selection import train_policy
from ractd.training.transitions import Batch, TransitionSamples


@dataclass(frozen=True)
class IQL:
    """How IQL learns; the defaults are the paper's for the Gym data, but for fewer steps with falling learning rates."""

    expectile: Annotated[float, Meta(ge=0.5, lt=1)] = 0.7
    """tau: 0.5 values what the data does on average, towards 1 the best that it does."""
    temperature: NotNegative = 3.0
    """beta: 0 clones, and the larger it is the more better actions count, for rewards of about 1 a step (`reward_unit`)."""
    gamma: Annotated[float, Meta(ge=0, le=1)] = 0.99
    """Discount."""
    n_step: Count = 1
    """Steps whose rewards are summed before a value is taken; the paper's is 1."""
    tau: PositiveShare = 0.005
    """How far the target network moves towards the trained one in a step."""
    network: Actor = field(default_factory=lambda: Actor(head="gaussian"))
    """What acts."""
    critic_layers: tuple[Count, ...] = (256, 256)
    """Widths of the Linear + ReLU layers of both Q networks, and of V's."""
    critic_layer_norm: bool = False
    """Normalise their hidden layers."""
    optimization: Optimization = field(
        default_factory=lambda: Optimization(steps=150_000, weight_decay=0.0, max_grad_norm=1e6)
    )
    """How all networks are trained; the actor's moving average is the policy."""


@dataclass(frozen=True)
class IQLConfig(OneActionSettings):
    """One run of IQL."""

    iql: IQL = field(default_factory=IQL)
    """What is its own."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield each field that can't stand beside the others, and what is expected of it."""
        yield from super().contradictions()
        if self.iql.network.head != "gaussian":
            yield "iql.network.head", "'gaussian': actions are weighted by how likely they are"


def value_loss(value: nn.Module, target_critic: Ensemble, batch: Batch, expectile: float) -> Terms:
    """Return the expectile loss `|tau - 1(u < 0)| u^2` of `u = min Q'(s, a) - V(s)` (section 4.2)."""
    v = value(batch.condition).squeeze(-1)
    u = target_critic(torch.cat([batch.condition, batch.action], 1)).amin(0) - v
    loss = (torch.where(u > 0, expectile, 1 - expectile) * u.square()).mean()
    return {"loss": loss, "v": v.detach().mean(), "advantage": u.detach().mean()}


def critic_loss(critic: Ensemble, value: nn.Module, batch: Batch) -> Terms:
    """Return the squared errors of both Q against `r + gamma V(s')` (section 4.2)."""
    with torch.no_grad():
        target = batch.reward + batch.discount * value(batch.next_condition).squeeze(-1)
    q = critic(torch.cat([batch.condition, batch.action], 1))
    return {"loss": (q - target).square().mean(1).sum(), "q": q.detach().mean()}


def actor_loss(
    actor: GaussianActor, value: nn.Module, target_critic: Ensemble, batch: Batch, temperature: float
) -> Terms:
    """Return `-exp(beta (min Q'(s, a) - V(s))) log pi(a | s)` (section 4.3)."""
    with torch.no_grad():
        q = target_critic(torch.cat([batch.condition, batch.action], 1)).amin(0)
        advantage = q - value(batch.condition).squeeze(-1)
        weight = (temperature * advantage).exp().clamp(max=LARGEST_WEIGHT)
    log_prob = actor.log_prob(batch.condition, batch.action.unsqueeze(1))
    return {"loss": -(weight * log_prob).mean(), "weight": weight.mean(), "log_prob": log_prob.detach().mean()}


def train(run: Run) -> None:
    """Train V, the actor and Q in turns, as the authors' code does, and save the policy."""
    config: IQL = run.config.iql
    sequence, optimization = run.sequence, config.optimization
    samples = TransitionSamples(sequence, run.dataset, config.n_step, config.gamma)
    run.seed_weights("iql")
    actor = GaussianActor(config.network, sequence.shape, sequence.condition_dim)
    value = mlp(sequence.condition_dim, config.critic_layers, 1, config.critic_layer_norm)
    q = QFunction.build(QPart(config.critic_layers, config.critic_layer_norm, 2, samples.unit, config.gamma), sequence)
    critic, target, average = q.ensemble, averaged_copy(q.ensemble), averaged_copy(actor)
    stage = run.stage_of(
        "iql",
        [
            Update("value", value, lambda batch: value_loss(value, target, batch, config.expectile), optimization),
            Update(
                "actor", actor, lambda batch: actor_loss(actor, value, target, batch, config.temperature), optimization
            ),
            Update("critic", critic, lambda batch: critic_loss(critic, value, batch), optimization),
        ],
        [
            Follower("target", critic, target, 1 - config.tau),
            Follower("average", actor, average, optimization.ema, grows=True),
        ],
        lambda generator: samples.draw(optimization.batch_size, generator),
        samples.gather,
        exploded=None,
    )
    policy = partial(run.policy, average, config.network, Sampling("direct", "mean"), q)
    train_policy(run, "iql", stage, average, policy)


METHOD = Method(
    name="iql",
    summary="values of the best actions in the data; the policy clones the better ones",
    source="Offline Reinforcement Learning with Implicit Q-Learning (Kostrikov et al., 2021)",
    presets={"cpu": IQLConfig()},
    train=train,
    variants=lambda config: best_and_last("IQL", "iql"),
    main_settings=(
        "iql.expectile",
        "iql.temperature",
        "iql.gamma",
        "iql.network.layers",
        *main_optimization("iql"),
    ),
    networks=lambda config: (config.iql.network,),
    termination_penalty=lambda config: 0.0,
    needs=frozenset({"rewards"}),
    meanings=meanings.IQL,
)
