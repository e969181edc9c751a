"""Small policies with random weights and shifted units, to export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts_factory import actions_of, policy_of, return_model, sampling_of

from ractd.data import OfflineDataset
from ractd.data.dataset import describe
from ractd.diffusion.settings import DDPM
from ractd.export import export_policy
from ractd.export.exporter import Exported
from ractd.export.graph import batch_first
from ractd.networks import Network
from ractd.networks.mlp import MLP
from ractd.networks.unet import UNet
from ractd.policies import Policy
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
        rng.normal([1.0, -2.0, 0.5], [0.5, 2.0, 1.5], (rows, OBSERVATIONS)).astype(np.float32),
        rng.uniform([-2.0, 0.0], [3.0, 0.5], (rows, ACTIONS)).astype(np.float32),
        rng.normal(size=rows).astype(np.float32),
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
    env_id: str | None = None,
    provenance: dict[str, Any] | None = None,
) -> Policy:
    """A policy whose every weight matters: nothing is zero or one, as it is before training."""
    torch.manual_seed(0)
    data, kind = logs(), "student" if jumps else "teacher" if ddpm is None else "DDPM teacher"
    sequence = actions_of(data, horizon, history)
    sampling = sampling_of(kind, sampler, steps, candidates, ddpm)  # type: ignore[arg-type]
    policy = policy_of(
        sequence, sampling, network, 0.3, env_id, provenance={"dataset": describe(data)} | (provenance or {})
    )
    if return_members:
        policy.critic = return_model(OBSERVATIONS, ACTIONS, (8, 16), return_members, 100.0, 25.0).requires_grad_(False)
        for parameter in policy.critic.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return policy


def observations(policy: Policy, batch: int, seed: int = 0) -> torch.Tensor:
    """Observations [B, h, O] in the data's units."""
    shape = (batch, policy.sequence.history, policy.sequence.observation_dim)
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator)
    normalizer = policy.sequence.normalizer
    return normalizer.observation_mean + normalizer.observation_std * normal


def held(policy: Policy, value: float = 0.04) -> Policy:
    """The policy with a constant second action."""
    normalizer = policy.sequence.normalizer
    normalizer.action_low[1] = normalizer.action_high[1] = value
    return policy


def limited(policy: Policy) -> Policy:
    """The policy with limits of its first observation, as one of data with outliers has them."""
    low, high = torch.full((OBSERVATIONS,), -3e38), torch.full((OBSERVATIONS,), 3e38)
    low[0], high[0] = -0.5, 2.5
    policy.sequence.normalizer.limit(low, high)
    return policy


def exported(policy: Policy, directory: Path, **options: Any) -> Exported:
    """Save a policy and export it to `directory / "out"`."""
    return export_policy(policy.save(directory / "policy"), directory / "out", **options)


def assert_equal(policy: Policy, deployed: Deployed, limit: float = 1e-5) -> None:
    """Same observations and noise, same actions, at several batch sizes."""
    policy.reset(1)
    for batch in (1, 2, 7):
        asked = observations(policy, batch, seed=batch)
        noise = policy.draw_noise(batch)
        mine = deployed.sample(asked.numpy(), batch_first(noise, policy.sampling.candidates).numpy())
        with torch.inference_mode():
            np.testing.assert_allclose(mine, policy.sample(asked, noise).numpy(), rtol=0, atol=limit)
