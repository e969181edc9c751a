"""The reward-aware teacher: its terms by hand, its gradient by finite differences, and what it does to two modes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_two_modes as toy
import torch
from accelerate import Accelerator
from parts_factory import RowCritic, actions_of, return_model
from torch import Tensor, nn

from ractd.critics import Critic
from ractd.critics.return_to_go import ReturnToGo
from ractd.data.dataset import OfflineDataset
from ractd.diffusion.edm import Preconditioned, distance, loss_weight
from ractd.diffusion.settings import Diffusion
from ractd.methods.ractd import TeacherObjective
from ractd.methods.ractd_settings import Teacher
from ractd.networks.mlp import MLP
from ractd.settings import Optimization
from ractd.stopping import Interrupted
from ractd.training.loop import Stage, averaged_copy, objective_stage, run_stage
from ractd.training.metrics import Metrics

OBS, A, HORIZON = 3, 2, 4
DIFFUSION = Diffusion()
BATCH = Optimization(1, batch_size=32)


def dataset() -> OfflineDataset:
    rng, n = np.random.default_rng(0), 200
    ends = np.arange(n) % 20 == 19
    actions = rng.uniform(-1, 1, size=(n, A)).astype(np.float32)
    observations, rewards = rng.normal(size=(n, OBS)).astype(np.float32), rng.normal(size=n).astype(np.float32)
    return OfflineDataset("noise", observations, actions, rewards, np.zeros(n, bool), ends)


DATA = dataset()
SEQUENCE = actions_of(DATA, HORIZON).double()
SAMPLES, NORMALIZER = SEQUENCE.samples(DATA), SEQUENCE.normalizer


class Straight(RowCritic):
    """R(s, a) = 2.5 a . r: its gradient is 2.5 r wherever it is asked."""

    condition_dim = OBS

    def __init__(self) -> None:
        super().__init__()
        self.r = nn.Parameter(torch.tensor([0.6, -0.8], dtype=torch.float64))

    def row(self, given: Tensor, entry: Tensor) -> Tensor:
        return 2.5 * entry @ self.r


def network(spread: float) -> nn.Module:
    """Whose estimates leave the bounds at times, by `spread`."""
    torch.manual_seed(0)
    net = MLP(width=16, blocks=1, embed_dim=8).build((HORIZON, A), OBS, False).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=spread)
    return net


def objective(spread: float = 0.3, **options: Any) -> TeacherObjective:
    torch.manual_seed(1)
    mish: Critic = return_model(OBS, A, (8, 16)).double()
    critic = options.pop("returns", mish)
    config = Teacher(
        reward_weight=options.pop("weight", 0.7),
        reward_share=options.pop("share", 0.2),
        bound_weight=options.pop("bound", 1.5),
        **options,
    )
    return TeacherObjective(network(spread), SEQUENCE, SAMPLES, DIFFUSION, config, critic).double()


def draws(seed: int = 0, made_by: TeacherObjective | None = None) -> dict[str, Tensor]:
    made_by = made_by or objective()
    found = made_by.draw(torch.Generator().manual_seed(seed), BATCH)
    return {name: value.double() if value.is_floating_point() else value for name, value in found.items()}


def estimate(teacher: TeacherObjective, drawn: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalised observation, x0, times and D(x0 + t z, t) of a batch, put together by hand."""
    observations, actions = SAMPLES.windows.gather(drawn["index"])
    observation, x0 = NORMALIZER.observation(observations), NORMALIZER.action(actions)
    t = (-1.2 + 1.2 * drawn["sigma"]).exp().clamp(0.02, 80)
    noisy = x0 + t[:, None, None] * drawn["noise"]
    return observation, x0, t, Preconditioned(teacher.network, DIFFUSION)(noisy, t, observation.flatten(1))


# The terms.


def test_the_terms_by_hand() -> None:
    teacher, drawn = objective(), draws()
    terms = teacher(drawn)
    observation, x0, t, D = estimate(teacher, drawn)
    dsm = (loss_weight(t, DIFFUSION) * distance(x0, D)).mean()
    first = D[:, 0]
    assert teacher.critic is not None
    R = teacher.critic.row(observation[:, -1], first.clamp(-1, 1)).mean()
    excess = sum(max(abs(a) - 1, 0) ** 2 for a in first.flatten().tolist()) / len(first)
    assert excess > 1e-4, "some are outside"
    assert terms["dsm"].item() == pytest.approx(dsm.item(), rel=1e-12)
    assert terms["reward"].item() == pytest.approx(-R.item(), rel=1e-12)
    assert terms["estimated_return"].item() == pytest.approx(R.item(), rel=1e-12)
    assert terms["bound"].item() == pytest.approx(excess, rel=1e-12)
    assert terms["reward_weight"].item() == pytest.approx(0.7)
    assert terms["loss"].item() == pytest.approx((dsm - 0.7 * R + 1.5 * excess).item(), rel=1e-7)
    assert terms["out_of_bounds"].item() == pytest.approx((D.abs() > 1).double().mean().item(), rel=1e-6)


