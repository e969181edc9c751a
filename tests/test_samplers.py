"""Samplers against the closed-form flow of Gaussian data and hand-written loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ractd.config import MLP, Diffusion
from ractd.diffusion.ctm import one_step, to_clean
from ractd.diffusion.edm import sigma_schedule
from ractd.diffusion.samplers import SAMPLERS, few_step, heun, heun_step
from ractd.models import build_network
from ractd.training.student import student_network

DIFFUSION = Diffusion()
MU, S0 = 0.2, 0.5
NO_CONDITION = torch.zeros(8, 1, dtype=torch.float64)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads cost more than they give, most of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gaussian_denoiser(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """D(x, t) = (s0^2 x + t^2 mu) / (s0^2 + t^2) for data N(mu, s0^2 I)."""
    t = t.reshape(-1, 1, 1)
    return (S0**2 * x + t**2 * MU) / (S0**2 + t**2)


def gaussian_flow(x: Tensor, t: float, s: float) -> Tensor:
    return MU + (x - MU) * math.sqrt((S0**2 + s**2) / (S0**2 + t**2))


def start(seed: int = 0) -> Tensor:
    return 80 * torch.randn(8, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_closed_forms_agree_with_each_other() -> None:
    """The flow solves dx/dt = (x - D(x, t)) / t (central differences)."""
    x, t, h = start(), 3.0, 1e-5
    slope = (gaussian_flow(x, t, t + h) - gaussian_flow(x, t, t - h)) / (2 * h)
    expected = (x - gaussian_denoiser(x, torch.full((8,), t, dtype=torch.float64), NO_CONDITION)) / t
    torch.testing.assert_close(slope, expected, rtol=1e-7, atol=1e-9)


def test_heun_is_of_second_order() -> None:
    """Halving the steps divides the error by four."""
    x, top, bottom = start() / 80, 1.0, 0.25
    exact = gaussian_flow(x, top, bottom)

    def error(steps: int) -> float:
        sigmas = torch.linspace(top, bottom, steps + 1, dtype=torch.float64)
        return (heun(gaussian_denoiser, x, sigmas, NO_CONDITION) - exact).abs().max().item()

    errors = [error(n) for n in (8, 16, 32, 64)]
    ratios = [a / b for a, b in pairwise(errors)]
    assert all(3.6 < ratio < 4.6 for ratio in ratios), ratios
    assert 3.9 < ratios[-1] < 4.2


def test_one_heun_step_by_hand() -> None:
    """D = 0: dx/dt = x/t, whose Heun step from t to u is x + (u-t)/2 (x/t + x(1 + (u-t)/t)/u) = x u/t."""
    x = torch.ones(1, 1, 1, dtype=torch.float64)
    t, u = torch.tensor([2.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    assert heun_step(lambda x, t, c: 0 * x, x, t, u, x).item() == pytest.approx(0.25)
    # D = 1 + x: dx/dt = -1/t; Heun is the trapezoidal rule: x - (u - t) (1/t + 1/u) / 2.
    assert heun_step(lambda x, t, c: 1 + x, x, t, u, x).item() == pytest.approx(1 + 1.5 * (0.5 + 2) / 2)


def test_eighty_bins_follow_the_exact_flow_from_the_top_to_the_bottom() -> None:
    x = start()
    sigmas = sigma_schedule(DIFFUSION).double()
    error = (heun(gaussian_denoiser, x, sigmas, NO_CONDITION) - gaussian_flow(x, 80.0, 0.02)).abs().max().item()
    coarse = heun(gaussian_denoiser, x, sigma_schedule(DIFFUSION, 20).double(), NO_CONDITION)
    assert error < 4e-3
    assert (coarse - gaussian_flow(x, 80.0, 0.02)).abs().max().item() > 8 * error


def test_heun_gives_back_the_data() -> None:
    noise = torch.randn(1, 20_000, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x = SAMPLERS["heun"].sample(gaussian_denoiser, noise, torch.zeros(20_000, 1), DIFFUSION, 40)
    assert x.mean().item() == pytest.approx(MU, abs=0.01)
    assert x.std().item() == pytest.approx(S0, abs=0.01)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("steps", [2, 3, 80])
def test_the_number_of_evaluations_is_the_promised_one(name: str, steps: int) -> None:
    calls = 0

    def counting(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        assert t.shape == (8,)
        return gaussian_denoiser(x, t, condition)

    sampler = SAMPLERS[name]
    noise = torch.randn(sampler.draws(steps), 8, 3, 2, dtype=torch.float64)
    assert sampler.sample(counting, noise, NO_CONDITION, DIFFUSION, steps).shape == (8, 3, 2)
    assert calls == sampler.evaluations(steps) == {"heun": 2 * (steps - 1), "consistency": steps}[name]


def test_the_default_teacher_takes_158_evaluations_and_the_student_one() -> None:
    assert SAMPLERS["heun"].evaluations(80) == 158
    assert SAMPLERS["consistency"].evaluations(1) == 1


@pytest.fixture(scope="module")
def student() -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_network(MLP(width=16, blocks=1, embed_dim=8), 3, 2, 1, True)
    torch.nn.init.normal_(network.output.weight, std=0.3)
    return network.requires_grad_(False)


def test_few_steps_with_one_step_is_the_one_step_sample(student: torch.nn.Module) -> None:
    g = student_network(student, DIFFUSION)
    noise = torch.randn(1, 8, 3, 2, generator=torch.Generator().manual_seed(0))
    condition = torch.randn(8, 1, generator=torch.Generator().manual_seed(1))
    expected = one_step(g, noise[0], condition, DIFFUSION)
    torch.testing.assert_close(few_step(to_clean(g), noise, torch.tensor([80.0]), condition), expected, rtol=0, atol=0)
    sampled = SAMPLERS["consistency"].sample(to_clean(g), noise, condition, DIFFUSION, 1)
    torch.testing.assert_close(sampled, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 4])
def test_few_steps_are_the_hand_written_loop(student: torch.nn.Module, steps: int) -> None:
    g = student_network(student, DIFFUSION)
    noise = torch.randn(steps, 8, 3, 2, generator=torch.Generator().manual_seed(0))
    condition = torch.randn(8, 1, generator=torch.Generator().manual_seed(1))
    low, high = 0.02 ** (1 / 7), 80 ** (1 / 7)
    zero = torch.zeros(8)
    x = torch.zeros(8, 3, 2)
    for i in range(steps):
        sigma = (high + i / steps * (low - high)) ** 7
        noisy = x + sigma * noise[i]
        x = g(noisy, torch.full((8,), sigma), condition, zero)
    sampled = SAMPLERS["consistency"].sample(to_clean(g), noise, condition, DIFFUSION, steps)
    torch.testing.assert_close(sampled, x, rtol=1e-4, atol=1e-5)
