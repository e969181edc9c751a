"""What the reward costs: R beside its gradient in one pass, and the weight that keeps it in bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from dataset_factory import make
from parts_factory import actions_of, return_model
from torch import Tensor, nn

from ractd.critics import critic as critics
from ractd.critics import differentiated, pessimistic, without_gradient
from ractd.critics.return_to_go import ReturnToGo
from ractd.diffusion.ctm import one_step, student_sigma
from ractd.diffusion.edm import Preconditioned
from ractd.diffusion.settings import Diffusion
from ractd.methods.ractd import StudentObjective
from ractd.methods.ractd_settings import Distance, Student
from ractd.networks.mlp import MLP
from ractd.settings import Optimization
from ractd.training.auto_weight import LOGGED, RewardWeight, gradient_at_logged
from ractd.training.loop import averaged_copy


def network() -> ReturnToGo:
    torch.manual_seed(0)
    return return_model(layers=(16, 8), members=2).double().requires_grad_(False)


@pytest.mark.parametrize("batch", [1, 6, 7, 19])
def test_the_return_and_its_gradient_are_the_network_s_own(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of 6 rows, also where the last block is not full; rows count differently, as in a weighted mean."""
    monkeypatch.setattr(critics, "ROWS", 6)
    R, observation = network(), torch.randn(batch, 3, dtype=torch.float64)
    action, weights = torch.randn(batch, 2, dtype=torch.float64), torch.rand(batch, dtype=torch.float64)

    def values(row: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        at = action.clone().requires_grad_()
        returns = row(observation, at)
        (gradient,) = torch.autograd.grad((weights * returns).sum(), at)
        return returns.detach(), gradient

    for found, expected in zip(values(differentiated(R.row)), values(R.row), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_the_gradient_is_computed_once_however_often_it_is_asked_for() -> None:
    R, calls = network(), []
    R.members[0].register_forward_hook(lambda *_: calls.append(1))
    action = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    returns = differentiated(R.row)(torch.zeros(4, 3, dtype=torch.float64), action)
    first = torch.autograd.grad(returns.sum(), action, retain_graph=True)[0]
    second = torch.autograd.grad((2 * returns).mean(), action)[0]
    torch.testing.assert_close(second, first / 2)
    assert len(calls) == 1


def test_where_the_reward_has_no_weight_it_has_no_gradient() -> None:
    R, action = network(), torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    observation = torch.zeros(4, 3, dtype=torch.float64)
    returns = without_gradient(R.row)(observation, action)
    assert not returns.requires_grad
    assert torch.equal(returns, R.row(observation, action.detach()))


def test_a_pessimistic_return_is_below_the_mean_by_what_the_members_differ() -> None:
    """Of two members the standard deviation is their difference over the root of 2; the gradient against finite differences."""
    R = network()
    observation, action = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    first, second = R.each(observation, action)
    lower = pessimistic(R, 1.5)
    expected = (first + second) / 2 - 1.5 * (first - second).abs() / 2**0.5
    torch.testing.assert_close(lower(observation, action), expected)
    assert (expected < R.row(observation, action)).all()
    at = action.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: differentiated(lower)(observation, x), at)
    assert pessimistic(R, 0.0) == R.row


@pytest.mark.parametrize("pessimism", [0.0, 2.0])
def test_the_gradient_of_the_data_is_the_mean_over_logged_sequences(pessimism: float) -> None:
    """Of a sample of them; here against all of them, one by one."""
    data, R = make((40, 60, 50)), network().float()
    sequence = actions_of(data)
    samples, row = sequence.samples(data), pessimistic(R, pessimism)
    condition, x0 = samples.gather({"index": torch.arange(data.num_transitions)})
    norms = []
    for one, x in zip(condition, x0, strict=True):
        at = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(R.value(one[None], at[None], row).sum(), at)
        norms.append(gradient.norm().item())
    mean, spread = torch.tensor(norms).mean().item(), torch.tensor(norms).std().item()
    found = gradient_at_logged(R, differentiated(row), sequence, samples)
    assert not found.requires_grad
    assert found.item() == pytest.approx(mean, abs=4 * spread / LOGGED**0.5)


def test_the_automatic_weight_is_a_share_of_the_data_gradient() -> None:
    def weight(data: float, at_samples: float, at_logged: float) -> float:
        made = RewardWeight("auto", 0.1, lambda: torch.tensor(at_logged))
        return float(made(lambda: (torch.tensor(data), torch.tensor(at_samples))))

    assert weight(4.0, 2.0, 1.0) == pytest.approx(0.2)
    assert weight(4.0, 0.0, 1.0) == pytest.approx(0.4), "a gradient that vanished"
    assert weight(0.0, 0.0, 0.0) == 0


@pytest.mark.parametrize("weight", [0.0, 0.5, "auto"])
def test_the_student_s_reward_is_the_pessimistic_one(weight: float | Literal["auto"]) -> None:
    data, diffusion = make((40, 60, 50)), Diffusion()
    sequence, R = actions_of(data), return_model(layers=(16, 8), members=3)
    samples = sequence.samples(data)
    teacher, student = (MLP(16, 1, 8).build((4, 2), 3, jumps) for jumps in (False, True))
    nn.init.normal_(student.output.weight, std=0.2)  # type: ignore[arg-type, union-attr]
    config = Student(reward_weight=weight, pessimism=2.0)
    objective = StudentObjective(student, averaged_copy(student), teacher, R, sequence, samples, diffusion, config)
    draws = objective.draw(torch.Generator().manual_seed(0), Optimization(steps=1, batch_size=16))
    condition, _ = samples.gather(draws)
    with torch.no_grad():
        sample = one_step(Preconditioned(student, diffusion), draws["noise"][:, 2], condition, diffusion)
        each = R.each(condition, sample[:, 0].clamp(-1, 1))
    terms = objective(draws)
    expected = (each.mean(0) - 2 * each.std(0)).mean().item()
    assert terms["estimated_return"].item() == pytest.approx(expected, rel=1e-4)
    assert ("reward_gradient_of_data" in terms) == (weight == "auto")
    if weight == "auto":
        assert terms["reward_gradient_of_data"].item() == pytest.approx(
            0.01 * gradient_at_logged(R, differentiated(pessimistic(R, 2.0)), sequence, samples).item(),
            rel=1e-4,
        )


@pytest.mark.parametrize("loss", ["pseudo-huber", "square"])
def test_the_data_term_is_the_one_step_sample_s_at_T_and_half_of_the_batch_s_below(loss: Distance) -> None:
    """Against eq. 7 at the levels that were drawn, one after the other, by the network without its sharing of work."""
    data, diffusion = make((40, 60, 50)), Diffusion()
    sequence = actions_of(data)
    samples = sequence.samples(data)
    student = MLP(16, 1, 8).build((4, 2), 3, True)
    nn.init.normal_(student.output.weight, std=0.2)  # type: ignore[arg-type]
    config = Student(loss=loss, distilled=False, ctm_weight=0.0, bound_weight=0.0)
    objective = StudentObjective(student, averaged_copy(student), None, None, sequence, samples, diffusion, config)
    draws = objective.draw(torch.Generator().manual_seed(0), Optimization(steps=1, batch_size=10))
    condition, x0 = samples.gather(draws)
    g, (_, noise, noise_T) = Preconditioned(student, diffusion), draws["noise"].unbind(1)

    def term(x: torch.Tensor, t: torch.Tensor, row: int) -> torch.Tensor:
        one = slice(row, row + 1)
        clean = g(x[one], t[one], condition[one], torch.zeros(1))
        difference = (clean - x0[one]).flatten()
        if loss == "square":
            return (t[row] ** 2 + 0.25) / (0.5 * t[row]) ** 2 * difference.square().mean()  # type: ignore[no-any-return]
        k = 0.00054 * 8**0.5
        return (t[row] ** 2 + 0.25).sqrt() / (0.5 * t[row]) * ((difference.square().sum() + k**2).sqrt() - k)  # type: ignore[no-any-return]

    T = torch.full((10,), 80.0)
    at_T = torch.stack([term(80 * noise_T, T, row) for row in range(10)])
    t = student_sigma(draws["normal"], draws["uniform"][:, 3], diffusion)
    below = torch.stack([term(x0 + t[:, None, None] * noise, t, row) for row in range(5)])
    expected = 0.3 * at_T.mean() + 0.7 * below.mean()
    assert objective(draws)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_refinement_holds_a_sample_to_its_own_second_step() -> None:
    """Its gradient is the one-step sample's alone, towards what the averaged student makes of it at 0.1 sigma_data."""
    data, diffusion = make((30, 20)), Diffusion()
    sequence = actions_of(data, 2)
    torch.manual_seed(0)
    network = MLP(width=16, blocks=1, embed_dim=8).build((2, 2), 3, True)
    nn.init.normal_(network.output.weight, std=0.3)  # type: ignore[arg-type, union-attr]
    average = averaged_copy(network)
    with torch.no_grad():
        average.output.bias.add_(0.5)  # type: ignore[union-attr, operator]

    def objective(weight: float) -> StudentObjective:
        config = Student(distilled=False, ctm_weight=0, loss="square", reward_weight=0.0, refinement_weight=weight)
        return StudentObjective(network, average, None, None, sequence, sequence.samples(data), diffusion, config)

    draws = objective(0).draw(torch.Generator().manual_seed(1), Optimization(steps=1, batch_size=6))
    (without, plain), (found, terms) = (
        (torch.cat([g.flatten() for g in torch.autograd.grad(terms["loss"], [*network.parameters()])]), terms)
        for terms in (objective(weight)(draws) for weight in (0.0, 0.7))
    )
    condition, _ = sequence.samples(data).gather(draws)
    _, noise, noise_T = draws["noise"].unbind(1)
    sample = one_step(Preconditioned(network, diffusion), noise_T, condition, diffusion)
    t, s = torch.full((6,), 0.1 * diffusion.sigma_data), torch.zeros(6)
    with torch.no_grad():
        second = Preconditioned(average, diffusion)(sample + t[:, None, None] * noise, t, condition, s)
    T, sigma_data = diffusion.sigma_max, diffusion.sigma_data
    w = (T**2 + sigma_data**2) / (T * sigma_data) ** 2  # of a squared distance, the inverse of EDM's c_out squared
    expected = w * (second - sample).square().mean()
    assert terms["refinement"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert "refinement" not in plain
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(0.7 * expected, [*network.parameters()])])
    torch.testing.assert_close(found - without, gradient, rtol=1e-3, atol=1e-4)
