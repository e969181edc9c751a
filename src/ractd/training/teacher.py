"""What the teacher minimises: denoising score matching (eq. 4), and for a reward-aware teacher the reward of its estimates."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ractd.diffusion.ctm import reward_loss
from ractd.diffusion.edm import (
    Denoiser,
    WeightedDistance,
    draw_sigma,
    expand,
    precondition,
    weighted_pseudo_huber,
    weighted_square,
)
from ractd.diffusion.settings import Diffusion
from ractd.methods.ractd_settings import TeacherLoss
from ractd.models import ReturnNetwork
from ractd.settings import Optimization
from ractd.training.reward import WEIGHT_MEMORY, auto_weight, differentiated, gradient_of_data, mean_gradient
from ractd.training.samples import Samples

LOSSES: dict[TeacherLoss, WeightedDistance] = {"pseudo-huber": weighted_pseudo_huber, "square": weighted_square}


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
            self.judge = differentiated(reward.network)
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
        negative_return, excess = reward_loss(self.judge, given, judged, rewarded)
        reward_term, bound_term = negative_return.mean(), excess.mean()
        weight = self.reward_weight(self.reward, estimate, dsm, negative_return)
        return {
            "loss": loss + weight * reward_term + self.reward.bound_weight * bound_term,
            "dsm": loss.detach(),
            "reward": reward_term.detach(),
            "bound": bound_term.detach(),
            "reward_weight": weight.detach(),
            "estimated_return": -reward_term.detach(),
            "out_of_bounds": (judged.detach().abs() > 1).float().mean(),
        }

    @cached_property
    def gradient_of_data(self) -> Tensor:
        """Mean norm of R's gradient at logged sequences."""
        return gradient_of_data(self.judge, self.return_network, self.samples)

    def reward_weight(self, reward: Reward, estimate: Tensor, dsm: Tensor, negative_return: Tensor) -> Tensor:
        """Return the weight of the reward: as configured, or what holds the reward gradient at `share` of the data gradient.

        Both are norms of gradients at the denoised estimate, averaged over batch and time, see `auto_weight`.
        """
        if reward.weight != "auto":
            return torch.as_tensor(reward.weight, device=estimate.device)
        if self.training:
            norms = mean_gradient(dsm, estimate), mean_gradient(negative_return, estimate)
            now = torch.stack([*reward.mean_over_processes(torch.stack(norms)), self.gradient_of_data])
            self.gradients.lerp_(now, 1 - WEIGHT_MEMORY)
        return auto_weight(reward.share, self.gradients)
