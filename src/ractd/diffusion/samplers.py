"""Samplers side by side: each is one function that reads as its algorithm.

`x` is `[B, c, D]`, `sigmas` a falling `[n]` schedule that starts at the noise level of `x`; `condition` is passed through.
Time 0 is `sigma_min`, where every preconditioned network is the identity, so an EDM teacher's schedules end there. At the end,
`SAMPLERS` says which kind of policy each one is for.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from ractd.diffusion.ddpm import sampling_levels, scales
from ractd.diffusion.edm import Denoiser, expand, sigma_schedule, warp
from ractd.diffusion.settings import DDPM, MOST_STEPS, Diffusion

StudentNetwork = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


# The EDM teacher: x = x0 + sigma z, solvers of the PF-ODE dx/dt = (x - D(x, t)) / t.


def euler(denoiser: Denoiser, x: Tensor, sigmas: Tensor, condition: Tensor) -> Tensor:
    """Follow the PF-ODE down `sigmas` by Euler's method: `n - 1` network evaluations, first order."""
    for t, u in pairwise(sigmas):
        slope = (x - denoiser(x, t[None], condition)) / t
        x = x + (u - t) * slope
    return x


def heun_step(
    denoiser: Denoiser, x: Tensor, t: Tensor, u: Tensor, condition: Tensor, at_end: Tensor | None = None
) -> Tensor:
    """Return one second-order step of the PF-ODE `dx/dt = (x - D(x, t)) / t` from times `t` to `u`, both `[B]` (EDM, alg. 1).

    Rows whose `u` is `sigma_min`, which `at_end [B]` marks, take Euler's step: a preconditioned network is the identity there,
    so that its slope is 0 whatever the data.
    """
    dt = expand(u - t, x)
    slope = (x - denoiser(x, t, condition)) / expand(t, x)
    x_euler = x + dt * slope
    slope_u = (x_euler - denoiser(x_euler, u, condition)) / expand(u, x)
    if at_end is not None:
        slope_u = torch.where(expand(at_end, x), slope, slope_u)
    return x + dt * (slope + slope_u) / 2


def heun(denoiser: Denoiser, x: Tensor, sigmas: Tensor, condition: Tensor) -> Tensor:
    """Follow the PF-ODE down `sigmas`, to `sigma_min`, by Heun's method: `2 (n - 1) - 1` network evaluations (paper, 2.2).

    The last step is Euler's, as in EDM (alg. 1), see `heun_step`; of two levels it is the only one.
    """
    for t, u in pairwise(sigmas[:-1]):
        x = heun_step(denoiser, x, t[None], u[None], condition)
    return euler(denoiser, x, sigmas[-2:], condition)


def euler_ancestral(denoiser: Denoiser, x: Tensor, sigmas: Tensor, noise: Tensor, condition: Tensor) -> Tensor:
    """Step below each next level, to `u^2/t`, and add noise up to it: the reverse SDE, `n - 1` evaluations, first order.

    `noise` is `[n - 1, B, c, D]` standard normal (Karras' k-diffusion; DDPM's sampler in EDM's variables).
    """
    for (t, u), z in zip(pairwise(sigmas), noise, strict=True):
        slope = (x - denoiser(x, t[None], condition)) / t
        down, up = u**2 / t, u * (1 - (u / t) ** 2).sqrt()
        x = x + (down - t) * slope + up * z
    return x


def dpmpp_2m(denoiser: Denoiser, x: Tensor, sigmas: Tensor, condition: Tensor) -> Tensor:
    """Follow the PF-ODE by DPM-Solver++(2M): `n - 1` evaluations, second order (Lu et al., 2022, alg. 2; lambda = -ln sigma).

    The linear part of the ODE is solved exactly, the denoised estimate is extrapolated from the last two.
    """
    last: tuple[Tensor, Tensor] | None = None
    for t, u in pairwise(sigmas):
        x0, h = denoiser(x, t[None], condition), (t / u).log()
        estimate = x0
        if last is not None:
            x0_last, h_last = last
            estimate = x0 + (x0 - x0_last) * h / (2 * h_last)
        x = (u / t) * x - (-h).expm1() * estimate
        last = x0, h
    return x


# Variance-preserving models: x = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) z, alpha_bar = 1/(1 + sigma^2).


def ddim(denoiser: Denoiser, x: Tensor, sigmas: Tensor, condition: Tensor) -> Tensor:
    """Go down `sigmas` without new noise: `n - 1` evaluations, first order (Song et al., 2020, eq. 12 with its sigma = 0).

    `denoiser` takes a variance-preserving x; `sigmas` are noise-to-signal ratios and may end at 0.
    """
    signal, noisy = scales(sigmas)
    for i, t in enumerate(sigmas[:-1]):
        x0 = denoiser(x, t[None], condition)
        epsilon = (x - signal[i] * x0) / noisy[i]
        x = signal[i + 1] * x0 + noisy[i + 1] * epsilon
    return x


