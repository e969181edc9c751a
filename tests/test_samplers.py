"""Samplers against the closed-form flow of Gaussian data and hand-written loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import gaussian
import pytest
import torch
from gaussian import MU, S0
from torch import Tensor

from ractd.diffusion import samplers
from ractd.diffusion.ctm import one_step
from ractd.diffusion.ddpm import noise_levels, sampling_levels
from ractd.diffusion.edm import Preconditioned, sigma_schedule
from ractd.diffusion.samplers import (
    SAMPLERS,
    Kind,
    dpmpp_2m,
    euler,
    few_step,
    heun,
    heun_step,
    jumps,
    refinement_levels,
    to_clean,
)
from ractd.diffusion.settings import DDPM, Diffusion
from ractd.networks.mlp import MLP

DIFFUSION = Diffusion()
NO_CONDITION = torch.zeros(8, 1, dtype=torch.float64)
EACH = [(kind, name) for kind, names in SAMPLERS.items() if kind != "direct" for name in names]
EXACT = {"student": gaussian.student, "teacher": gaussian.denoiser, "DDPM teacher": gaussian.clean}
SCHEDULE = {"student": DIFFUSION, "teacher": DIFFUSION, "DDPM teacher": DDPM(timesteps=200)}


def start(seed: int = 0) -> Tensor:
    return 80 * torch.randn(8, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Closed forms.


def test_the_closed_forms_agree_with_each_other() -> None:
    """The flow solves dx/dt = (x - D(x, t)) / t (central differences); epsilon is what D says was added."""
    x, t, h = start(), 3.0, 1e-5
    times = torch.full((8,), t, dtype=torch.float64)
    slope = (gaussian.flow(x, t, t + h) - gaussian.flow(x, t, t - h)) / (2 * h)
    D = gaussian.denoiser(x, times, NO_CONDITION)
    torch.testing.assert_close(slope, (x - D) / t, rtol=1e-7, atol=1e-9)
    scaled = x / math.sqrt(1 + t**2)
    torch.testing.assert_close(gaussian.epsilon(scaled, times, NO_CONDITION), (x - D) / t)
    torch.testing.assert_close(gaussian.clean(scaled, times, NO_CONDITION), D)


def ddim_in_edms_scale(denoiser: object, x: Tensor, sigmas: Tensor, condition: Tensor) -> Tensor:
    """DDIM on the variance-preserving form of the same Gaussian."""
    x = x / (1 + sigmas[0] ** 2).sqrt()
    return samplers.ddim(gaussian.clean, x, sigmas, condition) * (1 + sigmas[-1] ** 2).sqrt()


@pytest.mark.parametrize(
    ("solver", "order"),
    [(euler, 1), (ddim_in_edms_scale, 1), (heun, 2), (dpmpp_2m, 2)],
    ids=["euler", "ddim", "heun", "dpmpp_2m"],
)
def test_the_order_of_convergence(solver: Callable[..., Tensor], order: int) -> None:
    """Halving the steps divides the error by two to the order."""
    x, top, bottom = start() / 80, 1.0, 0.25
    exact = gaussian.flow(x, top, bottom)

    def error(steps: int) -> float:
        sigmas = torch.linspace(top, bottom, steps + 1, dtype=torch.float64)
        return (solver(gaussian.denoiser, x, sigmas, NO_CONDITION) - exact).abs().max().item()

    errors = [error(n) for n in (16, 32, 64, 128)]
    ratios = [a / b for a, b in pairwise(errors)]
    assert all(0.8 * 2**order < ratio < 1.25 * 2**order for ratio in ratios), ratios
    assert 0.97 * 2**order < ratios[-1] < 1.03 * 2**order, ratios


def test_ancestral_euler_is_of_first_order_in_distribution() -> None:
    """Mean and variance, read off exactly: halving the steps halves their distance to those of the data's marginal."""
    top, bottom = 2.0, 0.25

    def errors(steps: int) -> tuple[float, float]:
        sigmas = torch.linspace(top, bottom, steps + 1, dtype=torch.float64)
        x, noise = gaussian.affine(steps + 1)
        out = samplers.euler_ancestral(gaussian.denoiser, x, sigmas, noise, torch.zeros(len(x), 1))
        mean, variance = gaussian.moments(out, MU, S0**2 + top**2)
        return mean - MU, variance - (S0**2 + bottom**2)

    found = [errors(n) for n in (32, 64, 128, 256)]
    assert all(abs(mean) < 1e-12 for mean, _ in found), "the mean is kept exactly"
    ratios = [a / b for (_, a), (_, b) in pairwise(found)]
    assert all(1.8 < ratio < 2.2 for ratio in ratios), ratios
    assert abs(found[-1][1]) < 0.01


