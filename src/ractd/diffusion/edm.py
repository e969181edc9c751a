"""The diffusion teacher's mathematics: schedule, preconditioning, distance and loss (EDM; paper, section 2.2).

Shapes: `x` is `[B, c, D]` (a batch of sequences), times `t` are `[B]`, or `[1]` for all rows, in units of sigma, `condition` is
whatever the network takes (`[B, h*O]` here). A *denoiser* is any callable `(x, t, condition) -> [B, c, D]` that returns clean
sequences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from ractd.diffusion.settings import Diffusion

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
Number = TypeVar("Number", Tensor, float)
WeightedDistance = Callable[[Tensor, Tensor, Tensor, Diffusion], Tensor]


def sigma_schedule(diffusion: Diffusion, bins: int | None = None) -> Tensor:
    """Return the discretised noise levels, float32 `[bins]`, falling from `sigma_max` to `sigma_min` (EDM, eq. 5).

    `sigma_i = (sigma_max^(1/rho) + i/(bins-1) * (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho`
    """
    bins = diffusion.bins if bins is None else bins
    ramp = torch.linspace(0, 1, bins, dtype=torch.float64)
    return warp(diffusion, ramp).float()


def warp(diffusion: Diffusion, ramp: Number) -> Number:
    """Map `ramp` in [0, 1] (0 is `sigma_max`, 1 is `sigma_min`) to noise levels by EDM's rho-warp."""
    low, high = diffusion.sigma_min ** (1 / diffusion.rho), diffusion.sigma_max ** (1 / diffusion.rho)
    sigma: Number = (high + ramp * (low - high)) ** diffusion.rho
    return sigma


def expand(t: Tensor, like: Tensor) -> Tensor:
    """Reshape times `[B]` so that they broadcast over `like`, `[B, ...]`."""
    return t.reshape(-1, *([1] * (like.ndim - 1)))


def scalings(t: Tensor, diffusion: Diffusion) -> tuple[Tensor, Tensor, Tensor]:
    """Return `(c_skip, c_out, c_in)` at noise levels `t`, in the boundary form of consistency models (eq. 7 there).

    With `sigma - sigma_min` in place of EDM's `sigma`, `c_skip = 1` and `c_out = 0` at `sigma_min`, so D(x, sigma_min) = x.
    """
    sd, shifted = diffusion.sigma_data, t - diffusion.sigma_min
    c_skip = sd**2 / (shifted**2 + sd**2)
    c_out = shifted * sd / (t**2 + sd**2).sqrt()
    c_in = 1 / (t**2 + sd**2).sqrt()
    return c_skip, c_out, c_in


class Preconditioned(nn.Module):
    """A network F with its scales: `c_skip x + c_out F(c_in x, t, condition)` (EDM, eq. 7).

    Of a teacher's network this is the denoiser D(x, t, condition), of a student's g(x, t, condition, s). Time 0 is `sigma_min` to a
    student's network, the lowest that eq. 5 trains.
    """

    def __init__(self, network: Callable[..., Tensor], diffusion: Diffusion) -> None:
        super().__init__()
        self.network, self.diffusion = network, diffusion

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
        c_skip, c_out, c_in = (expand(c, x) for c in scalings(t, self.diffusion))
        targets = () if s is None else (s.clamp(min=self.diffusion.sigma_min),)
        return c_skip * x + c_out * self.network(c_in * x, t, condition, *targets)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the pseudo-Huber distance of each pair of sequences, `[B]` (paper, section 2.2).

    `sqrt(||a - b||^2 + k^2) - k` with the norm over the whole sequence and `k = 0.00054 sqrt(c D)`.
    """
    k = 0.00054 * math.sqrt(a[0].numel())
    return ((a - b).flatten(1).square().sum(1) + k**2).sqrt() - k


def loss_weight(t: Tensor, diffusion: Diffusion) -> Tensor:
    """Return `1/c_out` in EDM's form, `sqrt(sigma^2 + sd^2) / (sigma sd)`: it keeps a pseudo-Huber loss even over sigma.

    EDM's own `1/c_out^2` belongs to a squared error; on this distance it would drown all but the smallest noise levels.
    """
    return (t**2 + diffusion.sigma_data**2).sqrt() / (t * diffusion.sigma_data)


def weighted_pseudo_huber(x0: Tensor, estimate: Tensor, t: Tensor, diffusion: Diffusion) -> Tensor:
    """Return `w(t) d(x0, estimate)`, `[B]`: the paper's distance. Its minimum is the conditional (geometric) median."""
    return loss_weight(t, diffusion) * distance(x0, estimate)


def weighted_square(x0: Tensor, estimate: Tensor, t: Tensor, diffusion: Diffusion) -> Tensor:
    """Return EDM's `||x0 - estimate||^2 / c_out^2`, a mean over the sequence, `[B]`. Its minimum is the conditional mean.

    The PF-ODE keeps the shares of modes only with conditional means; medians move mass to the larger mode.
    """
    return loss_weight(t, diffusion).square() * (x0 - estimate).flatten(1).square().mean(1)


def draw_sigma(normal: Tensor, diffusion: Diffusion) -> Tensor:
    """Map standard normal draws `[B]` to noise levels with ln sigma ~ N(p_mean, p_std^2), kept in the schedule's range."""
    sigma = (diffusion.p_mean + diffusion.p_std * normal).exp()
    return sigma.clamp(diffusion.sigma_min, diffusion.sigma_max)


def dsm_loss(
    denoiser: Denoiser,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    condition: Tensor,
    diffusion: Diffusion,
    weighted_distance: WeightedDistance = weighted_pseudo_huber,
) -> Tensor:
    """Return the denoising loss of each sample, `[B]` (eq. 4): `w(t) d(x0, D(x0 + t noise, t))`."""
    x_t = x0 + expand(t, x0) * noise
    return weighted_distance(x0, denoiser(x_t, t, condition), t, diffusion)
