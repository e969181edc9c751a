"""What the student minimises: CTM + data + reward (eq. 5 to 9), and what keeps the reward in bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from ractd.diffusion import ctm
from ractd.diffusion.edm import Denoiser, distance, loss_weight, precondition, sigma_schedule
from ractd.diffusion.samplers import StudentNetwork
from ractd.diffusion.settings import Diffusion
from ractd.methods.ractd_settings import Anchor, Student
from ractd.models import ReturnNetwork
from ractd.settings import Optimization
from ractd.training.reward import (
    WEIGHT_MEMORY,
    auto_weight,
    differentiated,
    gradient_of_data,
    mean_gradient,
    only_judged,
)
from ractd.training.samples import Samples
from ractd.training.teacher import denoiser

SHARE_AT_T = 0.6
"""Of the data term's high-noise half, the share exactly at T."""


def _no_target(teacher: Denoiser, sample: Tensor, noise: Tensor, condition: Tensor, diffusion: Diffusion) -> Tensor:
    return sample.new_zeros(())


ANCHORS: dict[Anchor, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "dsm": (ctm.dsm_to_zero, _no_target),
    "ctm": (ctm.dsm_in_place, _no_target),
    "ode": (ctm.dsm_in_place, ctm.ode_loss),
}
"""What holds the student: its form of eq. 7 on noised data, and what its one-step sample is compared with."""


def student_network(network: nn.Module, diffusion: Diffusion) -> StudentNetwork:
    """Return `g(x, t, condition, s)` of a student's network; time 0 is `sigma_min` to it, the lowest that eq. 5 trains."""

    def g(x: Tensor, t: Tensor, condition: Tensor, s: Tensor) -> Tensor:
        s = s.clamp(min=diffusion.sigma_min)
        return precondition(lambda y: network(y, t, condition, s), x, t, diffusion)

    return g


class StudentObjective(nn.Module):
    """Reward-aware consistency trajectory distillation; with reward weight 0, plain consistency distillation."""

    def __init__(
        self,
        network: nn.Module,
        average: nn.Module,
        teacher: nn.Module,
        return_network: ReturnNetwork,
        samples: Samples,
        diffusion: Diffusion,
        config: Student,
        return_scale: float,
        mean_over_processes: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        super().__init__()
        self.network, self.average, self.teacher, self.return_network = network, average, teacher, return_network
        self.samples, self.diffusion, self.config = samples, diffusion, config
        self.return_scale = 1.0 if config.normalize_returns else return_scale
        self.mean_over_processes = mean_over_processes
        self.judge = (differentiated if config.reward_weight != 0 else only_judged)(
            return_network.cautious(config.pessimism)
        )
        self.sigmas: Tensor
        self.gradients: Tensor
        self.register_buffer("sigmas", sigma_schedule(diffusion), persistent=False)
        self.register_buffer("gradients", torch.zeros(3))  # running means: data, reward, reward at logged sequences
        for frozen in (average, teacher, return_network):
            frozen.requires_grad_(False)

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: samples, noises and times of the three losses."""
        B = optimization.batch_size
        return {
            **self.samples.draw(B, generator),
            "noise": torch.randn(B, 3, *self.samples.shape, generator=generator),
            "normal": torch.randn(B, generator=generator),
            "uniform": torch.rand(B, 4, generator=generator),
        }

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        config, diffusion = self.config, self.diffusion
        condition, x0 = self.samples.gather(draws)
        noise_ctm, noise_dsm, noise_T = draws["noise"].unbind(1)
        g, g_target = student_network(self.network, diffusion), student_network(self.average, diffusion)
        D = denoiser(self.teacher, diffusion)

        some = slice(0, math.ceil(config.ctm_share * len(x0)))
        times = ctm.draw_times(draws["uniform"][some, :3], config.ode_steps, diffusion)
        ctm_loss = ctm.ctm_loss(
            g, g_target, D, x0[some], noise_ctm[some], times, condition[some], self.sigmas, config.ode_steps
        ).mean()

        sample = ctm.one_step(g, noise_T, condition, diffusion)
        t = ctm.student_sigma(draws["normal"], draws["uniform"][:, 3], SHARE_AT_T, diffusion)
        dsm, target_loss = ANCHORS[config.anchor]
        dsm_loss = dsm(g, x0, noise_dsm, t, condition, diffusion).mean()
        dsm_loss = dsm_loss + target_loss(D, sample, noise_T, condition, diffusion)

        judged = self.samples.decode(sample, condition)
        loss = config.ctm_weight * ctm_loss + config.dsm_weight * dsm_loss
        terms = {"ctm": ctm_loss.detach(), "dsm": dsm_loss.detach()}
        if self.return_network.exists:
            given = self.return_network.given(condition)
            negative_return, excess = ctm.reward_loss(self.judge, given, judged, self.samples.rewarded)
            reward_loss = self.return_scale * negative_return.mean()
            weight = self.reward_weight(x0, sample, negative_return)
            loss = loss + weight * reward_loss
            terms |= {
                "reward": reward_loss.detach(),
                "reward_weight": weight.detach(),
                "data_gradient": self.gradients[0].clone(),
                "reward_gradient": self.gradients[1].clone(),
                "reward_gradient_of_data": self.gradients[2].clone(),
                "estimated_return": -negative_return.detach().mean(),
            }
        else:
            excess = ctm.bound_excess(judged, self.samples.rewarded)
        bound_loss = excess.mean()
        return {
            "loss": loss + config.bound_weight * bound_loss,
            **terms,
            "bound": bound_loss.detach(),
            "out_of_bounds": (judged.detach().abs() > 1).float().mean(),
        }

    @cached_property
    def gradient_of_data(self) -> Tensor:
        """Mean norm of R's gradient at logged sequences."""
        return self.return_scale * gradient_of_data(self.judge, self.return_network, self.samples)

    def reward_weight(self, x0: Tensor, sample: Tensor, negative_return: Tensor) -> Tensor:
        """Return sigma of eq. 9: as configured, or what holds the reward gradient at `reward_share` of the data gradient.

        Both are norms of gradients at the one-step sample, averaged over the batch and over time, see `auto_weight`.
        """
        if self.config.reward_weight != "auto":
            return torch.as_tensor(self.config.reward_weight, device=sample.device)
        T = sample.new_tensor([self.diffusion.sigma_max])
        at_sample = sample.detach().requires_grad_()
        data = self.config.dsm_weight * loss_weight(T, self.diffusion) * distance(x0, at_sample)
        norms = mean_gradient(data, at_sample), self.return_scale * mean_gradient(negative_return, sample)
        if self.training:
            now = torch.stack([*self.mean_over_processes(torch.stack(norms)), self.gradient_of_data])
            self.gradients.lerp_(now, 1 - WEIGHT_MEMORY)
        return auto_weight(self.config.reward_share, self.gradients)