def ddpm(denoiser: Denoiser, noise: Tensor, sigmas: Tensor, condition: Tensor) -> Tensor:
    """Draw each x from its posterior given the clean estimate: `n - 1` evaluations (Ho et al., 2020, alg. 2 by way of eq. 7).

    `denoiser` takes a variance-preserving x; `sigmas` are noise-to-signal ratios that end at 0, levels may be left out;
    `noise` is `[n - 1, B, c, D]` standard normal, of which the first is x at the top.
    """
    signal, noisy = scales(sigmas)
    mean, std = torch.zeros_like(noise[0]), torch.ones_like(signal[0])
    for i, (t, u, z) in enumerate(zip(sigmas[:-1], sigmas[1:], noise, strict=True)):
        x = mean + std * z
        x0 = denoiser(x, t[None], condition)
        alpha = (signal[i] / signal[i + 1]) ** 2
        beta = (t**2 - u**2) * signal[i] ** 2  # 1 - alpha, without cancellation
        mean = (signal[i + 1] * beta * x0 + alpha.sqrt() * noisy[i + 1] ** 2 * x) / noisy[i] ** 2
        std = beta.sqrt() * noisy[i + 1] / noisy[i]
    return mean


# The student.


def jump(g: StudentNetwork, x: Tensor, t: Tensor, s: Tensor, condition: Tensor) -> Tensor:
    """Return `G(x, t, s) = (s/t) x + (1 - s/t) g(x, t, s)`: from times `t` to times `s <= t`, both `[B]` (paper, section 2.3).

    `G(x, t, t) = x`; `G(x, t, 0) = g(x, t, 0)`, which is `x` itself at `sigma_min`.
    """
    ratio = expand(s / t, x)
    return ratio * x + (1 - ratio) * g(x, t, condition, s)


def to_clean(g: StudentNetwork) -> Denoiser:
    """Return the student's jump to time 0, `(x, t, condition) -> G(x, t, 0)`."""
    return lambda x, t, condition: g(x, t, condition, torch.zeros_like(t))


def jumps(g: StudentNetwork, x: Tensor, sigmas: Tensor, condition: Tensor) -> Tensor:
    """Jump along the PF-ODE from each of `sigmas` to the next, without new noise: `n - 1` evaluations (paper, section 2.3).

    `sigmas` may end at 0; from T to 0 at once this is the one-step sample.
    """
    for t, s in pairwise(sigmas):
        x = jump(g, x, t[None], s[None], condition)
    return x


def few_step(denoiser: Denoiser, noise: Tensor, sigmas: Tensor, condition: Tensor) -> Tensor:
    """Denoise to 0, add noise up to the next time, denoise, ...: one evaluation per entry of `sigmas` (paper, section 5.3).

    `noise` is `[n, B, c, D]` standard normal, one draw per entry; with one entry this is the one-step sample
    `G(x_T, T, 0)`. `denoiser` is the student's jump to time 0.
    """
    x0 = noise.new_zeros(())
    for sigma, z in zip(sigmas, noise, strict=True):
        x0 = denoiser(x0 + sigma * z, sigma[None], condition)
    return x0


# What a policy chooses from.

Kind = Literal["student", "teacher", "DDPM teacher", "direct"]
"""What a network is to its policy; `direct` networks make x of a condition at once, `condition [B, K] -> [B, n, D]`."""
Model = TypeVar("Model")
Schedule = TypeVar("Schedule")
Sample = Callable[[Model, Tensor, Tensor, Schedule, int], Tensor]


class Sampler(NamedTuple, Generic[Model, Schedule]):
    """What a policy needs to know about a way of sampling."""

    sample: Sample[Model, Schedule]
    """`(model, noise [draws, B, c, D], condition, schedule, steps) -> [B, c, D]`."""
    draws: Callable[[int], int]
    """Noise draws for so many steps."""
    evaluations: Callable[[int], int]
    """Network evaluations (NFE) for so many steps."""
    limits: Callable[[Schedule], tuple[int, int]]
    """Fewest and most steps."""


def _down(solver: Callable[[Denoiser, Tensor, Tensor, Tensor], Tensor]) -> Sample[Denoiser, Diffusion]:
    """Run an EDM teacher's solver over the EDM schedule of `steps` bins."""

    def sample(denoiser: Denoiser, noise: Tensor, condition: Tensor, diffusion: Diffusion, steps: int) -> Tensor:
        sigmas = sigma_schedule(diffusion, steps).to(noise)
        return solver(denoiser, sigmas[0] * noise[0], sigmas, condition)

    return sample


def _euler_ancestral(denoiser: Denoiser, noise: Tensor, condition: Tensor, diffusion: Diffusion, steps: int) -> Tensor:
    sigmas = sigma_schedule(diffusion, steps).to(noise)
    return euler_ancestral(denoiser, sigmas[0] * noise[0], sigmas, noise[1:], condition)


