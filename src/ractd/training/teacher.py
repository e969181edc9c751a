"""What the teacher minimises (eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ractd.config import Diffusion, Optimization, TeacherLoss
from ractd.data.windows import Windows
from ractd.diffusion.edm import (
    Denoiser,
    WeightedDistance,
    draw_sigma,
    dsm_loss,
    precondition,
    weighted_pseudo_huber,
    weighted_square,
)
from ractd.models.normalizer import Normalizer

LOSSES: dict[TeacherLoss, WeightedDistance] = {"pseudo-huber": weighted_pseudo_huber, "square": weighted_square}


def denoiser(network: nn.Module, diffusion: Diffusion) -> Denoiser:
    """Return `D(x, t, condition)` of a teacher's network."""
    return lambda x, t, condition: precondition(lambda y: network(y, t, condition), x, t, diffusion)


class TeacherObjective(nn.Module):
    """Denoising score matching on action windows."""

    def __init__(
        self,
        network: nn.Module,
        normalizer: Normalizer,
        windows: Windows,
        diffusion: Diffusion,
        loss: TeacherLoss = "pseudo-huber",
    ) -> None:
        super().__init__()
        self.weighted_distance = LOSSES[loss]
        self.network, self.normalizer, self.windows, self.diffusion = network, normalizer, windows, diffusion

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: transitions `[B]`, noise `[B, c, A]` and the normal draws of ln sigma `[B]`."""
        B = optimization.batch_size
        return {
            "index": self.windows.draw(B, generator),
            "noise": torch.randn(B, self.windows.horizon, self.windows.actions.shape[1], generator=generator),
            "sigma": torch.randn(B, generator=generator),
        }

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        observations, actions = self.windows.gather(draws["index"])
        condition = self.normalizer.observation(observations).flatten(1)
        t = draw_sigma(draws["sigma"], self.diffusion)
        D = denoiser(self.network, self.diffusion)
        loss = dsm_loss(
            D, self.normalizer.action(actions), draws["noise"], t, condition, self.diffusion, self.weighted_distance
        ).mean()
        return {"loss": loss, "dsm": loss.detach()}
