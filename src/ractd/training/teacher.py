"""What the teacher minimises: denoising score matching (eq. 4), and for a reward-aware teacher the reward of its estimates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ractd.config import Diffusion, Optimization, TeacherLoss
from ractd.diffusion.ctm import reward_loss, sequence_return
from ractd.diffusion.edm import (
    Denoiser,
    WeightedDistance,
    draw_sigma,
    expand,
    precondition,
    weighted_pseudo_huber,
    weighted_square,
)
from ractd.models import ReturnNetwork
from ractd.training.samples import Samples

LOSSES: dict[TeacherLoss, WeightedDistance] = {"pseudo-huber": weighted_pseudo_huber, "square": weighted_square}
WEIGHT_MEMORY = 0.99
"""Decay of the averages that the automatic reward weight is computed from."""


def denoiser(network: nn.Module, diffusion: Diffusion) -> Denoiser:
    """Return `D(x, t, condition)` of a teacher's network."""
    return lambda x, t, condition: precondition(lambda y: network(y, t, condition), x, t, diffusion)


class Reward(NamedTuple):
    """What makes a teacher reward-aware: R on normalised inputs, and how much it counts."""

    network: ReturnNetwork
    weight: float | Literal["auto"]
    share: float
    """What `auto` holds the reward gradient at, as a share of the data gradient."""
    bound_weight: float
    mean_over_processes: Callable[[Tensor], Tensor] = lambda x: x


class TeacherObjective(nn.Module):
    """Denoising score matching on sequences, with a `reward` on the denoised estimates or without."""

    def __init__(
        self,
        network: nn.Module,
        samples: Samples,
        diffusion: Diffusion,
        loss: TeacherLoss = "pseudo-huber",
        reward: Reward | None = None,
    ) -> None:
        super().__init__()
        self.weighted_distance = LOSSES[loss]
        self.network, self.samples, self.diffusion = network, samples, diffusion
        self.reward = reward
        self.gradients: Tensor
        if reward is not None:
            self.return_network = reward.network.requires_grad_(False)
            self.register_buffer("gradients", torch.zeros(3))  # running means: data, reward, reward at logged sequences

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: samples `[B]`, noise `[B, c, D]` and the normal draws of ln sigma `[B]`."""
        B = optimization.batch_size
        return {
            **self.samples.draw(B, generator),
            "noise": torch.randn(B, *self.samples.shape, generator=generator),
            "sigma": torch.randn(B, generator=generator),
        }

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        condition, x0 = self.samples.gather(draws)
        t = draw_sigma(draws["sigma"], self.diffusion)
        x_t = x0 + expand(t, x0) * draws["noise"]
        estimate = denoiser(self.network, self.diffusion)(x_t, t, condition)
        dsm = self.weighted_distance(x0, estimate, t, self.diffusion)
        loss = dsm.mean()
        if self.reward is None:
            return {"loss": loss, "dsm": loss.detach()}

        given, rewarded = self.return_network.given(condition), self.samples.rewarded
        judged = self.samples.decode(estimate, condition)
        negative_return, excess = reward_loss(self.return_network, given, judged, rewarded)
        reward_term, bound_term = negative_return.mean(), excess.mean()
        weight = self.reward_weight(self.reward, condition, x0, estimate, dsm, negative_return)
        return {
            "loss": loss + weight * reward_term + self.reward.bound_weight * bound_term,
            "dsm": loss.detach(),
            "reward": reward_term.detach(),
            "bound": bound_term.detach(),
            "reward_weight": weight.detach(),
            "estimated_return": -reward_term.detach(),
            "out_of_bounds": (judged.detach().abs() > 1).float().mean(),
        }

    def reward_weight(
        self, reward: Reward, condition: Tensor, x0: Tensor, estimate: Tensor, dsm: Tensor, negative_return: Tensor
    ) -> Tensor:
        """Return the weight of the reward: as configured, or `share` times the data gradient over the reward gradient.

        Both are norms of gradients at the denoised estimate, averaged over batch and time; the reward gradient counts for
        at least what it is at the logged sequences, as for the student.
        """
        if reward.weight != "auto":
            return torch.as_tensor(reward.weight, device=estimate.device)
        logged = x0.detach().requires_grad_()
        given, judged = self.return_network.given(condition), self.samples.decode(logged, condition)
        norms = (
            mean_gradient(dsm, estimate),
            mean_gradient(negative_return, estimate),
            mean_gradient(sequence_return(self.return_network, given, judged, self.samples.rewarded), logged),
        )
        if self.training:
            self.gradients.lerp_(reward.mean_over_processes(torch.stack(norms)), 1 - WEIGHT_MEMORY)
        data, at_estimate, at_logged = self.gradients
        weight: Tensor = reward.share * data / torch.maximum(at_estimate, at_logged).clamp(min=1e-12)
        return weight


def mean_gradient(values: Tensor, at: Tensor) -> Tensor:
    """Return the mean norm of the gradient of `values [B]` by the rows of `at`, leaving the graph as it is."""
    (gradient,) = torch.autograd.grad(values.sum(), at, retain_graph=True)
    mean: Tensor = gradient.flatten(1).norm(dim=1).mean()
    return mean