def _ddim_of_edm(denoiser: Denoiser, x: Tensor, sigmas: Tensor, condition: Tensor) -> Tensor:
    """Let DDIM see an EDM teacher as the variance-preserving model that it is up to a scale."""
    signal, _ = scales(sigmas)

    def variance_preserving(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return denoiser(x / expand(scales(t)[0], x), t, condition)

    return ddim(variance_preserving, signal[0] * x, sigmas, condition) / signal[-1]


def _ddpm(denoiser: Denoiser, noise: Tensor, condition: Tensor, schedule: DDPM, steps: int) -> Tensor:
    return ddpm(denoiser, noise, sampling_levels(schedule, steps).to(noise), condition)


def _ddim(denoiser: Denoiser, noise: Tensor, condition: Tensor, schedule: DDPM, steps: int) -> Tensor:
    return ddim(denoiser, noise[0], sampling_levels(schedule, steps).to(noise), condition)


REFINEMENT = 0.1
"""Noise that a student's second step starts from, in `sigma_data`: more of it, and what the reward has chosen is lost."""


def refinement_levels(diffusion: Diffusion, steps: int) -> list[float]:
    """Return the noise levels of a student's steps: T, and from `REFINEMENT` evenly down towards `sigma_min` (paper, 5.3)."""
    low = diffusion.sigma_min
    top = max(REFINEMENT * diffusion.sigma_data, low)
    return [diffusion.sigma_max, *(top + (low - top) * i / (steps - 1) for i in range(steps - 1))]


def _consistency(g: StudentNetwork, noise: Tensor, condition: Tensor, diffusion: Diffusion, steps: int) -> Tensor:
    sigmas = noise.new_tensor(refinement_levels(diffusion, steps))
    return few_step(to_clean(g), noise, sigmas, condition)


def _central(g: StudentNetwork, noise: Tensor, condition: Tensor, diffusion: Diffusion, steps: int) -> Tensor:
    """Start at `x_T = 0`, the likeliest noise, and go on like `_consistency`: one step draws nothing."""
    return _consistency(g, torch.cat([noise.new_zeros(1, *noise.shape[1:]), noise]), condition, diffusion, steps)


def _jumps(g: StudentNetwork, noise: Tensor, condition: Tensor, diffusion: Diffusion, steps: int) -> Tensor:
    sigmas = noise.new_tensor([warp(diffusion, i / steps) for i in range(steps)])
    return jumps(g, sigmas[0] * noise[0], torch.cat([sigmas, sigmas.new_zeros(1)]), condition)


def _direct(
    network: Callable[[Tensor], Tensor], noise: Tensor, condition: Tensor, schedule: None, steps: int
) -> Tensor:
    return network(condition)


def _one(steps: int) -> int:
    return 1


def _each(steps: int) -> int:
    return steps


def _between(steps: int) -> int:
    return steps - 1


def _any(diffusion: Diffusion) -> tuple[int, int]:
    return 1, MOST_STEPS


def _bins(diffusion: Diffusion) -> tuple[int, int]:
    return 2, MOST_STEPS


def _levels(schedule: DDPM) -> tuple[int, int]:
    return 1, schedule.timesteps


STUDENT: dict[str, Sampler[StudentNetwork, Diffusion]] = {
    "consistency": Sampler(_consistency, draws=_each, evaluations=_each, limits=_any),
    "central": Sampler(_central, draws=_between, evaluations=_each, limits=_any),
    "jumps": Sampler(_jumps, draws=_one, evaluations=_each, limits=_any),
}
TEACHER: dict[str, Sampler[Denoiser, Diffusion]] = {
    "heun": Sampler(_down(heun), draws=_one, evaluations=lambda steps: 2 * (steps - 1) - 1, limits=_bins),
    "euler": Sampler(_down(euler), draws=_one, evaluations=_between, limits=_bins),
    "euler-ancestral": Sampler(_euler_ancestral, draws=_each, evaluations=_between, limits=_bins),
    "dpmpp-2m": Sampler(_down(dpmpp_2m), draws=_one, evaluations=_between, limits=_bins),
    "ddim": Sampler(_down(_ddim_of_edm), draws=_one, evaluations=_between, limits=_bins),
}
DDPM_TEACHER: dict[str, Sampler[Denoiser, DDPM]] = {
    "ddpm": Sampler(_ddpm, draws=_each, evaluations=_each, limits=_levels),
    "ddim": Sampler(_ddim, draws=_one, evaluations=_each, limits=_levels),
}
DIRECT: dict[str, Sampler[Callable[[Tensor], Tensor], None]] = {
    "mean": Sampler(_direct, draws=lambda steps: 0, evaluations=_one, limits=lambda schedule: (1, 1)),
}
SAMPLERS: dict[Kind, dict[str, Sampler[Any, Any]]] = {
    "student": STUDENT,
    "teacher": TEACHER,
    "DDPM teacher": DDPM_TEACHER,
    "direct": DIRECT,
}
"""The samplers of each kind of policy; the first is its default. A teacher's steps are its bins, `steps - 1` intervals."""
