"""Behaviour cloning: a network that does what the data did, of all episodes or of the best."""

from __future__ import annotations

from torch import Tensor

from ractd.networks.actor import DeterministicActor, GaussianActor
from ractd.training.loop import Terms


def squared_error(actor: DeterministicActor, condition: Tensor, x: Tensor) -> Terms:
    """Return the mean squared error of the actor's sequences against the data's, x `[B, n, D]`."""
    loss = (actor(condition) - x).square().mean()
    return {"loss": loss, "mse": loss.detach()}


def negative_log_likelihood(actor: GaussianActor, condition: Tensor, x: Tensor) -> Terms:
    """Return `-log pi(x | condition)` of the data's sequences, x `[B, n, D]`."""
    loss = -actor.log_prob(condition, x).mean()
    return {"loss": loss, "std": actor.log_std.detach().exp().mean()}


LOSSES = {"deterministic": squared_error, "gaussian": negative_log_likelihood}
"""The loss of each head."""
