"""How many different things a policy does at one state (the paper's Appendix D, Table 12, made quantitative)."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ractd.data import OfflineDataset
from ractd.errors import RactdError
from ractd.policies import Policy
from ractd.reproduce.lines import Floats

STATES = 64
"""Logged states at which policies are sampled."""
DRAWS = 64
"""Sequences of each policy at each of them."""
CELLS = 8
"""Of the teacher's samples at a state."""
AT_ONCE = 1024
"""Sequences that go through a network together."""


@functools.lru_cache(maxsize=4)
@torch.inference_mode()
def sequences(directory: Path, dataset: OfflineDataset, state_seed: int, noise_seed: int) -> Tensor:
    """Return what a policy would do, [STATES, DRAWS, c·D]: action sequences within the bounds, or a planner's states, scaled."""
    policy = Policy.load(directory).reset(noise_seed)
    samples = policy.sequence.samples(dataset)
    condition, _ = samples.gather(samples.draw(STATES, torch.Generator().manual_seed(state_seed)))
    parts = [
        policy.sequence.decode(policy.make_sequence(part, policy.draw_noise(len(part))), part)
        for part in condition.repeat_interleave(DRAWS, 0).split(AT_ONCE)
    ]
    together: Tensor = torch.cat(parts).clamp(-1, 1).unflatten(0, (STATES, DRAWS)).flatten(2)
    return together


def spread(x: Tensor) -> Floats:
    """Return the standard deviation over samples, mean over entries, at each state: [S, N, K] -> [S]."""
    return np.asarray(x.std(dim=1).mean(dim=1).double())


def kept(teacher: Tensor, x: Tensor) -> Floats:
    """Return at each state the share of the teacher's cells that x comes to: both [S, N, K] -> [S] in 1/CELLS .. 1.

    Cells are k-means clusters of the teacher's samples at the state; a sample is in the cell of the nearest centre, as the bins of
    Richardson and Weiss (2018, "On GANs and GMMs") are. Always the same action gives 1/CELLS; another draw of the teacher nearly 1.
    Raises `RactdError` without scipy.
    """
    try:
        from scipy.cluster.vq import kmeans2, vq
    except ModuleNotFoundError:
        raise RactdError('diversity is measured with scipy: pip install "ractd[reproduce]"') from None
    shares = []
    for state, (own, other) in enumerate(zip(teacher.double().numpy(), x.double().numpy(), strict=True)):
        centres, _ = kmeans2(own, CELLS, minit="++", rng=np.random.default_rng(state))
        reached, _ = vq(other, centres)
        shares.append(len(np.unique(reached)) / CELLS)
    return np.array(shares)
