"""What single tables measure beside scores and times: diversity (Table 12), modes of returns (Figure 3), training (Figure 4).

Each of the functions that end this module adds its quantities to what one seed gave.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ractd.data import OfflineDataset
from ractd.policies import Policy
from ractd.reproduce.lines import Measured
from ractd.reproduce.runs import BASE, DatasetRuns, TableRun
from ractd.results.curves import read_curves
from ractd.results.statistics import Array

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


def spread(x: Tensor) -> Array:
    """Return the standard deviation over samples, mean over entries, at each state: [S, N, K] -> [S]."""
    return np.asarray(x.std(dim=1).mean(dim=1).double())


def kept(teacher: Tensor, x: Tensor) -> Array:
    """Return at each state the share of the teacher's cells that x comes to: both [S, N, K] -> [S] in 1/CELLS .. 1.

    Cells are k-means clusters of the teacher's samples at the state; a sample is in the cell of the nearest centre, as the bins of
    Richardson and Weiss (2018, "On GANs and GMMs") are. Always the same action gives 1/CELLS; another draw of the teacher nearly 1.
    """
    from scipy.cluster.vq import kmeans2, vq

    shares = []
    for state, (own, other) in enumerate(zip(teacher.double().numpy(), x.double().numpy(), strict=True)):
        centres, _ = kmeans2(own, CELLS, minit="++", rng=np.random.default_rng(state))
        reached, _ = vq(other, centres)
        shares.append(len(np.unique(reached)) / CELLS)
    return np.array(shares)


def better_mode(returns: Array) -> float:
    """Return the return that best splits returns [E] into two groups: least squares around each group's mean."""
    x = np.sort(returns)
    if x[0] == x[-1]:
        return float(x[-1])
    below = np.arange(1, len(x))
    total = np.cumsum(x)[:-1]
    between = (total / below - (x.sum() - total) / (len(x) - below)) ** 2 * below * (len(x) - below)
    cut = int(between.argmax())
    return float((x[cut] + x[cut + 1]) / 2)


def with_diversity(measured: Measured, data: DatasetRuns, seed: int) -> Measured:
    """Add how diverse a policy is, beside the teacher of the seed's base run."""
    base = TableRun(data, seed, BASE)
    base.check()
    # Other noise than the reference's, so that the teacher's own line says what two draws have in common.
    x = sequences(data.folder / measured.run / "policy" / measured.policy, data.dataset, seed, 1)
    reference = sequences(base.directory / "policy" / "teacher", data.dataset, seed, 0)
    return replace(measured, samples=measured.samples | {"spread": spread(x), "kept": kept(reference, x)})


def with_better_mode(measured: Measured, data: DatasetRuns, seed: int) -> Measured:
    """Add which episodes are in the better of the two groups that the data's returns fall into."""
    split = better_mode(data.dataset.episode_returns().astype(np.float64))
    upper = (measured.samples["return"] > split).astype(np.float64)
    return replace(measured, samples=measured.samples | {"upper": upper})


def with_curve(measured: Measured, data: DatasetRuns, seed: int) -> Measured:
    """Add the evaluations during a student's training, and what its second half says."""
    metrics = read_curves(data.folder / measured.run / "metrics.jsonl", []).get(measured.policy, {})
    if "episode_return" not in metrics:
        return measured
    steps, returns = metrics["episode_return"].steps, metrics["episode_return"].values
    scores = data.score(returns)
    # A standard error scales as a difference of returns does.
    errors = data.score(returns + metrics["episode_return_se"].values) - scores
    late = scores[steps > steps.max(initial=0) / 2]
    samples = {"late": late, "swing": abs(late - late.mean())} if len(late) > 1 else {}
    curve = pd.DataFrame({"step": steps.astype(int), "score": scores, "score_se": errors})
    return replace(measured, samples=measured.samples | samples, curve=curve if len(curve) else None)
