"""What RACTD's teacher minimises where it is a DDPM, which no student is distilled from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ractd.diffusion.ddpm import noise_levels, noise_loss
from ractd.methods.ractd_settings import Teacher
from ractd.sequences import Samples, Sequence
from ractd.settings import Optimization


class NoiseObjective(nn.Module):
    """A DDPM teacher's: the squared error of its noise, all levels alike (Ho et al., 2020, eq. 14)."""

    def __init__(self, network: nn.Module, sequence: Sequence, samples: Samples, config: Teacher) -> None:
        super().__init__()
        self.network, self.sequence, self.samples, self.ddpm = network, sequence, samples, config.ddpm
        self.sigmas: Tensor
        self.register_buffer("sigmas", noise_levels(config.ddpm).float(), persistent=False)

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: samples `[B]`, noise `[B, n, D]` and levels 1 to T, `[B]`."""
        B = optimization.batch_size
        return {
            **self.samples.draw(B, generator),
            "noise": torch.randn(B, *self.sequence.shape, generator=generator),
            "level": torch.randint(1, self.ddpm.timesteps + 1, (B,), generator=generator),
        }

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        condition, x0 = self.samples.gather(draws)
        loss = noise_loss(self.network, x0, draws["noise"], self.sigmas[draws["level"]], condition).mean()
        return {"loss": loss, "noise": loss.detach()}
