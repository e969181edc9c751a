"""What the reward costs: R beside its gradient in one pass, and the weight that keeps it in bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from dataset_factory import make
from torch import Tensor, nn

from ractd.data.windows import Windows
from ractd.diffusion.ctm import one_step, sequence_return
from ractd.diffusion.settings import Diffusion
from ractd.methods.ractd_settings import Student
from ractd.models import ReturnNetwork, build_network
from ractd.models.normalizer import Normalizer
from ractd.networks.mlp import MLP
from ractd.settings import Optimization
from ractd.training import reward
from ractd.training.loop import averaged_copy
from ractd.training.reward import auto_weight, differentiated, gradient_of_data, only_judged
from ractd.training.samples import ActionSequences
from ractd.training.student import StudentObjective, student_network


def network() -> ReturnNetwork:
    torch.manual_seed(0)
    return ReturnNetwork(3, 2, (16, 8), 2).double().requires_grad_(False)


@pytest.mark.parametrize("batch", [1, 6, 7, 19])
def test_the_return_and_its_gradient_are_the_network_s_own(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of 6 rows, also where the last block is not full; rows count differently, as in a weighted mean."""
    monkeypatch.setattr(reward, "ROWS", 6)
    R, observation = network(), torch.randn(batch, 3, dtype=torch.float64)
    action, weights = torch.randn(batch, 2, dtype=torch.float64), torch.rand(batch, dtype=torch.float64)

    def values(judge: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        at = action.clone().requires_grad_()
        returns = judge(observation, at)
        (gradient,) = torch.autograd.grad((weights * returns).sum(), at)
        return returns.detach(), gradient

    for found, expected in zip(values(differentiated(R)), values(R), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_the_gradient_is_computed_once_however_often_it_is_asked_for() -> None:
    R, calls = network(), []
    R.register_forward_hook(lambda *_: calls.append(1))
    action = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    returns = differentiated(R)(torch.zeros(4, 3, dtype=torch.float64), action)
    first = torch.autograd.grad(returns.sum(), action, retain_graph=True)[0]
    second = torch.autograd.grad((2 * returns).mean(), action)[0]
    torch.testing.assert_close(second, first / 2)
    assert len(calls) == 1


def test_where_the_reward_has_no_weight_it_has_no_gradient() -> None:
    R, action = network(), torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    observation = torch.zeros(4, 3, dtype=torch.float64)
    returns = only_judged(R)(observation, action)
    assert not returns.requires_grad
    assert torch.equal(returns, R(observation, action.detach()))


def test_a_cautious_return_is_below_the_mean_by_what_the_members_differ() -> None:
    """Of two members the standard deviation is their difference over the root of 2; the gradient against finite differences."""
    R = network()
    observation, action = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    first, second = R.each(observation, action)
    lower = R.cautious(1.5)
    expected = (first + second) / 2 - 1.5 * (first - second).abs() / 2**0.5
    torch.testing.assert_close(lower(observation, action), expected)
    assert (expected < R(observation, action)).all()
    at = action.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: differentiated(lower)(observation, x), at)
    assert R.cautious(0.0) is R


@pytest.mark.parametrize("pessimism", [0.0, 2.0])
def test_the_gradient_of_the_data_is_the_mean_over_logged_sequences(pessimism: float) -> None:
    """Of a sample of them; here against all of them, one by one."""
    data, R = make((40, 60, 50)), network().float()
    samples = ActionSequences(Windows(data, 4), Normalizer.of(data.statistics()))
    condition, x0 = samples.gather({"index": torch.arange(data.num_transitions)})
    norms = []
    for given, x in zip(R.given(condition), x0, strict=True):
        at = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(sequence_return(R.cautious(pessimism), given[None], at[None]).sum(), at)
        norms.append(gradient.norm().item())
    mean, spread = torch.tensor(norms).mean().item(), torch.tensor(norms).std().item()
    found = gradient_of_data(differentiated(R.cautious(pessimism)), R, samples)
    assert not found.requires_grad
    assert found.item() == pytest.approx(mean, abs=4 * spread / reward.LOGGED**0.5)


def test_the_automatic_weight_is_a_share_of_the_data_gradient() -> None:
    assert auto_weight(0.1, torch.tensor([4.0, 2.0, 1.0])).item() == pytest.approx(0.2)
    assert auto_weight(0.1, torch.tensor([4.0, 0.0, 1.0])).item() == pytest.approx(0.4), "a gradient that vanished"
    assert auto_weight(0.1, torch.zeros(3)).item() == 0


@pytest.mark.parametrize("weight", [0.0, 0.5, "auto"])
def test_the_student_s_reward_is_the_cautious_one(weight: float | Literal["auto"]) -> None:
    data, diffusion = make((40, 60, 50)), Diffusion()
    samples = ActionSequences(Windows(data, 4), Normalizer.of(data.statistics()))
    R = ReturnNetwork(3, 2, (16, 8), 3)
    teacher, student = (build_network(MLP(16, 1, 8), 4, 2, 3, jumps) for jumps in (False, True))
    nn.init.normal_(student.output.weight, std=0.2)  # type: ignore[arg-type, union-attr]
    config = Student(reward_weight=weight, pessimism=2.0)
    objective = StudentObjective(student, averaged_copy(student), teacher, R, samples, diffusion, config, 1.0)
    draws = objective.draw(torch.Generator().manual_seed(0), Optimization(steps=1, batch_size=16))
    condition, _ = samples.gather(draws)
    with torch.no_grad():
        sample = one_step(student_network(student, diffusion), draws["noise"][:, 2], condition, diffusion)
        each = R.each(condition, sample[:, 0].clamp(-1, 1))
    terms = objective(draws)
    expected = (each.mean(0) - 2 * each.std(0)).mean().item()
    assert terms["estimated_return"].item() == pytest.approx(expected, rel=1e-4)
    if weight == "auto":
        assert terms["reward_gradient_of_data"].item() == pytest.approx(
            (1 - reward.WEIGHT_MEMORY) * gradient_of_data(differentiated(R.cautious(2.0)), R, samples).item(), rel=1e-4
        )
