"""How much the reward counts: the weight that keeps its gradient in proportion to the data's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from ractd.critics import Critic
from ractd.critics.critic import RowValue
from ractd.sequences import Samples, Sequence

WEIGHT_MEMORY = 0.99
"""Decay of the averages that the automatic weight is computed from."""
LOGGED = 1024
"""Logged sequences that tell how steep a critic is in the data."""


def mean_gradient(values: Tensor, at: Tensor) -> Tensor:
    """Return the mean norm of the gradient of `values [B]` by the rows of `at`, leaving the graph as it is."""
    (gradient,) = torch.autograd.grad(values.sum(), at, retain_graph=True)
    mean: Tensor = gradient.flatten(1).norm(dim=1).mean()
    return mean


def gradient_at_logged(critic: Critic, row: RowValue, sequence: Sequence, samples: Samples) -> Tensor:
    """Return the mean norm of a critic's gradient at logged sequences, of a sample of them: neither critic nor data change.

    `row` is how the reward has single steps valued, see `Critic.value`.
    """
    device = next(critic.parameters()).device
    draws = samples.draw(LOGGED, torch.Generator().manual_seed(0))
    condition, x0 = samples.gather({name: value.to(device) for name, value in draws.items()})
    logged = x0.detach().requires_grad_()
    return mean_gradient(critic.value(condition, sequence.decode(logged, condition), row), logged)


class RewardWeight(nn.Module):
    """The weight of a reward: as configured, or what holds its gradient at `share` of the data's.

    Both gradients are mean norms over the batch and over time. The reward's counts for at least what it is at logged sequences:
    where a sample has left the data it can vanish, and a weight that grew in answer would drive the sample further out.
    """

    def __init__(
        self,
        weight: float | Literal["auto"],
        share: float,
        at_logged: Callable[[], Tensor],
        mean_over_processes: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        """Make a weight; `at_logged` returns the reward's gradient at logged sequences, see `gradient_at_logged`."""
        super().__init__()
        self.weight, self.share = weight, share
        self.at_logged, self.mean_over_processes = cache(at_logged), mean_over_processes
        self.gradients: Tensor
        self.register_buffer("gradients", torch.zeros(3))  # running means: data, reward, reward at logged sequences

    def forward(self, norms: Callable[[], tuple[Tensor, Tensor]]) -> Tensor:
        """Return the weight; `norms` computes the mean norms of the data's and of the reward's gradient."""
        if self.weight != "auto":
            return torch.as_tensor(self.weight, device=self.gradients.device)
        if self.training:
            now = torch.stack([*self.mean_over_processes(torch.stack(norms())), self.at_logged()])
            self.gradients.lerp_(now, 1 - WEIGHT_MEMORY)
        data, at_samples, at_logged = self.gradients
        weight: Tensor = self.share * data / torch.maximum(at_samples, at_logged).clamp(min=1e-12)
        return weight
