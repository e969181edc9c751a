"""The student's mathematics against Gaussian closed forms, finite differences and explicit re-computation."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_factory import RowCritic
from scipy import stats
from torch import Tensor, nn

from ractd.critics import Critic
from ractd.diffusion import ctm
from ractd.diffusion.edm import Preconditioned, distance, draw_sigma, dsm_loss, loss_weight, sigma_schedule
from ractd.diffusion.samplers import StudentNetwork, heun, heun_step, jump, to_clean
from ractd.diffusion.settings import Diffusion
from ractd.networks.mlp import MLP

DIFFUSION = Diffusion()
MU, S0 = 0.2, 0.5
F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=F64, generator=generator(seed))


def column(t: Tensor) -> Tensor:
    return t.reshape(-1, 1, 1)


def gaussian_denoiser(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    t = column(t)
    return (S0**2 * x + t**2 * MU) / (S0**2 + t**2)


def gaussian_flow(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    t, s = column(t), column(s)
    return MU + (x - MU) * ((S0**2 + s**2) / (S0**2 + t**2)).sqrt()


def exact_g(x: Tensor, t: Tensor, condition: Tensor, s: Tensor) -> Tensor:
    """The g whose jump is the exact flow: solve (s/t) x + (1 - s/t) g = flow(x, t, s); at s = t its limit is D."""
    ratio = column(s / t)
    apart = (ratio < 1).expand_as(x)
    solved = (gaussian_flow(x, t, s) - ratio * x) / torch.where(apart, 1 - ratio, 1.0)
    return torch.where(apart, solved, gaussian_denoiser(x, t, condition))


def tiny(seed: int = 0, jumps: bool = True, dim: int = 2, horizon: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    network = MLP(width=8, blocks=1, embed_dim=4).build((horizon, dim), 1, jumps).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


# --- jumps -------------------------------------------------------------------------------------------------------


def test_a_jump_to_the_same_time_is_the_identity() -> None:
    g = Preconditioned(tiny(), DIFFUSION)
    x, t = randn(6, 3, 2), torch.tensor([0.02, 0.1, 1, 5, 40, 80], dtype=F64)
    torch.testing.assert_close(jump(g, x, t, t, randn(6, 1)), x, rtol=0, atol=0)


def test_a_jump_to_time_zero_is_the_network() -> None:
    g = Preconditioned(tiny(), DIFFUSION)
    x, t, condition = randn(5, 3, 2), torch.tensor([0.1, 1, 5, 40, 80], dtype=F64), randn(5, 1)
    zero = torch.zeros_like(t)
    torch.testing.assert_close(jump(g, x, t, zero, condition), g(x, t, condition, zero), rtol=0, atol=0)
    torch.testing.assert_close(to_clean(g)(x, t, condition), g(x, t, condition, zero), rtol=0, atol=0)


def test_the_boundary_is_the_identity_at_sigma_min() -> None:
    g = Preconditioned(tiny(), DIFFUSION)
    x, t = randn(4, 3, 2), torch.full((4,), 0.02, dtype=F64)
    torch.testing.assert_close(jump(g, x, t, 0 * t, randn(4, 1)), x, rtol=0, atol=1e-14)


def test_time_zero_is_sigma_min_to_the_network() -> None:
    """The CTM loss trains jumps down to sigma_min; the one-step sample asks for time 0, which has to be the same."""
    g = Preconditioned(tiny(), DIFFUSION)
    x, t, condition = randn(4, 3, 2), torch.full((4,), 80.0, dtype=F64), randn(4, 1)
    torch.testing.assert_close(g(x, t, condition, 0 * t), g(x, t, condition, 0 * t + 0.02))


def test_a_jump_is_the_straight_line_to_g() -> None:
    x, t, s = randn(2, 3, 2), torch.tensor([4.0, 10.0], dtype=F64), torch.tensor([1.0, 5.0], dtype=F64)
    constant = randn(2, 3, 2, seed=1)
    jumped = jump(lambda x, t, c, s: constant, x, t, s, x)
    torch.testing.assert_close(jumped[0], 0.25 * x[0] + 0.75 * constant[0])
    torch.testing.assert_close(jumped[1], 0.5 * x[1] + 0.5 * constant[1])


def test_the_exact_flow_is_a_semigroup_of_jumps() -> None:
    """Of the reference and of `jump`: t -> s -> r is t -> r, and both follow the closed form."""
    x = 80 * randn(6, 3, 2)
    t, s, r = (torch.full((6,), value, dtype=F64) for value in (80.0, 3.0, 0.02))
    direct = jump(exact_g, x, t, r, x)
    through = jump(exact_g, jump(exact_g, x, t, s, x), s, r, x)
    torch.testing.assert_close(through, direct, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(direct, gaussian_flow(x, t, r), rtol=1e-9, atol=1e-9)


# --- times and solver --------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10_000), bins=st.integers(2, 100), ode_steps=st.integers(1, 120), corner=st.sampled_from([0, 1])
)
@settings(max_examples=100, deadline=None)
def test_times_are_ordered_and_u_is_near_t(seed: int, bins: int, ode_steps: int, corner: int) -> None:
    uniform = torch.rand(64, 3, generator=generator(seed))
    uniform[0] = 0.0
    uniform[1] = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))  # the largest draw there is
    uniform[2] = torch.where(torch.arange(3) == corner, uniform[1], uniform[0])
    t, u, k = ctm.draw_times(uniform, ode_steps, Diffusion(bins=bins))
    assert (t >= 0).all()
    assert (t < u).all()
    assert (u <= k).all()
    assert (k <= bins - 1).all()
    assert (u - t <= ode_steps).all()


def test_times_cover_every_bin_and_every_gap() -> None:
    t, u, k = ctm.draw_times(torch.rand(40_000, 3, generator=generator()), 4, DIFFUSION)
    assert set(t.tolist()) == set(range(79))
    assert set(u.tolist()) == set(range(1, 80))
    assert set(k.tolist()) == set(range(1, 80))
    assert set((u - t).tolist()) == {1, 2, 3, 4}
    assert (k[u < 60] == u[u < 60]).any(), "k may be u itself"
    counts = torch.bincount(t, minlength=79).numpy()
    assert stats.chisquare(counts).pvalue > 1e-3, "t is uniform over the bins"
    one = u == 40
    assert stats.chisquare(torch.bincount(k[one] - 40, minlength=40).numpy()).pvalue > 1e-3, "k is uniform from u down"


@pytest.mark.parametrize("ode_steps", [1, 3, 7])
def test_the_solver_ends_at_u_for_every_sample(ode_steps: int) -> None:
    sigmas = sigma_schedule(DIFFUSION).double()
    t, u, _ = ctm.draw_times(torch.rand(200, 3, generator=generator()), ode_steps, DIFFUSION)
    x = column(sigmas[t]) * randn(200, 3, 2)
    x_u = ctm.solve(gaussian_denoiser, x, t, u, x, sigmas, ode_steps)
    error = (x_u - gaussian_flow(x, sigmas[t], sigmas[u])).abs().amax((1, 2))
    assert error.max() < 2e-3
    # A solver that stopped a bin early or late would be off by far more than that where bins are wide.
    wide = u < 60
    early = (gaussian_flow(x, sigmas[t], sigmas[u - 1]) - x_u).abs().amax((1, 2))
    assert (early[wide] > 5 * error[wide]).float().mean() > 0.95


def test_the_solver_over_all_bins_is_the_heun_sampler() -> None:
    diffusion = Diffusion(bins=9)
    sigmas = sigma_schedule(diffusion).double()
    x = 80 * randn(4, 3, 2)
    t, u = torch.zeros(4, dtype=torch.long), torch.full((4,), 8)
    torch.testing.assert_close(
        ctm.solve(gaussian_denoiser, x, t, u, x, sigmas, 8), heun(gaussian_denoiser, x, sigmas, x), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("ode_steps", [1, 3, 7])
def test_the_solver_does_not_believe_the_teacher_at_sigma_min(ode_steps: int) -> None:
    """There every preconditioned network is the identity: rows that go there take Euler's step, the others Heun's."""
    diffusion = Diffusion(bins=12)
    sigmas = sigma_schedule(diffusion).double()

    def preconditioned(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return torch.where(column(t) > 0.02 * (1 + 1e-6), gaussian_denoiser(x, t, condition), x)

    t, u, _ = ctm.draw_times(torch.rand(300, 3, generator=generator()), ode_steps, diffusion)
    x = column(sigmas[t]) * randn(300, 3, 2)
    x_u = ctm.solve(preconditioned, x, t, u, x, sigmas, ode_steps)
    assert (u == 11).sum() > 20
    assert (u < 11).sum() > 100
    torch.testing.assert_close(x_u, ctm.solve(gaussian_denoiser, x, t, u, x, sigmas, ode_steps))
    for row in range(0, 300, 7):
        alone, levels = slice(row, row + 1), sigmas[t[row] : u[row] + 1]
        if u[row] == 11:
            expected = heun(preconditioned, x[alone], levels, x[alone])
        else:
            expected = x[alone]
            for high, low in pairwise(levels):
                expected = heun_step(preconditioned, expected, high.reshape(1), low.reshape(1), x[alone])
        torch.testing.assert_close(x_u[alone], expected)


# --- CTM loss ----------------------------------------------------------------------------------------------------


def ctm_loss(g: StudentNetwork, bins: int, ode_steps: int = 1) -> float:
    """Mean over the lower nine tenths of the schedule at equal noise levels, whatever the number of bins."""
    diffusion = Diffusion(bins=bins)
    sigmas = sigma_schedule(diffusion).double()
    times = ctm.draw_times(torch.rand(2000, 3, generator=generator()), ode_steps, diffusion)
    x0 = MU + S0 * randn(2000, 3, 2, seed=1)
    loss = ctm.ctm_loss(g, g, gaussian_denoiser, x0, randn(2000, 3, 2, seed=2), times, x0, sigmas, ode_steps)
    assert loss.shape == (2000,)
    return loss.mean().item()


def test_the_loss_vanishes_for_the_exact_flow_and_only_for_it() -> None:
    losses = [ctm_loss(exact_g, bins) for bins in (20, 80, 320)]
    # All that is left is Heun's error, of order bins^-2 (third order in a step).
    assert losses[1] < 1e-4
    assert losses[0] > 4 * losses[1] > 16 * losses[2] > 0

    def perturbed(x: Tensor, t: Tensor, condition: Tensor, s: Tensor) -> Tensor:
        return exact_g(x, t, condition, s) + 0.1 * column((t - 0.02) / (t + 1)) * x / column((t**2 + S0**2).sqrt())

    assert ctm_loss(perturbed, 80) > 20 * losses[1]


def test_the_loss_is_the_distance_of_the_two_paths() -> None:
    """Eq. 5 and 6 written out with the closed form in place of the solver, for g that is not the flow."""
    g, target = (Preconditioned(tiny(seed), DIFFUSION) for seed in (0, 1))
    sigmas = sigma_schedule(DIFFUSION).double()
    times = ctm.draw_times(torch.rand(30, 3, generator=generator()), 1, DIFFUSION)
    x0, noise, condition = randn(30, 3, 2), randn(30, 3, 2, seed=1), randn(30, 1, seed=2)
    loss = ctm.ctm_loss(g, target, gaussian_denoiser, x0, noise, times, condition, sigmas, 1)

    t, u, k = (sigmas[i] for i in times)
    x_t = x0 + column(t) * noise

    def G(h: StudentNetwork, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return column(b / a) * x + (1 - column(b / a)) * h(x, a, condition, b)

    zero = torch.zeros_like(k)
    direct = G(target, G(g, x_t, t, k), k, zero)
    through = G(target, G(target, gaussian_flow(x_t, t, u), u, k), k, zero)
    norm = ((direct - through) ** 2).sum((1, 2))
    pseudo_huber = (norm + 0.00054**2 * 6).sqrt() - 0.00054 * math.sqrt(6)
    torch.testing.assert_close(loss, pseudo_huber, rtol=1e-2, atol=2e-3)


def gradients_of_ctm() -> tuple[nn.Module, nn.Module, nn.Module, Callable[[], Tensor], dict[str, Any]]:
    g, target, teacher = tiny(0), tiny(1), tiny(2, jumps=False)
    sigmas = sigma_schedule(DIFFUSION).double()
    times = ctm.draw_times(torch.rand(12, 3, generator=generator(7)), 2, DIFFUSION)
    x0, noise, condition = randn(12, 3, 2), randn(12, 3, 2, seed=1), randn(12, 1, seed=2)

    def D(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        estimate: Tensor = Preconditioned(lambda y, t, c, s: teacher(y, t, c), DIFFUSION)(x, t, c, t)  # type: ignore[arg-type]
        return estimate

    def loss() -> Tensor:
        nets = Preconditioned(g, DIFFUSION), Preconditioned(target, DIFFUSION)
        return ctm.ctm_loss(*nets, D, x0, noise, times, condition, sigmas, 2).sum()

    given = {"sigmas": sigmas, "times": times, "x0": x0, "noise": noise, "condition": condition, "D": D}
    return g, target, teacher, loss, given


def test_gradient_flows_only_through_the_first_jump() -> None:
    """The target path and the teacher are constants; the map to time 0 lets gradient through to x_k, not to its weights."""
    g, target, teacher, loss, given = gradients_of_ctm()
    for module in (target, teacher):
        module.requires_grad_(True)
    # What `ctm_loss` computes with the weights of the target frozen, as training does.
    target.requires_grad_(False)
    loss().backward()
    assert all(parameter.grad is None for parameter in [*teacher.parameters(), *target.parameters()])
    ours = [parameter.grad.clone() for parameter in g.parameters() if parameter.grad is not None]
    assert len(ours) == len(list(g.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in ours)

    g.zero_grad()
    t_index, u_index, _ = given["times"]
    t, u, k = (given["sigmas"][i] for i in given["times"])
    x_t = given["x0"] + column(t) * given["noise"]
    condition, zero = given["condition"], torch.zeros_like(k)
    g_target = Preconditioned(target, DIFFUSION)
    with torch.no_grad():
        x_u = ctm.solve(given["D"], x_t, t_index, u_index, condition, given["sigmas"], 2)
        through = jump(g_target, jump(g_target, x_u, u, k, condition), k, zero, condition)  # type: ignore[arg-type]
    x_k = jump(Preconditioned(g, DIFFUSION), x_t, t, k, condition)  # type: ignore[arg-type]
    # By the chain rule, in two pieces: d distance / d x_k with everything else a constant, then x_k's own gradient.
    at = x_k.detach().requires_grad_()
    (slope,) = torch.autograd.grad(distance(jump(g_target, at, k, zero, condition), through).sum(), at)  # type: ignore[arg-type]
    x_k.backward(slope)
    for mine, parameter in zip(ours, g.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, mine, rtol=1e-9, atol=1e-12)


def finite_difference(loss: Callable[[], Tensor], parameter: Tensor, index: int, h: float = 1e-6) -> float:
    flat = parameter.detach().view(-1)
    with torch.no_grad():
        before = flat[index].item()
        flat[index] = before + h
        up = loss().item()
        flat[index] = before - h
        down = loss().item()
        flat[index] = before
    return (up - down) / (2 * h)


def test_the_gradient_of_the_loss_against_finite_differences() -> None:
    g, target, _, loss, _ = gradients_of_ctm()
    target.requires_grad_(False)
    loss().backward()
    for parameter in g.parameters():
        index = int(parameter.grad.abs().argmax())  # type: ignore[union-attr]
        analytic = parameter.grad.view(-1)[index].item()  # type: ignore[union-attr]
        assert finite_difference(loss, parameter, index) == pytest.approx(analytic, rel=1e-4, abs=1e-7)


# --- data term ---------------------------------------------------------------------------------------------------


def test_shares_of_the_students_noise_levels() -> None:
    """Two in seven are uniform in the first part of the warped index, the others the teacher's ln-normal."""
    n = 80_000
    normal, uniform = torch.randn(n, generator=generator()), torch.rand(n, generator=generator(1))
    sigma = ctm.student_sigma(normal, uniform, DIFFUSION)
    assert sigma.min() >= 0.02 - 1e-9
    assert sigma.max() <= 80 * (1 + 1e-6)

    upper = uniform < 2 / 7
    torch.testing.assert_close(sigma[~upper], draw_sigma(normal[~upper], DIFFUSION), rtol=0, atol=0)
    assert stats.kstest(((sigma[~upper].log() + 1.2) / 1.2).numpy().clip(-2.2, None), "norm").statistic < 0.02

    low, high = 0.02 ** (1 / 7), 80 ** (1 / 7)
    index = (sigma[upper].double() ** (1 / 7) - high) / (low - high)
    assert 0 <= index.min() < 0.01
    assert 0.69 < index.max() <= 0.7 + 1e-6
    assert stats.kstest(index.numpy() / 0.7, "uniform").pvalue > 1e-3


