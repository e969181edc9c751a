"""What the reward costs: R beside its gradient in one pass, and the weight that keeps it in bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from dataset_factory import make
from torch import Tensor

from ractd.data.windows import Windows
from ractd.diffusion.ctm import sequence_return
from ractd.models import ReturnNetwork
from ractd.models.normalizer import Normalizer
from ractd.training import reward
from ractd.training.reward import auto_weight, differentiated, gradient_of_data, only_judged
from ractd.training.samples import ActionSequences


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


def test_the_gradient_of_the_data_is_the_mean_over_logged_sequences() -> None:
    """Of a sample of them; here against all of them, one by one."""
    data, R = make((40, 60, 50)), network().float()
    samples = ActionSequences(Windows(data, 4), Normalizer.of(data.statistics()))
    condition, x0 = samples.gather({"index": torch.arange(data.num_transitions)})
    norms = []
    for given, x in zip(R.given(condition), x0, strict=True):
        at = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(sequence_return(R, given[None], at[None]).sum(), at)
        norms.append(gradient.norm().item())
    mean, spread = torch.tensor(norms).mean().item(), torch.tensor(norms).std().item()
    found = gradient_of_data(R, samples)
    assert not found.requires_grad
    assert found.item() == pytest.approx(mean, abs=4 * spread / reward.LOGGED**0.5)


def test_the_automatic_weight_is_a_share_of_the_data_gradient() -> None:
    assert auto_weight(0.1, torch.tensor([4.0, 2.0, 1.0])).item() == pytest.approx(0.2)
    assert auto_weight(0.1, torch.tensor([4.0, 0.0, 1.0])).item() == pytest.approx(0.4), "a gradient that vanished"
    assert auto_weight(0.1, torch.zeros(3)).item() == 0
