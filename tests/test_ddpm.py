"""The DDPM teacher's schedule, loss and clean estimate, and a trained one on two modes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import gaussian
import pytest
import test_two_modes as toy
import torch
from accelerate import Accelerator
from gaussian import MU, S0
from torch import Tensor

from ractd.diffusion.ddpm import CleanEstimate, noise_levels, noise_loss, sampling_levels, scales
from ractd.diffusion.samplers import SAMPLERS
from ractd.diffusion.settings import DDPM
from ractd.methods.ractd_ddpm import NoiseObjective
from ractd.methods.ractd_settings import Teacher
from ractd.networks.mlp import MLP
from ractd.settings import Optimization
from ractd.training.loop import averaged_copy, objective_stage, run_stage
from ractd.training.metrics import Metrics

NO_CONDITION = torch.zeros(1, 1)


@pytest.mark.parametrize("betas", ["cosine", "linear"])
@pytest.mark.parametrize("T", [1, 5, 100, 1000])
def test_levels_rise_from_clean_data_to_noise(betas: Any, T: int) -> None:
    sigma = noise_levels(DDPM(T, betas))
    assert len(sigma) == T + 1
    assert sigma[0] == 0
    assert (sigma.diff() > 0).all()
    assert sigma.isfinite().all()
    signal, noise = scales(sigma)
    torch.testing.assert_close(signal**2 + noise**2, torch.ones(T + 1, dtype=torch.float64))
    if T >= 100:
        assert signal[-1] < 0.01, "nothing of the data is left at the top"


def test_the_linear_schedule_at_a_thousand_levels_is_the_papers() -> None:
    """beta from 0.0001 to 0.02 (Ho et al., section 4)."""
    expected = math.prod(1 - (1e-4 + (0.02 - 1e-4) * i / 999) for i in range(1000))
    sigma = float(noise_levels(DDPM(1000, "linear"))[-1])
    assert 1 / (1 + sigma**2) == pytest.approx(expected, rel=1e-9)


def test_sampling_levels_go_from_the_top_to_clean_data() -> None:
    sigma = noise_levels(DDPM(10))
    torch.testing.assert_close(sampling_levels(DDPM(10), 10), sigma.flip(0))
    torch.testing.assert_close(sampling_levels(DDPM(10), 5), sigma[[10, 8, 6, 4, 2, 0]])
    torch.testing.assert_close(sampling_levels(DDPM(10), 1), sigma[[10, 0]])
    for steps in range(1, 11):
        assert (sampling_levels(DDPM(10), steps).diff() < 0).all(), "no level twice"


def test_the_clean_estimate_undoes_the_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, z = torch.randn(2, 50, 3, 2, generator=generator, dtype=torch.float64)
    sigma = noise_levels(DDPM(50))[1:]
    signal, noise = (scale[:, None, None] for scale in scales(sigma))
    estimate = CleanEstimate(lambda x, t, condition: z, DDPM(clip=math.inf))(
        signal * x0 + noise * z, sigma, NO_CONDITION
    )
    torch.testing.assert_close(estimate, x0, rtol=1e-7, atol=1e-7)
    clipped = CleanEstimate(lambda x, t, condition: z, DDPM(clip=0.5))(signal * x0 + noise * z, sigma, NO_CONDITION)
    torch.testing.assert_close(clipped, x0.clamp(-0.5, 0.5), rtol=1e-7, atol=1e-7)


def scaled_epsilon(scale: float, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """The noise that is best for a Gaussian, times a factor."""
    return scale * gaussian.epsilon(x, t, condition)


def test_the_exact_noise_has_the_smallest_loss() -> None:
    """Var(z | x_t) = s0^2 / (s0^2 + sigma^2) on N(mu, s0^2): what is left for the exact epsilon, and less than for others."""
    generator, n = torch.Generator().manual_seed(0), 40_000
    for sigma in (0.1, 1.0, 10.0):
        x0 = MU + S0 * torch.randn(n, 1, 2, generator=generator, dtype=torch.float64)
        z = torch.randn(n, 1, 2, generator=generator, dtype=torch.float64)
        t = torch.full((n,), sigma, dtype=torch.float64)
        losses = {
            scale: noise_loss(partial(scaled_epsilon, scale), x0, z, t, NO_CONDITION).mean()
            for scale in (0.9, 1.0, 1.1)
        }
        assert losses[1.0].item() == pytest.approx(S0**2 / (S0**2 + sigma**2), rel=0.03)
        if sigma > 0.5:
            assert losses[1.0] < min(losses[0.9], losses[1.1])


def test_the_objective_by_hand() -> None:
    ddpm = DDPM(20)
    torch.manual_seed(0)
    network = MLP(width=16, blocks=1, embed_dim=8).build((1, 2), 1, False)
    torch.nn.init.normal_(network.output.weight, std=0.3)
    objective = NoiseObjective(network, toy.SEQUENCE, toy.SAMPLES_OF_DATA, Teacher(ddpm=ddpm))
    draws = objective.draw(torch.Generator().manual_seed(0), Optimization(1, batch_size=4096))
    assert [int(draws["level"].min()), int(draws["level"].max())] == [1, 20]
    assert (draws["level"].bincount(minlength=21)[1:] > 4096 / 20 / 2).all(), "all levels alike"

    terms = objective(draws)
    x0 = toy.SAMPLES_OF_DATA.gather(draws)[1]
    sigma = noise_levels(ddpm).float()[draws["level"]][:, None, None]
    x_t = (x0 + sigma * draws["noise"]) / (1 + sigma**2).sqrt()
    error = draws["noise"] - network(x_t, sigma.flatten(), torch.zeros(4096, 1))
    assert terms["loss"].item() == pytest.approx(error.square().mean().item(), rel=1e-5)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    torch.manual_seed(0)
    network = toy.NETWORK.build((1, 2), 1, False)
    average = averaged_copy(network)
    objective = NoiseObjective(network, toy.SEQUENCE, toy.SAMPLES_OF_DATA, Teacher(ddpm=DDPM(50)))
    optimization = Optimization(1000, batch_size=256, learning_rate=2e-3, warmup_steps=50, ema=0.99)
    directory = tmp_path_factory.mktemp("ddpm")
    stage = objective_stage("teacher", objective, average, optimization, 0, directory, math.inf)
    run_stage(stage, Accelerator(cpu=True), Metrics(None))
    return average


@pytest.mark.parametrize(("name", "steps"), [("ddpm", 50), ("ddpm", 20), ("ddim", 50), ("ddim", 20)])
def test_a_trained_one_keeps_both_modes_in_their_shares(
    teacher: torch.nn.Module, name: str, steps: int, record_property: Any
) -> None:
    sampler = SAMPLERS["DDPM teacher"][name]
    noise: Tensor = torch.randn(sampler.draws(steps), toy.SAMPLES, 1, 2, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        model = CleanEstimate(teacher, DDPM(50))
        x = sampler.sample(model, noise, torch.zeros(toy.SAMPLES, 1), DDPM(50), steps)
    measured = toy.measure(x)
    record_property(name, measured)
    print(name, steps, measured)
    assert measured["better"] == pytest.approx(toy.SHARE, abs=0.06), measured
    assert measured["off"] < 0.05, measured
