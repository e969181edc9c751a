"""EDM: schedule, preconditioning, distance and data term against numpy, finite differences and Gaussian closed forms."""

from __future__ import annotations

import math

import gaussian
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ractd.diffusion.edm import (
    Preconditioned,
    WeightedDistance,
    distance,
    draw_sigma,
    dsm_loss,
    loss_weight,
    scalings,
    sigma_schedule,
    warp,
    weighted_pseudo_huber,
    weighted_square,
)
from ractd.diffusion.settings import Diffusion

DIFFUSION = Diffusion()
NO_CONDITION = torch.zeros(0)


def test_schedule_against_the_formula_in_numpy() -> None:
    i, n = np.arange(80), 80
    low, high = 0.02 ** (1 / 7), 80.0 ** (1 / 7)
    expected = (high + i / (n - 1) * (low - high)) ** 7
    np.testing.assert_allclose(sigma_schedule(DIFFUSION).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("bins", [2, 6, 80, 500])
def test_schedule_falls_from_sigma_max_to_sigma_min(bins: int) -> None:
    sigmas = sigma_schedule(DIFFUSION, bins)
    assert sigmas.shape == (bins,)
    assert sigmas.dtype == torch.float32
    assert sigmas[0].item() == pytest.approx(80.0, rel=1e-6)
    assert sigmas[-1].item() == pytest.approx(0.02, rel=1e-6)
    assert (sigmas.diff() < 0).all()


@given(ramp=st.floats(0, 1, allow_subnormal=False), rho=st.floats(1, 10))
@settings(max_examples=50, deadline=None)
def test_warp_inverts_to_the_ramp(ramp: float, rho: float) -> None:
    diffusion = Diffusion(rho=rho)
    sigma = warp(diffusion, torch.tensor(ramp, dtype=torch.float64)).item()
    low, high = 0.02 ** (1 / rho), 80.0 ** (1 / rho)
    assert (sigma ** (1 / rho) - high) / (low - high) == pytest.approx(ramp, abs=1e-9)


def test_scalings_at_sigma_min_are_the_identity() -> None:
    c_skip, c_out, c_in = scalings(torch.tensor([0.02], dtype=torch.float64), DIFFUSION)
    assert c_skip.item() == 1
    assert c_out.item() == 0
    assert c_in.item() == pytest.approx(1 / math.hypot(0.02, 0.5))
    x = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    t = torch.full((3,), 0.02)
    torch.testing.assert_close(
        Preconditioned(lambda y, *_: 100 * y + 7, DIFFUSION)(x, t, NO_CONDITION), x, rtol=0, atol=0
    )


@pytest.mark.parametrize("jumps", [False, True])
def test_a_preconditioned_network_is_the_closed_form_of_gaussian_data(jumps: bool) -> None:
    """The linear F that makes D, or g, exact on N(mu, s0^2 I): its scales are written out, its inputs are those it is promised."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 2, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.05, 0.3, 1.0, 5.0, 20.0, 80.0], dtype=torch.float64)
    s = torch.tensor([0.0, 0.02, 0.5, 0.0, 7.0, 79.0], dtype=torch.float64)
    condition = torch.randn(6, 3, generator=generator, dtype=torch.float64)

    def exact(x: Tensor, t: Tensor, *targets: Tensor) -> Tensor:
        return gaussian.student(x, t, condition, *targets) if targets else gaussian.denoiser(x, t, condition)

    def network(y: Tensor, t: Tensor, given: Tensor, *targets: Tensor) -> Tensor:
        assert given is condition
        assert len(targets) == jumps
        assert all((target >= 0.02).all() for target in targets)
        sigma = t[:, None, None]
        root, shifted = (sigma**2 + 0.25).sqrt(), sigma - 0.02
        x = y * root
        return (exact(x, t, *targets) - 0.25 / (shifted**2 + 0.25) * x) / (0.5 * shifted / root)

    D = Preconditioned(network, DIFFUSION)
    targets = (s,) if jumps else ()
    expected = exact(x, t, *(target.clamp(min=0.02) for target in targets))
    torch.testing.assert_close(D(x, t, condition, *targets), expected, rtol=1e-9, atol=1e-9)


def test_scalings_at_sigma_max_show_the_network_alone() -> None:
    c_skip, c_out, c_in = (c.item() for c in scalings(torch.tensor([80.0], dtype=torch.float64), DIFFUSION))
    assert c_skip == pytest.approx((0.5 / 80) ** 2, rel=1e-3)
    assert c_out == pytest.approx(0.5, rel=1e-3)
    assert c_in == pytest.approx(1 / 80, rel=1e-4)


def test_the_networks_input_has_unit_variance_at_every_noise_level() -> None:
    generator = torch.Generator().manual_seed(0)
    for sigma in (0.02, 0.3, 2.0, 80.0):
        x_t = 0.5 * torch.randn(50_000, generator=generator) + sigma * torch.randn(50_000, generator=generator)
        c_skip, c_out, _ = scalings(torch.tensor(sigma), DIFFUSION)
        t = torch.full((50_000,), sigma)
        # With the identity for a network, D - c_skip x is c_out times the network's input.
        output = Preconditioned(lambda y, *_: y, DIFFUSION)(x_t, t, NO_CONDITION) - c_skip * x_t
        if sigma > 0.02:
            assert (output / c_out).std().item() == pytest.approx(1.0, abs=0.015)
        assert (x_t * scalings(t, DIFFUSION)[2]).std().item() == pytest.approx(1.0, abs=0.015)


def test_scalings_are_edms_where_sigma_min_is_zero() -> None:
    """EDM's variance identities: the network's target (x0 - c_skip x) / c_out is uncorrelated with x and has variance 1."""
    edm = Diffusion(sigma_min=0.0)
    t = torch.tensor([0.05, 0.5, 3.0, 60.0], dtype=torch.float64)
    c_skip, c_out, _ = scalings(t, edm)
    torch.testing.assert_close(c_skip, 0.25 / (t**2 + 0.25))
    variance = (1 - c_skip) ** 2 * 0.25 + c_skip**2 * t**2
    torch.testing.assert_close(variance, c_out**2)
    covariance = (1 - c_skip) * 0.25 - c_skip * t**2
    torch.testing.assert_close(covariance, torch.zeros(4, dtype=torch.float64), atol=1e-15, rtol=0)
    # Far above sigma_min the boundary form is EDM's.
    for ours, theirs in zip(scalings(t[2:], DIFFUSION), scalings(t[2:], edm), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0)


def test_distance_against_the_formula_in_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 16, 3))
    k = 0.00054 * np.sqrt(48)
    expected = [np.sqrt(((x - y) ** 2).sum() + k**2) - k for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(distance(torch.from_numpy(a), torch.from_numpy(b)).numpy(), expected, rtol=1e-12)


@given(scale=st.floats(1e-6, 1e3), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_the_gradient_of_the_distance_is_at_most_one(scale: float, seed: int) -> None:
    a = scale * torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    a.requires_grad_()
    distance(a, torch.zeros_like(a)).sum().backward()
    assert a.grad is not None
    norms = a.grad.flatten(1).norm(dim=1)
    assert (norms <= 1).all()
    assert (norms > 0).all()


def test_the_distance_is_smooth_at_zero_and_a_norm_far_away() -> None:
    a = torch.zeros(2, 4, 2, requires_grad=True)
    value = distance(a, torch.zeros(2, 4, 2))
    value.sum().backward()
    assert value.tolist() == [0, 0]
    assert a.grad is not None
    assert a.grad.abs().max() == 0
    far = torch.full((1, 4, 2), 100.0)
    assert distance(far, 0 * far).item() == pytest.approx(100 * math.sqrt(8), rel=1e-5)


def test_noise_levels_of_the_teacher_are_ln_normal_within_the_range() -> None:
    normal = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    sigma = draw_sigma(normal, DIFFUSION)
    assert sigma.min() >= 0.02 - 1e-9
    assert sigma.max() <= 80
    assert sigma.log().median().item() == pytest.approx(-1.2, abs=0.03)
    inside = (normal.abs() < 2) & (sigma > 0.0201)
    torch.testing.assert_close(sigma[inside].log(), -1.2 + 1.2 * normal[inside], rtol=1e-4, atol=1e-5)
    assert draw_sigma(torch.tensor([-9.0, 9.0]), DIFFUSION).tolist() == pytest.approx([0.02, 80.0])


def test_the_weight_keeps_the_loss_even_over_sigma() -> None:
    """For data N(0, sigma_data^2) and a network that answers 0, the expected loss hardly depends on sigma."""
    generator = torch.Generator().manual_seed(0)
    x0 = 0.5 * torch.randn(4000, 4, 2, generator=generator)
    noise = torch.randn(4000, 4, 2, generator=generator)
    levels = [0.04, 0.1, 0.3, 1.0, 5.0, 80.0]
    losses, squared = [], []
    for sigma in levels:
        t = torch.full((4000,), sigma)
        answers_zero = Preconditioned(lambda y, *_: torch.zeros_like(y), DIFFUSION)
        loss = dsm_loss(answers_zero, x0, noise, t, NO_CONDITION, DIFFUSION)
        losses.append(loss.mean().item())
        squared.append((loss * loss_weight(t, DIFFUSION)).mean().item())
    assert max(losses) / min(losses) < 1.5, losses
    assert max(squared) / min(squared) > 10, squared


def test_the_weight_is_one_over_edms_c_out() -> None:
    t = torch.tensor([0.02, 0.5, 80.0], dtype=torch.float64)
    torch.testing.assert_close(loss_weight(t, DIFFUSION), 1 / scalings(t, Diffusion(sigma_min=0.0))[1])


@pytest.mark.parametrize("sigma", [0.1, 0.5, 3.0])
def test_the_data_term_is_least_for_the_closed_form_denoiser(sigma: float) -> None:
    """Gaussian posteriors are symmetric: their mean is their median, which is what the pseudo-Huber distance asks for."""
    generator = torch.Generator().manual_seed(1)
    mu, s0 = 0.3, 0.4
    x0 = mu + s0 * torch.randn(40_000, 2, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(40_000, 2, 2, generator=generator, dtype=torch.float64)
    t = torch.full((40_000,), sigma, dtype=torch.float64)

    def loss(scale: float, shift: float) -> float:
        def denoiser(x: torch.Tensor, t: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return scale * (s0**2 * x + sigma**2 * mu) / (s0**2 + sigma**2) + shift

        return dsm_loss(denoiser, x0, noise, t, NO_CONDITION, DIFFUSION).mean().item()

    best = loss(1.0, 0.0)
    for scale, shift in [(1.1, 0), (0.9, 0), (1, 0.05), (1, -0.05), (1.1, 0.05), (0.9, 0.05)]:
        assert loss(scale, shift) > best


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_the_two_distances_fit_mean_and_median(sigma: float) -> None:
    """Of a lopsided x0 that the noise says nothing about, 0 in 7 of 10 cases and else 1: its mean is 0.3, its median 0."""
    x0 = torch.tensor([0.0] * 7 + [1.0] * 3, dtype=torch.float64).reshape(10, 1, 1)
    t = torch.full((10,), sigma, dtype=torch.float64)
    grid = torch.linspace(-0.2, 1.2, 141, dtype=torch.float64)

    def best(weighted: WeightedDistance) -> float:
        losses = [weighted(x0, torch.full_like(x0, float(a)), t, DIFFUSION).mean() for a in grid]
        return float(grid[int(torch.stack(losses).argmin())])

    assert best(weighted_square) == pytest.approx(0.3, abs=1e-9)
    assert best(weighted_pseudo_huber) == pytest.approx(0.0, abs=1e-9)


def test_the_squared_distance_is_edms() -> None:
    x0, estimate = torch.randn(2, 5, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0.02, 0.1, 1, 10, 80], dtype=torch.float64)
    expected = (t**2 + 0.25) / (t * 0.5) ** 2 * ((x0 - estimate) ** 2).sum((1, 2)) / 8
    torch.testing.assert_close(weighted_square(x0, estimate, t, DIFFUSION), expected)
