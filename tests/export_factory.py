"""Small policies with random weights and shifted units, to export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ractd.data import OfflineDataset
from ractd.data.dataset import describe
from ractd.diffusion.samplers import SAMPLERS
from ractd.diffusion.settings import DDPM
from ractd.export import export_policy
from ractd.export.exporter import Exported
from ractd.export.graph import batch_first
from ractd.models import ReturnNetwork, build_network
from ractd.models.normalizer import Normalizer
from ractd.networks import Network
from ractd.networks.mlp import MLP
from ractd.networks.unet import UNet
from ractd.policy import Policy, PolicySpec
from ractd_runtime import Policy as Deployed

OBSERVATIONS, ACTIONS = 3, 2
TINY_MLP, TINY_UNET = MLP(width=16, blocks=2, embed_dim=8), UNet(down_dims=(8, 16), embed_dim=8, groups=4)


def logs(rows: int = 400) -> OfflineDataset:
    """Random data in units of its own, episodes of 40 steps."""
    rng = np.random.default_rng(0)
    timeouts = np.zeros(rows, np.bool_)
    timeouts[39::40] = True
    return OfflineDataset(
        "logs",
        rng.normal([1.0, -2.0, 0.5], [0.5, 2.0, 1.5], (rows, OBSERVATIONS)),
        rng.uniform([-2.0, 0.0], [3.0, 0.5], (rows, ACTIONS)),
        rng.normal(size=rows),
        np.zeros(rows, np.bool_),
        timeouts,
    )


def make_policy(
    network: Network = TINY_MLP,
    *,
    jumps: bool = True,
    steps: int = 1,
    candidates: int = 1,
    sampler: str | None = None,
    ddpm: DDPM | None = None,
    return_members: int = 1,
    history: int = 1,
    horizon: int = 4,
    **spec: Any,
) -> Policy:
    """A policy whose every weight matters: nothing is zero or one, as it is before training."""
    torch.manual_seed(0)
    layers = (8, 16)
    denoiser = build_network(network, horizon, ACTIONS, history * OBSERVATIONS, jumps)
    returns = ReturnNetwork(OBSERVATIONS, ACTIONS, layers, return_members)
    for parameter in (*denoiser.parameters(), *returns.parameters()):
        torch.nn.init.normal_(parameter, std=0.3)
    data, kind = logs(), "student" if jumps else "teacher" if ddpm is None else "DDPM teacher"
    contents: dict[str, Any] = {
        "observation_dim": OBSERVATIONS,
        "action_dim": ACTIONS,
        "horizon": horizon,
        "history": history,
        "network": network,
        "jumps": jumps,
        "sampler": sampler or next(iter(SAMPLERS[kind])),  # type: ignore[index]
        "ddpm": ddpm,
        "return_members": return_members,
        "steps": steps,
        "candidates": candidates,
        "return_layers": layers,
        "return_mean": 100.0,
        "return_std": 25.0,
        "provenance": {"dataset": describe(data)},
    }
    return Policy(PolicySpec(**contents | spec), denoiser, returns, Normalizer.of(data.statistics()))


def observations(policy: Policy, batch: int, seed: int = 0) -> torch.Tensor:
    """Observations [B, h, O] in the data's units."""
    shape = (batch, policy.spec.history, policy.spec.observation_dim)
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator)
    return policy.normalizer.observation_mean + policy.normalizer.observation_std * normal


def held(policy: Policy, value: float = 0.04) -> Policy:
    """The policy with a constant second action."""
    policy.normalizer.action_low[1] = policy.normalizer.action_high[1] = value
    return policy


def limited(policy: Policy) -> Policy:
    """The policy with limits of its first observation, as one of data with outliers has them."""
    low, high = torch.full((OBSERVATIONS,), -3e38), torch.full((OBSERVATIONS,), 3e38)
    low[0], high[0] = -0.5, 2.5
    policy.normalizer.limit(low, high)
    return policy


def exported(policy: Policy, directory: Path, **options: Any) -> Exported:
    """Save a policy and export it to `directory / "out"`."""
    return export_policy(policy.save(directory / "policy"), directory / "out", **options)


def assert_equal(policy: Policy, deployed: Deployed, limit: float = 1e-5) -> None:
    """Same observations and noise, same actions, at several batch sizes."""
    policy.reset(1)
    for batch in (1, 2, 7):
        seen = observations(policy, batch, seed=batch)
        noise = policy.draw_noise(batch)
        mine = deployed.sample(seen.numpy(), batch_first(noise, policy.spec.candidates).numpy())
        with torch.inference_mode():
            np.testing.assert_allclose(mine, policy.sample(seen, noise).numpy(), rtol=0, atol=limit)
