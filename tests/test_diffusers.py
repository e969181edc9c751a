"""Samplers against the schedulers of the `diffusers` package, on the same network, schedule and noise.

Where a scheduler's own schedule differs from ours, it is given ours: what is compared is the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from ractd.diffusion import samplers
from ractd.diffusion.ddpm import BETAS, CleanEstimate, noise_levels, sampling_levels
from ractd.diffusion.edm import Preconditioned, sigma_schedule
from ractd.diffusion.settings import DDPM, Diffusion
from ractd.networks.mlp import MLP

B, HORIZON, A = 8, 4, 2
BINS = 12


def seeded(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """Nothing trained, but nothing linear either: it answers to x, time and condition."""
    torch.manual_seed(0)
    network = MLP(width=32, blocks=2, embed_dim=16).build((HORIZON, A), 3, False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.requires_grad_(False)


CONDITION, X = seeded(B, 3, seed=1), 80 * seeded(B, HORIZON, A, seed=2)
SIGMAS = sigma_schedule(Diffusion(), BINS)


def with_levels(scheduler: Any, sigmas: Tensor) -> Any:
    """A scheduler that goes down our levels."""
    scheduler.set_timesteps(len(sigmas) - 1)
    scheduler.sigmas, scheduler.timesteps = sigmas, torch.arange(len(sigmas) - 1.0)
    scheduler.set_begin_index(0)
    return scheduler


def run(
    scheduler: Any, D: Callable[..., Tensor], x: Tensor, scale: Callable[[Tensor], Tensor], **options: Any
) -> Tensor:
    """Go down a scheduler's levels with a denoiser as a pipeline does; `scale(sigma)` is that of its x."""
    for i, step in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i]
        unscaled = x / scale(sigma)
        epsilon = (unscaled - D(unscaled, sigma.expand(B), CONDITION)) / sigma
        x = scheduler.step(epsilon, step, x, **options).prev_sample
    return x


def as_it_is(sigma: Tensor) -> Tensor:
    return torch.ones(())


def variance_preserving(sigma: Tensor) -> Tensor:
    return 1 / (1 + sigma**2).sqrt()


def test_the_schedule_is_karras_own() -> None:
    scheduler: Any = diffusers.EDMEulerScheduler(sigma_min=0.02, sigma_max=80.0, sigma_data=0.5, rho=7.0)
    scheduler.set_timesteps(80)
    torch.testing.assert_close(sigma_schedule(Diffusion(), 80), scheduler.sigmas[:-1])


def test_euler(network: torch.nn.Module) -> None:
    D = Preconditioned(network, Diffusion())
    expected = run(with_levels(diffusers.EulerDiscreteScheduler(), SIGMAS), D, X, as_it_is)
    torch.testing.assert_close(samplers.euler(D, X, SIGMAS, CONDITION), expected, rtol=1e-4, atol=1e-4)


def test_heun(network: torch.nn.Module) -> None:
    """Its levels are written twice, for it is called for each of the two slopes; the last step is the Euler scheduler's."""
    D = Preconditioned(network, Diffusion())
    x = run(with_levels(diffusers.HeunDiscreteScheduler(), SIGMAS[:-1].repeat_interleave(2)[1:]), D, X, as_it_is)
    expected = run(with_levels(diffusers.EulerDiscreteScheduler(), SIGMAS[-2:]), D, x, as_it_is)
    torch.testing.assert_close(samplers.heun(D, X, SIGMAS, CONDITION), expected, rtol=1e-4, atol=1e-4)


def test_euler_ancestral(network: torch.nn.Module) -> None:
    D = Preconditioned(network, Diffusion())
    scheduler = with_levels(diffusers.EulerAncestralDiscreteScheduler(), SIGMAS)
    expected = run(scheduler, D, X, as_it_is, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    noise = torch.stack([torch.randn(B, HORIZON, A, generator=generator) for _ in range(BINS - 1)])
    sampled = samplers.euler_ancestral(D, X, SIGMAS, noise, CONDITION)
    torch.testing.assert_close(sampled, expected, rtol=1e-4, atol=1e-4)
    assert (sampled - samplers.euler(D, X, SIGMAS, CONDITION)).abs().max() > 0.01, "the noise counts"


def test_dpmpp_2m(network: torch.nn.Module) -> None:
    """Its x is variance preserving; what it does by default for few steps is switched off."""
    D = Preconditioned(network, Diffusion())
    scheduler: Any = diffusers.DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=2, lower_order_final=False, final_sigmas_type="sigma_min"
    )
    with_levels(scheduler, SIGMAS)
    expected = run(scheduler, D, X * variance_preserving(SIGMAS[0]), variance_preserving)
    expected = expected / variance_preserving(SIGMAS[-1])
    sampled = samplers.dpmpp_2m(D, X, SIGMAS, CONDITION)
    torch.testing.assert_close(sampled, expected, rtol=1e-4, atol=1e-4)
    assert (sampled - samplers.euler(D, X, SIGMAS, CONDITION)).abs().max() > 0.01, "the second order counts"


