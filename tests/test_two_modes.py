"""The paper's Figure 3 in seconds: two modes of behaviour, of which the rarer one pays more."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from parts_factory import actions_of, return_model
from torch import Tensor, nn

from ractd.critics.return_to_go import ReturnObjective, ReturnToGo
from ractd.data import return_to_go
from ractd.data.dataset import OfflineDataset
from ractd.diffusion import ctm
from ractd.diffusion.edm import Preconditioned, scalings, sigma_schedule
from ractd.diffusion.samplers import heun
from ractd.diffusion.settings import Diffusion
from ractd.methods.ractd import StudentObjective, TeacherObjective
from ractd.methods.ractd_settings import Student, Teacher
from ractd.networks import copy_matching
from ractd.networks.mlp import MLP
from ractd.settings import Optimization
from ractd.training.loop import averaged_copy, objective_stage, run_stage
from ractd.training.metrics import Metrics

DIFFUSION = Diffusion()
NETWORK = MLP(width=64, blocks=2, embed_dim=32)
WORSE, BETTER = torch.tensor([-0.45, -0.3]), torch.tensor([0.45, 0.3])
SPREAD, SHARE = 0.06, 0.3
REACH = 5 * SPREAD
"""A sample so far from a mode's centre is on it."""
SAMPLES = 2000


