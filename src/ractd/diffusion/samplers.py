"""Samplers side by side: each is one function that reads as its algorithm.

`x` is `[B, c, D]`, `sigmas` a falling `[n]` schedule that starts at the noise level of `x`; `condition` is passed through.
Time 0 is `sigma_min`, where every preconditioned network is the identity, so the schedules end there.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ractd.config import Diffusion
from ractd.diffusion.edm import Denoiser, expand, sigma_schedule, warp


def heun_step(denoiser: Denoiser, x: Tensor, t: Tensor, u: Tensor, condition: Tensor) -> Tensor:
    """Return one second-order step of the PF-ODE `dx/dt = (x - D(x, t)) / t` from times `t` to `u`, both `[B]` (EDM, alg. 1)."""
    dt = expand(u - t, x)
    slope = (x - denoiser(x, t, condition)) / expand(t, x)
    x_euler = x + dt * slope
    slope_u = (x_euler - denoiser(x_euler, u, condition)) / expand(u, x)
    return x + dt * (slope + slope_u) / 2


def heun(denoiser: Denoiser, x: Tensor, sigmas: Tensor, condition: Tensor) -> Tensor:
    """Follow the PF-ODE down `sigmas` by Heun's method: `2 (n - 1)` network evaluations (paper, section 2.2)."""
    for t, u in pairwise(sigmas):
        x = heun_step(denoiser, x, t.expand(x.shape[0]), u.expand(x.shape[0]), condition)
    return x


def few_step(denoiser: Denoiser, noise: Tensor, sigmas: Tensor, condition: Tensor) -> Tensor:
    """Denoise to 0, add noise up to the next time, denoise, ...: one evaluation per entry of `sigmas` (paper, section 5.3).

    `noise` is `[n, B, c, D]` standard normal, one draw per entry; with one entry this is the one-step sample
    `G(x_T, T, 0)`. `denoiser` is the student's jump to time 0.
    """
    x0 = noise.new_zeros(())
    for sigma, z in zip(sigmas, noise, strict=True):
        x0 = denoiser(x0 + sigma * z, sigma.expand(z.shape[0]), condition)
    return x0


class Sampler(NamedTuple):
    """What a policy needs to know about a way of sampling."""

    sample: Callable[[Denoiser, Tensor, Tensor, Diffusion, int], Tensor]
    """`(denoiser, noise [draws, B, c, D], condition, diffusion, steps) -> [B, c, D]`."""
    draws: Callable[[int], int]
    """Noise draws for so many steps."""
    evaluations: Callable[[int], int]
    """Network evaluations (NFE) for so many steps."""


def _heun_policy(denoiser: Denoiser, noise: Tensor, condition: Tensor, diffusion: Diffusion, steps: int) -> Tensor:
    sigmas = sigma_schedule(diffusion, steps).to(noise)
    return heun(denoiser, sigmas[0] * noise[0], sigmas, condition)


def _consistency_policy(
    denoiser: Denoiser, noise: Tensor, condition: Tensor, diffusion: Diffusion, steps: int
) -> Tensor:
    sigmas = warp(diffusion, torch.arange(steps, dtype=torch.float64) / steps).to(noise)
    return few_step(denoiser, noise, sigmas, condition)


SAMPLERS: dict[str, Sampler] = {
    "consistency": Sampler(_consistency_policy, draws=lambda steps: steps, evaluations=lambda steps: steps),
    "heun": Sampler(_heun_policy, draws=lambda steps: 1, evaluations=lambda steps: 2 * (steps - 1)),
}