def test_ancestral_moments_by_hand() -> None:
    """One step at a time: x' = (down/t) x + (1 - down/t) D(x, t) + up z, with up^2 + down^2 = u^2."""
    sigmas = torch.tensor([3.0, 1.0, 0.4], dtype=torch.float64)
    mean, variance = 0.7, 5.0
    for t, u in pairwise(sigmas.tolist()):
        up = math.sqrt(u**2 * (t**2 - u**2) / t**2)
        down = math.sqrt(u**2 - up**2)
        slope = down / t + (1 - down / t) * S0**2 / (S0**2 + t**2)
        mean = slope * mean + (1 - down / t) * t**2 * MU / (S0**2 + t**2)
        variance = slope**2 * variance + up**2
    x, noise = gaussian.affine(3)
    out = samplers.euler_ancestral(gaussian.denoiser, x, sigmas, noise, torch.zeros(4, 1))
    assert gaussian.moments(out, 0.7, 5.0) == pytest.approx((mean, variance), rel=1e-12)


def test_ddpm_is_of_first_order_in_distribution() -> None:
    """Mean and variance approach the data's as T grows: twice the levels, half the error."""

    def errors(T: int) -> tuple[float, float]:
        sigmas = sampling_levels(DDPM(T, "linear"), T)
        x, noise = gaussian.affine(T)
        out = samplers.ddpm(gaussian.clean, torch.cat([x[None], noise]), sigmas, torch.zeros(len(x), 1))
        signal = 1 / math.sqrt(1 + sigmas[0] ** 2)
        mean, variance = gaussian.moments(out, signal * MU, signal**2 * S0**2 + 1 - signal**2)
        return mean - MU, variance - S0**2

    found = [errors(T) for T in (100, 200, 400, 800)]
    assert all(abs(mean) < 1e-12 for mean, _ in found), "the mean is kept exactly"
    ratios = [a / b for (_, a), (_, b) in pairwise(found)]
    assert all(1.8 < ratio < 2.2 for ratio in ratios), ratios
    assert abs(found[-1][1]) < 0.01


def test_jumps_of_an_exact_student_are_the_flow_however_many() -> None:
    x = start()
    for times in ([80.0, 0.0], [80.0, 3.0, 0.0], [80.0, 9.0, 0.5, 0.02, 0.0], [80.0, 9.0, 0.5]):
        sigmas = torch.tensor(times, dtype=torch.float64)
        landed = jumps(gaussian.student, x, sigmas, NO_CONDITION)
        torch.testing.assert_close(landed, gaussian.flow(x, times[0], times[-1]), rtol=1e-9, atol=1e-9)