def test_the_data_term_denoises_to_time_0() -> None:
    x0, noise, t = randn(4, 3, 2), randn(4, 3, 2, seed=1), torch.tensor([0.1, 1, 5, 80], dtype=F64)

    def g(x: Tensor, t: Tensor, condition: Tensor, s: Tensor) -> Tensor:
        return column(s) + 0 * x

    weight = loss_weight(t, DIFFUSION)
    torch.testing.assert_close(dsm_loss(to_clean(g), x0, noise, t, x0, DIFFUSION), weight * distance(x0, 0 * x0))


def test_the_ode_anchor_compares_a_quarter_with_the_teachers_coarse_sample() -> None:
    noise = randn(16, 3, 2)
    sigmas = sigma_schedule(DIFFUSION, ctm.ODE_ANCHOR_BINS).float().double()
    target = heun(gaussian_denoiser, sigmas[0] * noise, sigmas, noise)
    sample = target.clone().requires_grad_()
    loss = ctm.ode_loss(gaussian_denoiser, sample, noise, noise, DIFFUSION)
    assert loss.item() == pytest.approx(0, abs=1e-9)
    moved = (target + 1.0).requires_grad_()
    loss = ctm.ode_loss(gaussian_denoiser, moved, noise, noise, DIFFUSION)
    assert loss.item() == pytest.approx(math.sqrt(6) * 2, rel=1e-2)
    loss.backward()
    assert moved.grad is not None
    assert moved.grad[:4].abs().min() > 0
    assert moved.grad[4:].abs().max() == 0


