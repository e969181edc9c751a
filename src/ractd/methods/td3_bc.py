"""TD3+BC: TD3 whose actor is also held to the data's actions (Fujimoto and Gu, A Minimalist Approach to Offline RL, 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ractd.networks.ensemble import Ensemble
from ractd.training.loop import Terms
from ractd.training.transitions import Batch


def critic_loss(
    critic: Ensemble, target_critic: Ensemble, target_actor: nn.Module, batch: Batch, noise: float, clip: float
) -> Terms:
    """Return the squared errors of both Q against `r + gamma min Q'(s', pi'(s') + noise)` (as in TD3)."""
    with torch.no_grad():
        smoothing = (noise * batch.noise).clamp(-clip, clip)
        action = (target_actor(batch.next_condition).flatten(1) + smoothing).clamp(-1, 1)
        after = target_critic(torch.cat([batch.next_condition, action], 1)).amin(0)
        target = batch.reward + batch.discount * after
    q = critic(torch.cat([batch.condition, batch.action], 1))
    return {"loss": (q - target).square().mean(1).sum(), "q": q.detach().mean(), "target": target.mean()}


def actor_loss(
    actor: nn.Module,
    critic: Ensemble,
    batch: Batch,
    alpha: float,
    mean_over_processes: Callable[[Tensor], Tensor] = lambda x: x,
) -> Terms:
    """Return `-lambda Q1(s, pi(s)) + (pi(s) - a)^2` with `lambda = alpha / mean |Q1|` (section 5).

    The mean is over the actor's actions, as in the authors' code.
    """
    action = actor(batch.condition).flatten(1)
    q = critic(torch.cat([batch.condition, action], 1))[0]
    weight = alpha / mean_over_processes(q.detach().abs().mean())
    bc = (action - batch.action).square().mean()
    return {"loss": bc - weight * q.mean(), "bc": bc.detach(), "q": q.detach().mean(), "lambda": weight}