def test_one_heun_step_by_hand() -> None:
    """D = 0: dx/dt = x/t, whose Heun step from t to u is x + (u-t)/2 (x/t + x(1 + (u-t)/t)/u) = x u/t."""
    x = torch.ones(1, 1, 1, dtype=torch.float64)
    t, u = torch.tensor([2.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    assert heun_step(lambda x, t, c: 0 * x, x, t, u, x).item() == pytest.approx(0.25)
    # D = 1 + x: dx/dt = -1/t; Heun is the trapezoidal rule: x - (u - t) (1/t + 1/u) / 2.
    assert heun_step(lambda x, t, c: 1 + x, x, t, u, x).item() == pytest.approx(1 + 1.5 * (0.5 + 2) / 2)


def test_dpmpp_2m_solves_the_linear_part_exactly_and_extrapolates_the_rest() -> None:
    """D = const: one step is exact, x_u = (u/t) x + (1 - u/t) D. D linear in lambda = -ln t: the extrapolation is to the
    middle of the step in lambda, D + (D - D_last) h / (2 h_last)."""
    x = torch.ones(1, 1, 1, dtype=torch.float64)
    sigmas = torch.tensor([4.0, 1.0, 0.5], dtype=torch.float64)
    assert dpmpp_2m(lambda x, t, c: 0 * x + 3, x, sigmas, x).item() == pytest.approx(1 / 8 + 7 / 8 * 3)
    after_one = 0.25 * 1 + 0.75 * math.log(4)
    middle = math.log(1) + (math.log(1) - math.log(4)) * math.log(2) / (2 * math.log(4))
    found = dpmpp_2m(lambda x, t, c: 0 * x + t.log().reshape(-1, 1, 1), x, sigmas, x).item()
    assert found == pytest.approx(0.5 * after_one + 0.5 * middle)


# The same thing in other letters.


def test_ddim_is_eulers_method_in_the_variance_preserving_scale() -> None:
    x, sigmas = start(), sigma_schedule(DIFFUSION, 12).double()
    expected = euler(gaussian.denoiser, x, sigmas, NO_CONDITION)
    torch.testing.assert_close(ddim_in_edms_scale(None, x, sigmas, NO_CONDITION), expected, rtol=1e-9, atol=1e-9)
    noise = (x / 80)[None]
    by_name = {name: SAMPLERS["teacher"][name].sample for name in ("ddim", "euler")}
    ddim, eulers = (sample(gaussian.denoiser, noise, NO_CONDITION, DIFFUSION, 12) for sample in by_name.values())
    torch.testing.assert_close(ddim, eulers, rtol=1e-6, atol=1e-6)


def test_ddpm_is_ancestral_euler_in_the_variance_preserving_scale() -> None:
    """Down to the last level, from which DDPM returns the clean estimate."""
    sigmas, noise = noise_levels(DDPM(20)).flip(0), seeded(20, 8, 3, 2, dtype=torch.float64)
    sampled = samplers.ddpm(gaussian.clean, noise, sigmas, NO_CONDITION)
    x = noise[0] * (1 + sigmas[0] ** 2).sqrt()
    x = samplers.euler_ancestral(gaussian.denoiser, x, sigmas[:-1], noise[1:], NO_CONDITION)
    expected = gaussian.denoiser(x, sigmas[-2].expand(8), NO_CONDITION)
    torch.testing.assert_close(sampled, expected, rtol=1e-9, atol=1e-9)


# The end of the schedule, where a preconditioned network is the identity.


def in_the_boundary_form(spread: float, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """The exact denoiser of N(mu, spread^2 I), but at sigma_min, where every preconditioned network is the identity."""
    t = t.reshape(-1, 1, 1)
    return torch.where(t > DIFFUSION.sigma_min * (1 + 1e-6), (spread**2 * x + t**2 * MU) / (spread**2 + t**2), x)


@pytest.mark.parametrize("bins", [2, 3, 8, 80])
@pytest.mark.parametrize("name", SAMPLERS["teacher"])
def test_no_sampler_of_a_teacher_asks_it_at_sigma_min(name: str, bins: int) -> None:
    """What a network says there is known beforehand, and is not what its data look like."""
    sampler = SAMPLERS["teacher"][name]
    noise = seeded(sampler.draws(bins), 8, 3, 2, dtype=torch.float64)
    asked: list[float] = []

    def asking(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        asked.extend(t.tolist())
        return in_the_boundary_form(S0, x, t, condition)

    x = sampler.sample(asking, noise, NO_CONDITION, DIFFUSION, bins)
    assert min(asked) > 1.01 * DIFFUSION.sigma_min
    torch.testing.assert_close(x, sampler.sample(gaussian.denoiser, noise, NO_CONDITION, DIFFUSION, bins))


@pytest.mark.parametrize("spread", [0.05, 0.5])
@pytest.mark.parametrize("bins", [2, 3, 8, 20, 80])
def test_heun_on_a_gaussian_in_the_boundary_form(bins: int, spread: float) -> None:
    """Every step multiplies the distance from the mean by a number known in closed form, the last one Euler's."""
    sigmas = sigma_schedule(DIFFUSION, bins).double().tolist()

    def slope(t: float) -> float:
        return t / (spread**2 + t**2)

    factor = 1.0
    for i, (t, u) in enumerate(pairwise(sigmas)):
        dt, first = u - t, slope(t)
        second = first if i == bins - 2 else slope(u) * (1 + dt * first)
        factor *= 1 + dt * (first + second) / 2
    x = start()
    sampled = heun(partial(in_the_boundary_form, spread), x, torch.tensor(sigmas, dtype=torch.float64), NO_CONDITION)
    torch.testing.assert_close(sampled, MU + factor * (x - MU))
    exact = math.sqrt((spread**2 + sigmas[-1] ** 2) / (spread**2 + sigmas[0] ** 2))
    wrong = {2: 1, 3: 0.9, 8: 0.3, 20: 0.05, 80: 0.015}[
        bins
    ]  # of the spread; half a step at the end made 0.95 of 8 bins
    assert abs(factor / exact - 1) < wrong


@pytest.mark.parametrize("name", SAMPLERS["teacher"])
def test_two_bins_are_one_step_to_the_mean(name: str) -> None:
    """`x_min = D + (sigma_min / sigma_max) (x - D)`, of Ancestral Euler with more noise: no sample, and in the data's bounds."""
    sampler = SAMPLERS["teacher"][name]
    noise = seeded(sampler.draws(2), 1_000, 1, 2, dtype=torch.float64)
    x = sampler.sample(partial(in_the_boundary_form, S0), noise, torch.zeros(1_000, 1), DIFFUSION, 2)
    top, bottom = sigma_schedule(DIFFUSION, 2).double()
    D = gaussian.denoiser(top * noise[0], top.expand(1_000), torch.zeros(1_000, 1))
    if name != "euler-ancestral":
        torch.testing.assert_close(x, D + bottom / top * (top * noise[0] - D), rtol=1e-5, atol=1e-6)
    assert (x - MU).abs().max() < 0.12
    assert sampler.evaluations(2) == 1


# What policies use.


def test_eighty_bins_follow_the_exact_flow_from_the_top_to_the_bottom() -> None:
    x = start()
    sigmas = sigma_schedule(DIFFUSION).double()
    error = (heun(gaussian.denoiser, x, sigmas, NO_CONDITION) - gaussian.flow(x, 80.0, 0.02)).abs().max().item()
    coarse = heun(gaussian.denoiser, x, sigma_schedule(DIFFUSION, 20).double(), NO_CONDITION)
    assert error < 4e-3
    assert (coarse - gaussian.flow(x, 80.0, 0.02)).abs().max().item() > 8 * error


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_each_one_gives_back_the_data(kind: Kind, name: str) -> None:
    """200 steps of the exact model, from a policy's own noise; `central` keeps to the middle, by as much as it left out."""
    sampler = SAMPLERS[kind][name]
    noise = seeded(sampler.draws(200), 5_000, 1, 2, seed=3, dtype=torch.float64)
    x = sampler.sample(EXACT[kind], noise, torch.zeros(5_000, 1), SCHEDULE[kind], 200)
    assert x.mean().item() == pytest.approx(MU, abs=0.02)
    assert x.std().item() == pytest.approx(S0, rel=0.04) if name != "central" else 0 < x.std().item() < S0


@pytest.mark.parametrize(("kind", "name"), EACH)
@pytest.mark.parametrize("steps", [2, 3, 80])
def test_the_number_of_evaluations_is_the_promised_one(kind: Kind, name: str, steps: int) -> None:
    calls = 0

    def counting(x: Tensor, t: Tensor, *others: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        assert t.shape == (1,), "one time for all rows"
        exact: Callable[..., Tensor] = EXACT[kind]  # type: ignore[assignment]
        return exact(x, t, *others)

    sampler = SAMPLERS[kind][name]
    noise = torch.randn(sampler.draws(steps), 8, 3, 2, dtype=torch.float64)
    assert sampler.sample(counting, noise, NO_CONDITION, SCHEDULE[kind], steps).shape == (8, 3, 2)
    promised = 2 * (steps - 1) - 1 if name == "heun" else {"teacher": steps - 1}.get(kind, steps)
    assert calls == sampler.evaluations(steps) == promised


def test_the_default_teacher_takes_157_evaluations_and_the_student_one() -> None:
    assert SAMPLERS["teacher"]["heun"].evaluations(80) == 157
    assert SAMPLERS["student"]["consistency"].evaluations(1) == 1


def test_the_fewest_and_the_most_steps() -> None:
    assert SAMPLERS["student"]["jumps"].limits(DIFFUSION) == (1, 1000)
    assert SAMPLERS["teacher"]["euler"].limits(DIFFUSION) == (2, 1000)
    assert SAMPLERS["DDPM teacher"]["ddim"].limits(DDPM(timesteps=30)) == (1, 30)


@pytest.fixture(scope="module")
def student() -> torch.nn.Module:
    torch.manual_seed(0)
    network = MLP(width=16, blocks=1, embed_dim=8).build((3, 2), 1, True)
    torch.nn.init.normal_(network.output.weight, std=0.3)
    return network.requires_grad_(False)


@pytest.mark.parametrize("name", ["consistency", "jumps"])
def test_one_step_of_a_student_is_the_one_step_sample(student: torch.nn.Module, name: str) -> None:
    g = Preconditioned(student, DIFFUSION)
    noise, condition = seeded(1, 8, 3, 2), seeded(8, 1, seed=1)
    expected = one_step(g, noise[0], condition, DIFFUSION)
    torch.testing.assert_close(few_step(to_clean(g), noise, torch.tensor([80.0]), condition), expected, rtol=0, atol=0)
    sampled = SAMPLERS["student"][name].sample(g, noise, condition, DIFFUSION, 1)
    torch.testing.assert_close(sampled, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3])
def test_central_is_consistency_from_no_noise(student: torch.nn.Module, steps: int) -> None:
    g, condition = Preconditioned(student, DIFFUSION), seeded(8, 1, seed=1)
    noise = seeded(steps - 1, 8, 3, 2)
    assert SAMPLERS["student"]["central"].draws(steps) == steps - 1
    sampled = SAMPLERS["student"]["central"].sample(g, noise, condition, DIFFUSION, steps)
    whole = torch.cat([torch.zeros(1, 8, 3, 2), noise])
    expected = SAMPLERS["student"]["consistency"].sample(g, whole, condition, DIFFUSION, steps)
    torch.testing.assert_close(sampled, expected, rtol=0, atol=0)
    if steps == 1:
        at_zero = g(torch.zeros(8, 3, 2), torch.full((8,), 80.0), condition, torch.zeros(8))
        torch.testing.assert_close(sampled, at_zero, rtol=1e-5, atol=1e-5)


def student_times(steps: int) -> list[float]:
    low, high = 0.02 ** (1 / 7), 80 ** (1 / 7)
    return [(high + i / steps * (low - high)) ** 7 for i in range(steps)]


@pytest.mark.parametrize("levels", [(80, 0.05), (80, 0.05, 0.04, 0.03)])
def test_few_steps_are_the_hand_written_loop(student: torch.nn.Module, levels: tuple[float, ...]) -> None:
    steps = len(levels)
    g = Preconditioned(student, DIFFUSION)
    noise, condition = seeded(steps, 8, 3, 2), seeded(8, 1, seed=1)
    x = torch.zeros(8, 3, 2)
    for sigma, z in zip(levels, noise, strict=True):
        x = g(x + sigma * z, torch.full((8,), sigma), condition, torch.zeros(8))
    sampled = SAMPLERS["student"]["consistency"].sample(g, noise, condition, DIFFUSION, steps)
    torch.testing.assert_close(sampled, x, rtol=1e-4, atol=1e-5)


def test_a_student_is_never_asked_for_less_noise_than_it_was_trained_with() -> None:
    noisy = replace(DIFFUSION, sigma_min=0.2)
    assert refinement_levels(noisy, 3) == [80, 0.2, 0.2]
    assert refinement_levels(noisy, 1) == [80]


@pytest.mark.parametrize("steps", [2, 4])
def test_jumps_are_the_hand_written_loop(student: torch.nn.Module, steps: int) -> None:
    g = Preconditioned(student, DIFFUSION)
    noise, condition = seeded(1, 8, 3, 2), seeded(8, 1, seed=1)
    x = 80 * noise[0]
    for t, s in pairwise([*student_times(steps), 0.0]):
        x = s / t * x + (1 - s / t) * g(x, torch.full((8,), t), condition, torch.full((8,), s))
    sampled = SAMPLERS["student"]["jumps"].sample(g, noise, condition, DIFFUSION, steps)
    torch.testing.assert_close(sampled, x, rtol=1e-4, atol=1e-5)
