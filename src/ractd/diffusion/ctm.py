"""The student's mathematics: jumps along the PF-ODE, their losses and the reward (paper, sections 2.3 and 3.3).

A *student network* is a callable `g(x, t, condition, s) -> [B, c, D]` that returns clean sequences (preconditioned as the
teacher is). Everything here is a pure function of networks, samples and times; what to draw is decided by the caller.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ractd.diffusion.edm import Denoiser, distance, draw_sigma, expand, loss_weight, sigma_schedule, warp
from ractd.diffusion.samplers import StudentNetwork, heun, heun_step, jump, to_clean
from ractd.diffusion.settings import Diffusion

ODE_ANCHOR_BINS = 12
"""Bins of the teacher's few-step sample that anchors the one-step sample."""
UPPER_SHARE, UPPER_RANGE = 2 / 7, 0.7
"""Of the noise levels below T of the student's data term, two in seven come from the first 70% of the warped schedule."""


def draw_times(uniform: Tensor, ode_steps: int, diffusion: Diffusion) -> tuple[Tensor, Tensor, Tensor]:
    """Map uniform draws `[B, 3]` to schedule indices of t > u >= k, each `[B]` (eq. 5 and 6; index 0 is `sigma_max`).

    t is any bin but the last, u one to `ode_steps` bins below it, k uniform from u down to `sigma_min`.
    """
    last = diffusion.bins - 1
    t = (uniform[:, 0] * last).long()
    u = (t + 1 + (uniform[:, 1] * ode_steps).long()).clamp(max=last)
    k = u + (uniform[:, 2] * (last - u + 1)).long()
    return t, u, k


def solve(
    teacher: Denoiser, x: Tensor, t: Tensor, u: Tensor, condition: Tensor, sigmas: Tensor, ode_steps: int
) -> Tensor:
    """Follow the teacher's PF-ODE from schedule indices `t` to `u`, each `[B]`, one Heun step per bin (eq. 6, `Solver`).

    `sigmas` end at `sigma_min`; the step of each row that goes there is Euler's, as in `heun`.
    """
    last = len(sigmas) - 1
    for _ in range(ode_steps):
        below = torch.minimum(t + 1, u)
        x = heun_step(teacher, x, sigmas[t], sigmas[below], condition, at_end=below == last)
        t = below
    return x


def ctm_loss(
    g: StudentNetwork,
    g_target: StudentNetwork,
    teacher: Denoiser,
    x0: Tensor,
    noise: Tensor,
    times: tuple[Tensor, Tensor, Tensor],
    condition: Tensor,
    sigmas: Tensor,
    ode_steps: int,
) -> Tensor:
    """Return the consistency trajectory loss of each sample, `[B]` (eq. 5 and 6).

    Both paths from x_t to time k are mapped to time 0 by the stop-gradient student `g_target`; gradient flows only
    through `G(x_t, t, k)`.
    """
    t, u, k = times
    sigma_t, sigma_u, sigma_k = sigmas[t], sigmas[u], sigmas[k]
    x_t = x0 + expand(sigma_t, x0) * noise
    zero = torch.zeros_like(sigma_k)
    with torch.no_grad():
        x_u = solve(teacher, x_t, t, u, condition, sigmas, ode_steps)
        x_k_target = jump(g_target, x_u, sigma_u, sigma_k, condition)
        clean_target = jump(g_target, x_k_target, sigma_k, zero, condition)
    x_k = jump(g, x_t, sigma_t, sigma_k, condition)
    return distance(jump(g_target, x_k, sigma_k, zero, condition), clean_target)


def student_sigma(normal: Tensor, uniform: Tensor, diffusion: Diffusion) -> Tensor:
    """Map draws `[B]` to noise levels of the student's data term: the teacher's ln-normal, and high noise in `UPPER_SHARE`.

    High noise is uniform in the warped index over its first part: a teacher hardly sees it, a student starts there.
    """
    upper = warp(diffusion, UPPER_RANGE * uniform / UPPER_SHARE)
    return torch.where(uniform < UPPER_SHARE, upper, draw_sigma(normal, diffusion))


def ode_loss(teacher: Denoiser, sample: Tensor, noise: Tensor, condition: Tensor, diffusion: Diffusion) -> Tensor:
    """Return the mean distance of one-step samples to the teacher's few-step ODE samples from the same noise.

    A quarter of the batch is compared: the teacher's sample costs `2 (ODE_ANCHOR_BINS - 1) - 1` evaluations.
    """
    rows = slice(0, max(len(sample) // 4, 1))
    sigmas = sigma_schedule(diffusion, ODE_ANCHOR_BINS).to(sample)
    with torch.no_grad():
        target = heun(teacher, sigmas[0] * noise[rows], sigmas, condition[rows])
    return loss_weight(sigmas[0], diffusion) * distance(target, sample[rows]).mean()


def one_step(g: StudentNetwork, noise: Tensor, condition: Tensor, diffusion: Diffusion) -> Tensor:
    """Return the one-step sample `G(x_T, T, 0)` from standard normal `noise` (paper, section 2.3)."""
    T = noise.new_full((1,), diffusion.sigma_max)  # one time for all rows: it is embedded once
    return to_clean(g)(diffusion.sigma_max * noise, T, condition)


def bound_excess(sample: Tensor, rewarded: int = 1) -> Tensor:
    """Return the excess of samples over the bounds of the data, `sum relu(|x| - 1)^2` over their first entries, `[B]`.

    A critic would extrapolate outside the bounds, so the excess is there to be penalised.
    """
    return (sample[:, :rewarded].abs() - 1).clamp(min=0).square().sum((1, 2))
