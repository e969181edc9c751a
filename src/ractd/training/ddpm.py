"""What a DDPM teacher minimises: the squared error of its noise (Ho et al., 2020, eq. 14)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ractd.config import DDPM, Optimization
from ractd.data.windows import Windows
from ractd.diffusion.ddpm import clean_estimate, noise_levels, noise_loss
from ractd.diffusion.edm import Denoiser
from ractd.models.normalizer import Normalizer


def noise_denoiser(network: nn.Module, ddpm: DDPM) -> Denoiser:
    """Return the clean estimate `(x_t, sigma_t, condition) -> x0` of a DDPM teacher's network, for variance-preserving x."""
    return clean_estimate(network, ddpm.clip)


class NoiseObjective(nn.Module):
    """Noise prediction on action windows, all levels alike."""

    def __init__(self, network: nn.Module, normalizer: Normalizer, windows: Windows, ddpm: DDPM) -> None:
        super().__init__()
        self.network, self.normalizer, self.windows, self.ddpm = network, normalizer, windows, ddpm
        self.sigmas: Tensor
        self.register_buffer("sigmas", noise_levels(ddpm).float(), persistent=False)

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: transitions `[B]`, noise `[B, c, A]` and levels 1 to T, `[B]`."""
        B = optimization.batch_size
        return {
            "index": self.windows.draw(B, generator),
            "noise": torch.randn(B, self.windows.horizon, self.windows.actions.shape[1], generator=generator),
            "level": torch.randint(1, self.ddpm.timesteps + 1, (B,), generator=generator),
        }

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        observations, actions = self.windows.gather(draws["index"])
        condition = self.normalizer.observation(observations).flatten(1)
        x0, sigma = self.normalizer.action(actions), self.sigmas[draws["level"]]
        loss = noise_loss(self.network, x0, draws["noise"], sigma, condition).mean()
        return {"loss": loss, "noise": loss.detach()}
