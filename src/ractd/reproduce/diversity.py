"""How many different things a policy does at one state (the paper's Appendix D, Table 12, made quantitative)."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ractd.data import OfflineDataset
from ractd.policy import Policy
from ractd.reproduce.lines import Floats
from ractd.training.results import samples_of

STATES = 128
"""Logged states at which policies are sampled."""
DRAWS = 64
"""Sequences of each policy at each of them."""
NEIGHBOURS = 5
"""The k of coverage, as its authors chose it."""
AT_ONCE = 1024
"""Sequences that go through a network together."""


@functools.lru_cache(maxsize=4)
@torch.inference_mode()
def sequences(directory: Path, dataset: OfflineDataset, state_seed: int, noise_seed: int) -> Tensor:
    """Return what a policy would do, [STATES, DRAWS, c·D]: action sequences within the bounds, or a planner's states, scaled."""
    policy = Policy.load(directory).reset(noise_seed)
    samples = samples_of(policy, dataset)
    condition, _ = samples.gather(samples.draw(STATES, torch.Generator().manual_seed(state_seed)))
    parts = [
        policy.decode(policy.sequence(part, policy.draw_noise(len(part))), part)
        for part in condition.repeat_interleave(DRAWS, 0).split(AT_ONCE)
    ]
    return torch.cat(parts).clamp(-1, 1).unflatten(0, (STATES, DRAWS)).flatten(2)


def spread(x: Tensor) -> Floats:
    """Return the standard deviation over samples, mean over entries, at each state: [S, N, K] -> [S]."""
    return np.asarray(x.std(dim=1).mean(dim=1).double())


def kept(teacher: Tensor, x: Tensor) -> Floats:
    """Return at each state the share of the teacher's samples near which x has one: both [S, N, K] -> [S] in 0 .. 1.

    Near is within the distance to the sample's k-th nearest fellow. This is coverage (Naeem et al., 2020, "Reliable fidelity and
    diversity metrics for generative models", eq. 4): where a policy leaves out one of the teacher's modes, that mode's
    samples have none near them. Another draw of the teacher itself has about `1 - 2^-k`.
    """
    fellows = torch.cdist(teacher, teacher)
    radius = fellows.kthvalue(NEIGHBOURS + 1, dim=2).values  # the nearest is the sample itself
    nearest = torch.cdist(teacher, x).amin(dim=2)
    return np.asarray((nearest <= radius).double().mean(dim=1))
