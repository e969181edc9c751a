"""The DDPM teacher's mathematics: schedule, loss and clean estimate (Ho et al., 2020).

Level t of T is `x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) z`. Levels are told apart by their noise-to-signal ratio
`sigma_t = sqrt((1 - alpha_bar_t) / alpha_bar_t)`, which is EDM's noise level of the same data, so that the networks see what
they are made for. A *noise network* is a callable `epsilon(x, sigma, condition) -> [B, c, D]` that returns an estimate of z.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ractd.diffusion.edm import expand
from ractd.diffusion.settings import DDPM

NoiseNetwork = Callable[[Tensor, Tensor, Tensor], Tensor]

LARGEST_BETA = 0.999
"""A level of nothing but noise has no signal to divide by."""


def cosine_betas(timesteps: int) -> Tensor:
    """Return `beta_1 .. beta_T`, float64, of `alpha_bar_t ~ cos^2((t/T + 0.008)/1.008 pi/2)` (Nichol, Dhariwal, 2021, eq. 17)."""
    t = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    alpha_bar = ((t + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=LARGEST_BETA)


def linear_betas(timesteps: int) -> Tensor:
    """Return `beta_1 .. beta_T`, float64, from 0.1/T to 20/T: at T = 1000 the 0.0001 to 0.02 of Ho et al."""
    betas = torch.linspace(0.1, 20, timesteps, dtype=torch.float64) / timesteps
    return betas.clamp(max=LARGEST_BETA)


BETAS: dict[str, Callable[[int], Tensor]] = {"cosine": cosine_betas, "linear": linear_betas}


def noise_levels(ddpm: DDPM) -> Tensor:
    """Return sigma of every level, float64 `[T + 1]`, rising from 0, which is clean data."""
    alpha_bar = (1 - BETAS[ddpm.betas](ddpm.timesteps)).cumprod(0)
    return torch.cat([torch.zeros(1, dtype=torch.float64), ((1 - alpha_bar) / alpha_bar).sqrt()])


def sampling_levels(ddpm: DDPM, steps: int) -> Tensor:
    """Return sigma at `steps` evenly spaced levels from T down, and 0: float64 `[steps + 1]`."""
    t = (ddpm.timesteps * (1 - torch.arange(steps + 1, dtype=torch.float64) / steps)).round().long()
    return noise_levels(ddpm)[t]


def scales(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(sqrt(alpha_bar), sqrt(1 - alpha_bar))` where the noise-to-signal ratio is `sigma`."""
    total = (1 + sigma**2).sqrt()
    return 1 / total, sigma / total


def noise_loss(epsilon: NoiseNetwork, x0: Tensor, noise: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
    """Return `||z - epsilon(x_t, t)||^2` of each sample, a mean over the sequence, `[B]` (Ho et al., eq. 14)."""
    signal, noisy = (expand(scale, x0) for scale in scales(sigma))
    return (noise - epsilon(signal * x0 + noisy * noise, sigma, condition)).flatten(1).square().mean(1)


class CleanEstimate(nn.Module):
    """`x0 = (x_t - sqrt(1 - alpha_bar) epsilon(x_t, t)) / sqrt(alpha_bar)` of a noise network, within `clip` (Ho et al., eq. 15).

    The division makes a small error of the network at high noise a large one of x0: without clipping it is not made up for.
    """

    def __init__(self, epsilon: NoiseNetwork, ddpm: DDPM) -> None:
        super().__init__()
        self.epsilon, self.clip = epsilon, ddpm.clip

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        signal, noisy = (expand(scale, x) for scale in scales(sigma))
        return ((x - noisy * self.epsilon(x, sigma, condition)) / signal).clamp(-self.clip, self.clip)