def test_without_reward_the_loss_is_eq_4_alone() -> None:
    plain, drawn = TeacherObjective(network(0.3), SEQUENCE, SAMPLES, DIFFUSION, Teacher()), draws()
    terms = plain(drawn)
    assert terms.keys() == {"loss", "dsm"}
    assert terms["loss"].item() == objective()(drawn)["dsm"].item()
    assert not hasattr(plain, "reward_weight"), "a plain teacher's checkpoint is what it was"


@pytest.mark.parametrize("loss", ["pseudo-huber", "square"])
def test_the_gradient_is_the_finite_difference(loss: Any) -> None:
    """Along random directions of the weights, with actions on both sides of the bounds."""
    teacher, drawn = objective(loss=loss), draws()
    parameters = list(teacher.network.parameters())
    gradients = torch.autograd.grad(teacher(drawn)["loss"], parameters)

    generator, h = torch.Generator().manual_seed(7), 1e-6
    for _ in range(4):
        direction = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]

        def moved(step: float, direction: list[Tensor] = direction) -> float:
            with torch.no_grad():
                for parameter, d in zip(parameters, direction, strict=True):
                    parameter.add_(step * d)
                value = teacher(drawn)["loss"].item()
                for parameter, d in zip(parameters, direction, strict=True):
                    parameter.sub_(step * d)
            return float(value)

        numeric = (moved(h) - moved(-h)) / (2 * h)
        analytic = sum((g * d).sum().item() for g, d in zip(gradients, direction, strict=True))
        assert numeric == pytest.approx(analytic, rel=1e-5)


def test_the_reward_pulls_the_first_action_and_no_other() -> None:
    """Its gradient at the estimate is -weight/B times R's, 0 where the action is clipped, and 0 beyond the first action."""
    teacher, drawn = objective(returns=Straight(), weight=1.0, bound=0.0), draws()
    seen: list[Tensor] = []
    teacher.weighted_distance = lambda x0, D, t, diffusion: (seen.append(D), 0 * D.flatten(1).sum(1))[1]  # type: ignore[func-returns-value]
    (gradient,) = torch.autograd.grad(teacher(drawn)["loss"], seen)
    inside = (seen[0][:, 0].abs() <= 1).double()
    expected = -2.5 * torch.tensor([0.6, -0.8], dtype=torch.float64) * inside / len(inside)
    assert 0 < inside.mean() < 1
    torch.testing.assert_close(gradient[:, 0], expected)
    assert gradient[:, 1:].abs().max() == 0


def test_the_return_model_is_not_trained() -> None:
    teacher = objective()
    teacher(draws())["loss"].backward()
    assert teacher.critic is not None
    assert all(p.grad is None and not p.requires_grad for p in teacher.critic.parameters())
    assert all(p.grad is not None for p in teacher.network.parameters())


# The automatic weight.


def test_the_automatic_weight_is_the_share_of_the_data_gradient() -> None:
    """The pseudo-Huber's gradient is w(t) (D - x0)/sqrt(|D - x0|^2 + k^2); that of a straight R is |2.5 r| = 2.5 at the logged
    actions, and less at the estimates of which some are clipped."""
    teacher, drawn = objective(0.05, returns=Straight(), weight="auto", share=0.2), draws()
    weight = teacher(drawn)["reward_weight"].item()
    _, x0, t, D = estimate(teacher, drawn)
    square = (D - x0).flatten(1).square().sum(1)
    k = 0.00054 * math.sqrt(HORIZON * A)
    data = (loss_weight(t, DIFFUSION) * square.sqrt() / (square + k**2).sqrt()).mean().item()
    assert weight == pytest.approx(0.2 * data / 2.5, rel=1e-9)


def test_the_automatic_weight_remembers_while_it_trains_and_only_then() -> None:
    teacher = objective(weight="auto")
    teacher(draws(0))
    before, alone = teacher.reward_weight.gradients.clone(), objective(weight="auto")
    teacher(draws(1))
    alone(draws(1))
    torch.testing.assert_close(teacher.reward_weight.gradients, 0.99 * before + alone.reward_weight.gradients)
    seen = teacher.reward_weight.gradients.clone()
    teacher.eval()
    teacher(draws(2))
    assert torch.equal(teacher.reward_weight.gradients, seen)