# --- reward ------------------------------------------------------------------------------------------------------


def test_one_step_is_g_at_the_top() -> None:
    noise = randn(3, 3, 2)
    seen: list[Tensor] = []

    def g(x: Tensor, t: Tensor, condition: Tensor, s: Tensor) -> Tensor:
        seen.extend([x, t, s])
        return x

    ctm.one_step(g, noise, noise, DIFFUSION)
    torch.testing.assert_close(seen[0], 80 * noise)
    assert seen[1].tolist() == [80.0], "one time for all rows"
    assert seen[2].tolist() == [0.0]


def critic_of(function: Callable[[Tensor, Tensor], Tensor]) -> Critic:
    """A critic of one function of observation and action."""

    class Function(RowCritic):
        condition_dim = 1

        def row(self, given: Tensor, entry: Tensor) -> Tensor:
            return function(given, entry)

    return Function()


def test_the_gradient_of_the_reward_against_finite_differences() -> None:
    network, observation, noise = tiny(3), randn(10, 1), randn(10, 3, 2, seed=1)

    def R(observation: Tensor, action: Tensor) -> Tensor:
        return (observation[:, 0] + action.sin().sum(1)) * action.prod(1)

    def sample() -> Tensor:
        return ctm.one_step(Preconditioned(network, DIFFUSION), noise, observation, DIFFUSION)

    def loss() -> Tensor:
        return -critic_of(R).value(observation, sample()).sum()

    first = sample()[:, 0].detach()
    assert (first.abs() < 1).float().mean() > 0.5, (
        "most of the actions have to be inside the bounds for this test to say much"
    )
    torch.testing.assert_close(loss().detach(), -R(observation, first.clamp(-1, 1)).sum())
    loss().backward()
    checked = 0
    for parameter in network.parameters():
        assert parameter.grad is not None
        index = int(parameter.grad.abs().argmax())
        analytic = parameter.grad.view(-1)[index].item()
        checked += abs(analytic) > 1e-4
        assert finite_difference(loss, parameter, index) == pytest.approx(analytic, rel=1e-4, abs=1e-7)
    assert checked > 5


