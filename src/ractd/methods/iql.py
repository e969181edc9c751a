"""Implicit Q-learning: values of the best actions that the data has, without asking about others (Kostrikov et al., Offline
Reinforcement Learning with Implicit Q-Learning, 2021)."""

from __future__ import annotations

import torch
from torch import nn

from ractd.networks.actor import GaussianActor
from ractd.networks.ensemble import Ensemble
from ractd.training.loop import Terms
from ractd.training.transitions import Batch

LARGEST_WEIGHT = 100.0
"""Of an action in the extraction of the policy, as in the authors' code."""


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