def test_clipped_actions_do_not_drive_the_automatic_weight_up() -> None:
    """Where estimates are out of bounds R has no gradient there; what it is at the logged actions counts then."""
    inside = objective(0.05, returns=Straight(), weight="auto")
    outside = objective(3.0, returns=Straight(), weight="auto")
    _, _, _, D = estimate(outside, draws())
    assert (D[:, 0].abs() > 1).double().mean() > 0.5
    inside(draws())
    outside(draws())
    assert outside.reward_weight.gradients[1] < 0.8 * inside.reward_weight.gradients[1]
    assert outside.reward_weight.gradients[2] == inside.reward_weight.gradients[2] == pytest.approx(0.01 * 2.5)
    weight = outside(draws())["reward_weight"]
    data, _, at_logged = outside.reward_weight.gradients
    assert weight.item() == pytest.approx((0.2 * data / at_logged).item(), rel=1e-6)


def stage(directory: Path, steps: int = 60) -> Stage:
    torch.manual_seed(0)
    net = MLP(width=16, blocks=1, embed_dim=8).build((HORIZON, A), OBS, False)
    torch.manual_seed(1)
    critic, sequence = return_model(OBS, A, (8, 16)), actions_of(DATA, HORIZON)
    config = Teacher(reward_weight="auto")
    teacher = TeacherObjective(net, sequence, sequence.samples(DATA), DIFFUSION, config, critic)
    return objective_stage("teacher", teacher, averaged_copy(net), Optimization(steps, batch_size=16), 0, directory)


def test_a_stopped_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """The memory of the automatic weight is in the checkpoint."""
    whole = stage(tmp_path / "whole")
    run_stage(whole, Accelerator(cpu=True), Metrics(None))
    with pytest.raises(Interrupted):
        run_stage(stage(tmp_path / "parts"), Accelerator(cpu=True), Metrics(None), lambda: True)
    parts = stage(tmp_path / "parts")
    run_stage(parts, Accelerator(cpu=True), Metrics(None))
    for one, other in zip(*(dict(each.state.named_buffers()).items() for each in (whole, parts)), strict=True):  # type: ignore[union-attr]
        assert one[0] == other[0] == "gradients"
        assert torch.equal(one[1], other[1])
    for a, b in zip(*(each.followers[0].copy.parameters() for each in (whole, parts)), strict=True):
        assert torch.equal(a, b)


# Two modes, of which the rarer one pays more.


@pytest.fixture(scope="module")
def returns(tmp_path_factory: pytest.TempPathFactory) -> ReturnToGo:
    return toy.train_return_model(tmp_path_factory.mktemp("return"))


@pytest.fixture
def shares(tmp_path: Path, returns: ReturnToGo) -> Callable[..., dict[str, float]]:
    """Train a teacher on the two modes; where its samples are."""
    noise = torch.randn(toy.SAMPLES, 1, 2, generator=torch.Generator().manual_seed(5))

    def train(loss: Any, share: float | None) -> dict[str, float]:
        torch.manual_seed(0)
        net = toy.NETWORK.build((1, 2), 1, False)
        average = averaged_copy(net)
        config = Teacher(loss=loss, reward_weight=0.0 if share is None else "auto", reward_share=share or 0.0)
        critic = None if share is None else returns
        teacher = TeacherObjective(net, toy.SEQUENCE, toy.SAMPLES_OF_DATA, DIFFUSION, config, critic)
        optimization = Optimization(500, batch_size=128, learning_rate=2e-3, warmup_steps=50, ema=0.98)
        directory = tmp_path / f"{share}"
        run_stage(
            objective_stage("teacher", teacher, average, optimization, 0, directory, math.inf),
            Accelerator(cpu=True),
            Metrics(None),
        )
        return toy.measure(toy.ode_samples(average, noise, 20))

    return train


@pytest.mark.parametrize(
    ("loss", "gained"), [pytest.param("pseudo-huber", 0.5, marks=pytest.mark.slow), ("square", 0.15)]
)
def test_mass_moves_to_the_better_mode(
    shares: Callable[..., dict[str, float]], loss: str, gained: float, record_property: Any
) -> None:
    """Through the multi-step sampler, with the default share, and without leaving the data."""
    plain, aware = shares(loss, None), shares(loss, 0.2)
    record_property(loss, (plain, aware))
    print(loss, "plain:", plain, "reward-aware:", aware)
    assert plain["better"] < toy.SHARE + 0.05, plain
    assert aware["on_better"] > plain["on_better"] + gained, (plain, aware)
    assert aware["off"] < 0.06, aware
    assert aware["out_of_bounds"] < 0.01, aware


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["pseudo-huber", "square"])
def test_the_window_of_the_share(shares: Callable[..., dict[str, float]], loss: str) -> None:
    """More share, more mass on the better side; above the default samples leave the data (the table of docs/method.md)."""
    found = [shares(loss, share) for share in (None, 0.1, 0.2, 0.3)]
    print(loss, *[f"{m['on_better']:.0%} {m['off']:.0%}" for m in found], sep="\n")
    better, off = ([m[name] for m in found] for name in ("better", "off"))
    assert better == sorted(better), better
    assert off[3] > 1.5 * off[2], off
