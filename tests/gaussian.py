"""Data N(mu, s0^2 I), for which everything about diffusion has a closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MU, S0 = 0.2, 0.5


def denoiser(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """D(x, t) = (s0^2 x + t^2 mu) / (s0^2 + t^2)."""
    t = t.reshape(-1, 1, 1)
    return (S0**2 * x + t**2 * MU) / (S0**2 + t**2)


def flow(x: Tensor, t: float, s: float) -> Tensor:
    """The PF-ODE from time t to s."""
    return MU + (x - MU) * math.sqrt((S0**2 + s**2) / (S0**2 + t**2))


def epsilon(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """E[z | x_t] of the variance-preserving x_t = (x0 + t z) / sqrt(1 + t^2)."""
    t = t.reshape(-1, 1, 1)
    return t * ((1 + t**2).sqrt() * x - MU) / (S0**2 + t**2)


def clean(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """E[x0 | x_t] of the same."""
    return denoiser((1 + t.reshape(-1, 1, 1) ** 2).sqrt() * x, t, condition)


def student(x: Tensor, t: Tensor, condition: Tensor, s: Tensor) -> Tensor:
    """The g whose jump G is the flow: (x_s - (s/t) x) / (1 - s/t)."""
    t, s = t.reshape(-1, 1, 1), s.reshape(-1, 1, 1)
    exact = MU + (x - MU) * ((S0**2 + s**2) / (S0**2 + t**2)).sqrt()
    return (exact - s / t * x) / (1 - s / t)


def affine(dims: int) -> tuple[Tensor, Tensor]:
    """Inputs `x [dims + 1, 1, 1]`, `noise [dims, dims + 1, 1, 1]` that read off a sampler that is affine in x and its noise.

    Row 0 has neither: what comes out is the offset. Row 1 has x = 1, row i + 1 has the i-th noise 1.
    """
    x = torch.zeros(dims + 1, dtype=torch.float64)
    x[1] = 1
    noise = torch.zeros(dims - 1, dims + 1, dtype=torch.float64)
    noise[torch.arange(dims - 1), torch.arange(2, dims + 1)] = 1
    return x[:, None, None], noise[:, :, None, None]


def moments(out: Tensor, mean: float, variance: float) -> tuple[float, float]:
    """Mean and variance that an affine sampler makes of x with these, from its outputs for `affine` inputs."""
    offset, slopes = out[0, 0, 0], out[1:, 0, 0] - out[0, 0, 0]
    total = slopes[0] ** 2 * variance + (slopes[1:] ** 2).sum()
    return float(offset + slopes[0] * mean), float(total)