# The DDPM teacher.


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cosine", {"beta_schedule": "squaredcos_cap_v2"}),
        ("linear", {"beta_schedule": "linear", "beta_start": 0.1 / 50, "beta_end": 20 / 50}),
    ],
)
def test_the_beta_schedules(name: str, options: dict[str, Any]) -> None:
    scheduler: Any = diffusers.DDPMScheduler(num_train_timesteps=50, **options)
    torch.testing.assert_close(BETAS[name](50).float(), scheduler.betas, rtol=1e-5, atol=1e-7)
    alpha_bar = 1 / (1 + noise_levels(DDPM(50, name)) ** 2)  # type: ignore[arg-type]
    torch.testing.assert_close(alpha_bar[1:].float(), scheduler.alphas_cumprod, rtol=1e-4, atol=1e-7)


def ddpm_run(scheduler: Any, network: torch.nn.Module, ddpm: DDPM, x: Tensor, **options: Any) -> Tensor:
    """Sample from a noise network as a pipeline does; the network is told the level by its noise-to-signal ratio."""
    sigma = noise_levels(ddpm).float()
    for step in scheduler.timesteps:
        epsilon = network(x, sigma[step + 1].expand(B), CONDITION)
        x = scheduler.step(epsilon, step, x, **options).prev_sample
    return x


def betas(ddpm: DDPM) -> Any:
    return np.asarray(BETAS[ddpm.betas](ddpm.timesteps), dtype=np.float64)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("clip", [1.0, float("inf")])
@pytest.mark.parametrize("steps", [30, 10, 7])
def test_ddpm(network: torch.nn.Module, schedule: str, clip: float, steps: int) -> None:
    """All levels and fewer, where 7 doesn't divide the 30."""
    ddpm = DDPM(30, schedule, clip)  # type: ignore[arg-type]
    scheduler: Any = diffusers.DDPMScheduler(
        num_train_timesteps=30, trained_betas=betas(ddpm), clip_sample=clip == 1, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(3)
    noise = torch.stack([torch.randn(B, HORIZON, A, generator=generator) for _ in range(steps)])
    generator.manual_seed(3)
    expected = ddpm_run(scheduler, network, ddpm, torch.randn(B, HORIZON, A, generator=generator), generator=generator)
    levels = sampling_levels(ddpm, steps).float()
    sampled = samplers.ddpm(CleanEstimate(network, ddpm), noise, levels, CONDITION)
    scale = float(expected.abs().max())
    torch.testing.assert_close(sampled / scale, expected / scale, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("clip", [1.0, float("inf")])
@pytest.mark.parametrize("steps", [30, 10])
def test_ddim(network: torch.nn.Module, schedule: str, clip: float, steps: int) -> None:
    """The noise is that of the clipped estimate; the scheduler goes to the level below by division, so steps divide T."""
    ddpm = DDPM(30, schedule, clip)  # type: ignore[arg-type]
    scheduler: Any = diffusers.DDIMScheduler(
        num_train_timesteps=30, trained_betas=betas(ddpm), clip_sample=clip == 1, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(steps)
    x = seeded(B, HORIZON, A, seed=4)
    expected = ddpm_run(scheduler, network, ddpm, x, use_clipped_model_output=True)
    levels = sampling_levels(ddpm, steps).float()
    sampled = samplers.ddim(CleanEstimate(network, ddpm), x, levels, CONDITION)
    scale = float(expected.abs().max())
    torch.testing.assert_close(sampled / scale, expected / scale, rtol=1e-3, atol=1e-4)