def test_only_the_first_action_is_rewarded() -> None:
    sample = (0.3 * randn(5, 3, 2)).clamp(-0.9, 0.9).requires_grad_()
    (-critic_of(lambda s, a: a.sum(1)).value(randn(5, 1), sample)).sum().backward()
    assert sample.grad is not None
    torch.testing.assert_close(sample.grad[:, 0], -torch.ones(5, 2, dtype=F64))
    assert sample.grad[:, 1:].abs().max() == 0


def test_actions_outside_the_bounds_are_clipped_and_penalised() -> None:
    """R never sees more than the bound and gives no gradient there; the excess does: sum relu(|a| - 1)^2."""
    sample = torch.tensor([[[1.5, 0.2]], [[-3.0, -1.25]], [[0.9, -1.0]]], dtype=F64, requires_grad=True)
    seen: list[Tensor] = []

    def R(observation: Tensor, action: Tensor) -> Tensor:
        seen.append(action)
        return 10 * action.sum(1)

    negative, excess = -critic_of(R).value(torch.zeros(3, 1, dtype=F64), sample), ctm.bound_excess(sample)
    assert seen[0].tolist() == [[1.0, 0.2], [-1.0, -1.0], [0.9, -1.0]]
    assert excess.tolist() == pytest.approx([0.25, 4 + 0.0625, 0])
    (reward,) = torch.autograd.grad(negative.sum(), sample, retain_graph=True)
    assert reward[0, 0].tolist() == [0, -10]
    assert reward[1, 0].tolist() == [0, 0]
    assert reward[2, 0, 0] == -10
    (penalty,) = torch.autograd.grad(excess.sum(), sample)
    np.testing.assert_allclose(penalty[:, 0].numpy(), [[1.0, 0.0], [-4.0, -0.5], [0.0, 0.0]])