def two_modes(scale: float = 1.0) -> OfflineDataset:
    """20,000 one-step episodes with one observation; return 1 on the better mode, and a little more the further up right.

    The four corners make the bounds -1 .. 1, so that there is room to exploit the return model beyond the mode.
    """
    rng, n = np.random.default_rng(0), 20_000
    better = rng.random(n) < SHARE
    better[:4] = False
    actions = np.where(better[:, None], BETTER.numpy(), WORSE.numpy()) + SPREAD * rng.normal(size=(n, 2))
    actions[:4] = [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    rewards = scale * (better + 0.1 * actions.sum(1))
    zeros, f32 = np.zeros(n, bool), np.float32
    return OfflineDataset("two modes", np.zeros((n, 1), f32), actions.astype(f32), rewards.astype(f32), zeros, ~zeros)


DATA = two_modes()
SEQUENCE = actions_of(DATA, 1)
SAMPLES_OF_DATA = SEQUENCE.samples(DATA)


def run(directory: Path, name: str, objective: nn.Module, average: nn.Module, steps: int, rate: float) -> None:
    ema = 0.995 if name == "teacher" else 0.99
    batch = 128 if name == "student" else 256
    optimization = Optimization(steps, batch_size=batch, learning_rate=rate, warmup_steps=100, ema=ema)
    stage = objective_stage(name, objective, average, optimization, 0, directory / name, math.inf)
    run_stage(stage, Accelerator(cpu=True), Metrics(None))


class Exact(nn.Module):
    """The network whose preconditioned output is E[x0 | x] for the mixture: a teacher without error."""

    def forward(self, y: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        c_skip, c_out, c_in = (c.reshape(-1, 1, 1) for c in scalings(t, DIFFUSION))
        x, t = y / c_in, t.reshape(-1, 1, 1)
        variance = SPREAD**2 + t**2
        modes = [(SHARE, BETTER), (1 - SHARE, WORSE)]
        logits = [math.log(w) - ((x - m) ** 2).sum((1, 2), keepdim=True) / (2 * variance) for w, m in modes]
        weights = torch.stack(logits).softmax(0)
        means = torch.stack([(SPREAD**2 * x + t**2 * m) / variance for _, m in modes])
        return ((weights * means).sum(0) - c_skip * x) / c_out.clamp(min=1e-9)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORK.build((1, 2), 1, False)
    average = averaged_copy(network)
    objective = TeacherObjective(network, SEQUENCE, SAMPLES_OF_DATA, DIFFUSION, Teacher(loss="square"))
    run(tmp_path_factory.mktemp("teacher"), "teacher", objective, average, 1200, 2e-3)
    return average


def train_return_model(directory: Path, scale: float = 1.0) -> ReturnToGo:
    """Train as a run does, on returns-to-go in standard deviations."""
    returns = return_to_go(two_modes(scale), 0.99)
    mean, std = returns.mean(dtype=np.float64), returns.std(dtype=np.float64)
    targets = torch.from_numpy(((returns - mean) / std).astype(np.float32))
    torch.manual_seed(1)
    network = return_model(1, 2, (32, 64), mean=float(mean), std=float(std))
    average = averaged_copy(network)
    run(
        directory,
        "return",
        ReturnObjective(network, SEQUENCE, SAMPLES_OF_DATA.windows, targets, torch.arange(len(targets))),
        average,
        500,
        3e-3,
    )
    return average  # type: ignore[return-value]


@pytest.fixture(scope="module")
def returns(tmp_path_factory: pytest.TempPathFactory) -> ReturnToGo:
    return train_return_model(tmp_path_factory.mktemp("return"))


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return torch.randn(SAMPLES, 1, 2, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def distil(
    tmp_path: Path, teacher: nn.Module, returns: ReturnToGo, noise: Tensor
) -> Callable[..., tuple[Tensor, StudentObjective]]:
    """Distil a student of the exact teacher; return its one-step samples and what it minimised."""

    def train(steps: int = 600, critic: ReturnToGo = returns, **options: Any) -> tuple[Tensor, StudentObjective]:
        torch.manual_seed(2)
        network = NETWORK.build((1, 2), 1, True)
        copy_matching(teacher, network)
        average = averaged_copy(network)
        config = Student(**options)
        objective = StudentObjective(network, average, Exact(), critic, SEQUENCE, SAMPLES_OF_DATA, DIFFUSION, config)
        run(tmp_path / str(len(list(tmp_path.iterdir()))), "student", objective, average, steps, 1e-3)
        with torch.no_grad():
            sample = ctm.one_step(Preconditioned(average, DIFFUSION), noise, torch.zeros(SAMPLES, 1), DIFFUSION)
        return sample, objective

    return train


def measure(x: Tensor) -> dict[str, float]:
    """Shares of the modes, of samples on neither, and the mean distance to the nearer mode's centre."""
    better, worse = ((x[:, 0] - mode).norm(dim=1) for mode in (BETTER, WORSE))
    near = torch.minimum(better, worse)
    return {
        "better": (better < worse).float().mean().item(),
        "on_better": (better < REACH).float().mean().item(),
        "on_worse": (worse < REACH).float().mean().item(),
        "off": (near >= REACH).float().mean().item(),
        "distance": near.mean().item(),
        "out_of_bounds": (x.abs() > 1).any(2).float().mean().item(),
    }


def ode_samples(network: nn.Module, noise: Tensor, bins: int) -> Tensor:
    with torch.no_grad():
        return heun(
            Preconditioned(network, DIFFUSION), 80 * noise, sigma_schedule(DIFFUSION, bins), torch.zeros(SAMPLES, 1)
        )


# --- the teacher -------------------------------------------------------------------------------------------------


def test_the_sampler_keeps_both_modes_of_an_exact_denoiser(noise: Tensor) -> None:
    measured = measure(ode_samples(Exact(), noise, 80))
    assert measured["better"] == pytest.approx(SHARE, abs=0.03), measured
    assert measured["off"] < 0.01


def test_the_teacher_keeps_both_modes_in_their_shares(teacher: nn.Module, noise: Tensor, record_property: Any) -> None:
    """With EDM's squared distance; the pseudo-Huber one fits medians, and ends with a tenth on the mode of three tenths."""
    measured = measure(ode_samples(teacher, noise, 80))
    record_property("teacher", measured)
    print("teacher:", measured)
    assert measured["better"] == pytest.approx(SHARE, abs=0.05), measured
    assert measured["off"] < 0.02, measured


# --- the plain student, by anchor --------------------------------------------------------------------------------

Distil = Callable[..., tuple[Tensor, StudentObjective]]


@pytest.mark.slow
def test_the_ode_anchor_keeps_both_modes(distil: Distil, record_property: Any) -> None:
    measured = measure(distil(anchor="ode", reward_weight=0.0)[0])
    record_property("ode", measured)
    print("ode:", measured)
    assert measured["off"] < 0.1, measured
    assert measured["better"] == pytest.approx(SHARE, abs=0.05), measured


def test_the_dsm_anchor_goes_to_the_median(distil: Distil, record_property: Any) -> None:
    """Eq. 7 at T asks for the conditional median: all samples go to the larger mode, and they stay on it."""
    measured = measure(distil(400, anchor="dsm", reward_weight=0.0)[0])
    record_property("dsm", measured)
    print("dsm:", measured)
    assert measured["on_worse"] > 0.95, measured


# --- the reward-aware student ------------------------------------------------------------------------------------


def test_the_return_model_could_be_exploited(returns: ReturnToGo) -> None:
    """It knows which mode is better, and promises more beyond it, where there is no data."""
    points = torch.stack([WORSE, BETTER, BETTER + 5 * SPREAD, torch.ones(2)])
    worse, better, beyond, corner = returns.row(torch.zeros(4, 1), points).tolist()
    assert better > worse + 1
    assert corner > beyond > better + 0.05


def test_the_reward_aware_student_moves_to_the_better_mode_and_stays_on_it(
    distil: Distil, record_property: Any
) -> None:
    """The anchor pulls with 0.7 against 0.3 towards the worse mode: the share that wins here is above the default."""
    sample, objective = distil(400, reward_weight="auto", reward_share=0.15)
    measured = measure(sample)
    record_property("auto", measured)
    print("auto, share 0.15:", measured, "gradients", objective.reward_weight.gradients.tolist())
    assert measured["on_better"] > 0.95, measured
    assert measured["distance"] < 2.5 * SPREAD, measured
    assert measured["out_of_bounds"] == 0, measured


@pytest.mark.slow
def test_the_default_share_stays_in_the_data(distil: Distil, record_property: Any) -> None:
    """Whatever it is: a default that the return model's errors can pull out of the data is no default."""
    measured = measure(distil(400, reward_weight="auto")[0])
    record_property("default", measured)
    print(f"auto, share {Student().reward_share}:", measured)
    assert measured["off"] < 0.05, measured
    assert measured["out_of_bounds"] == 0, measured


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.001, 1000.0])
def test_the_automatic_weight_does_not_see_the_scale_of_the_rewards(
    distil: Distil, returns: ReturnToGo, tmp_path: Path, scale: float
) -> None:
    """Both with normalised returns and on the raw scale: the same return model, reward gradient and samples."""
    scaled = train_return_model(tmp_path, scale)
    probe = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(
        scaled.row(torch.zeros(200, 1), probe), returns.row(torch.zeros(200, 1), probe), rtol=0.02, atol=0.02
    )

    options = {"steps": 80, "reward_weight": "auto", "reward_share": 0.15}
    expected, reference = distil(**options)
    data, reward = reference.reward_weight.gradients.tolist()[:2]
    for normalize, unit in ((True, 1.0), (False, scaled.std)):
        sample, objective = distil(**options, critic=scaled, normalize_returns=normalize)
        assert objective.reward_weight.gradients[0].item() == pytest.approx(data, rel=0.02)
        assert objective.reward_weight.gradients[1].item() / unit == pytest.approx(reward, rel=0.05)
        assert (sample - expected).norm(dim=2).mean() < 0.05
