"""What a DDPM teacher minimises: the squared error of its noise (Ho et al., 2020, eq. 14)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ractd.diffusion.ddpm import clean_estimate, noise_levels, noise_loss
from ractd.diffusion.edm import Denoiser
from ractd.diffusion.settings import DDPM
from ractd.settings import Optimization
from ractd.training.samples import Samples


def noise_denoiser(network: nn.Module, ddpm: DDPM) -> Denoiser:
    """Return the clean estimate `(x_t, sigma_t, condition) -> x0` of a DDPM teacher's network, for variance-preserving x."""
    return clean_estimate(network, ddpm.clip)


class NoiseObjective(nn.Module):
    """Noise prediction on sequences, all levels alike."""

    def __init__(self, network: nn.Module, samples: Samples, ddpm: DDPM) -> None:
        super().__init__()
        self.network, self.samples, self.ddpm = network, samples, ddpm
        self.sigmas: Tensor
        self.register_buffer("sigmas", noise_levels(ddpm).float(), persistent=False)

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: samples `[B]`, noise `[B, c, D]` and levels 1 to T, `[B]`."""
        B = optimization.batch_size
        return {
            **self.samples.draw(B, generator),
            "noise": torch.randn(B, *self.samples.shape, generator=generator),
            "level": torch.randint(1, self.ddpm.timesteps + 1, (B,), generator=generator),
        }

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        condition, x0 = self.samples.gather(draws)
        sigma = self.sigmas[draws["level"]]
        loss = noise_loss(self.network, x0, draws["noise"], sigma, condition).mean()
        return {"loss": loss, "noise": loss.detach()}
