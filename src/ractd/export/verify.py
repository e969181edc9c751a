"""Does the exported graph do what PyTorch does? On data and at random, at several batch sizes, and in the environment."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ractd.data import OfflineDataset
from ractd.envs.context import Context
from ractd.envs.evaluate import EvaluationResult, evaluate
from ractd.envs.vector import MakeVector
from ractd.errors import RactdError
from ractd.export.formats import Precision
from ractd.export.graph import batch_first
from ractd.policies import Policy

Floats = NDArray[np.float32]
Sample = Callable[[Floats, Floats], Floats]
"""The exported graph: observations [B, h, O] and noise [B, draws, N, c, A] -> actions [B, c, A]."""

BATCHES = (1, 3, 64)
EXACT = 1e-5
"""Largest difference in fp32, in the scaled units in which actions span [-1, 1], where rounding doesn't make more of it."""
ROUNDINGS = 4.0
"""Largest difference in fp32 as a multiple of what PyTorch itself is off the same policy in double precision: a planner's
actions follow from small differences of states, which magnify what single precision rounds. The graph rounds as well, in
another order."""
REDUCED: dict[Precision, float] = {"fp16": 5e-3, "int8": 5e-2}
"""Largest mean difference in reduced precision, in the same units."""
TIE = 1e-4
"""Candidates whose return estimates differ by less, in standard deviations of the returns, are equally good in fp32."""


@dataclass(frozen=True)
class Difference:
    """How far the graph is from PyTorch, in the scaled units in which actions span [-1, 1]."""

    largest: float
    mean: float
    limit: float
    """What the largest, or in reduced precision the mean, had to stay below."""
    compared: dict[str, list[int]]
    """Batch sizes by the kind of observations."""


def random_observations(policy: Policy, count: int, generator: torch.Generator) -> Tensor:
    """Return observations `[count, h, O]` three times as wide as the data: normal around its mean."""
    sequence, normalizer = policy.sequence, policy.sequence.normalizer
    shape = (count, sequence.history, sequence.observation_dim)
    return normalizer.observation_mean + 3 * normalizer.observation_std * torch.randn(shape, generator=generator)


def compare(policy: Policy, sample: Sample, dataset: OfflineDataset | None, precision: Precision) -> Difference:
    """Compare the graph with PyTorch on the dataset's and on random observations, with the same noise.

    Raises `RactdError` where they differ by more than the precision allows.
    """
    generator = torch.Generator().manual_seed(0)
    kinds: dict[str, Callable[[int], Tensor]] = {"random": lambda n: random_observations(policy, n, generator)}
    if dataset is not None:
        samples = policy.sequence.samples(dataset)
        kinds["dataset"] = lambda n: samples.observations(samples.draw(n, generator))
    policy.reset(0)
    largest, means, limits = 0.0, [], []
    for kind, draw in kinds.items():
        for batch in BATCHES:
            observations, noise = draw(batch), policy.draw_noise(batch)
            difference = differences(policy, sample, observations, noise, precision)
            largest, mean = max(largest, float(difference.max())), float(difference.mean())
            means.append(mean)
            what, found = ("by up to", float(difference.max())) if precision == "fp32" else ("on average by", mean)
            limit = REDUCED.get(precision, EXACT)
            if precision == "fp32" and found > limit:
                limit = max(limit, ROUNDINGS * rounding(policy, draw(BATCHES[-1]), policy.draw_noise(BATCHES[-1])))
            limits.append(limit)
            if not found <= limit:  # NaN included
                raise RactdError(
                    f"the exported graph differs from PyTorch {what} {found:.2g} on {kind} observations at batch {batch} "
                    f"(limit {limit:.2g}, where actions span [-1, 1]); nothing was written"
                )
    return Difference(largest, float(np.mean(means)), max(limits), {kind: list(BATCHES) for kind in kinds})


@torch.inference_mode()
def rounding(policy: Policy, observations: Tensor, noise: Tensor) -> float:
    """Return by how much the policy is off itself in double precision, at most, where actions span [-1, 1].

    Of every candidate, where it has several: which one is chosen is not a matter of rounding.
    """
    single, repeated = policy.configured(candidates=1), observations.repeat_interleave(policy.sampling.candidates, 0)
    with torch.inference_mode(False):
        double = copy.deepcopy(single).double()
    exact = double.sample(repeated.double(), noise.double())
    return float(((single.sample(repeated, noise) - exact).abs() / policy.sequence.normalizer.half_range).max())


@torch.inference_mode()
def differences(policy: Policy, sample: Sample, observations: Tensor, noise: Tensor, precision: Precision) -> Floats:
    """Return |graph - PyTorch| of every number, `[B, c, A]`, where actions span [-1, 1].

    Rounding decides between candidates that are as good as equal: a row counts from the nearest of those (in reduced
    precision, whose rounding is larger than any bound on a tie, from the nearest of all).
    """
    sequence, N = policy.sequence, policy.sampling.candidates
    half_range = sequence.normalizer.half_range
    exported = torch.from_numpy(sample(observations.numpy(), np.ascontiguousarray(batch_first(noise, N))))
    expected = policy.sample(observations, noise)
    if exported.shape != expected.shape:
        raise RactdError(f"the exported graph gives actions {list(exported.shape)}, expected {list(expected.shape)}")
    found = (exported - expected).abs() / half_range
    if N > 1 and policy.critic is not None:
        repeated = observations.repeat_interleave(N, 0)
        single, condition = policy.configured(candidates=1), sequence.condition(repeated)
        x = single.make_sequence(condition, noise)
        values = policy.critic.value(condition, sequence.decode(x, condition)).view(-1, N)
        worse = values < values.amax(1, keepdim=True) - TIE
        each = sequence.to_actions(x, repeated).unflatten(0, (-1, N))
        apart = (exported[:, None] - each).abs() / half_range
        distance = apart.flatten(2).amax(2)
        if precision == "fp32":
            distance = distance.masked_fill(worse, torch.inf)
        found = apart[torch.arange(len(apart)), distance.argmin(1)]
    return found.numpy()  # type: ignore[no-any-return]


class _Exported:
    def __init__(self, policy: Policy, sample: Sample) -> None:
        self.policy, self.sample, self.noise = policy, sample, policy.episode_noise()

    def in_episodes(self, observations: NDArray[np.float32], context: Context, /) -> Floats:
        noise = batch_first(self.noise.at(context.episodes, context.plan), self.policy.sampling.candidates)
        return self.sample(self.policy.observe(observations), np.ascontiguousarray(noise))


def evaluate_both(
    policy: Policy,
    sample: Sample,
    env_id: str,
    episodes: int,
    execute: int,
    progress: Callable[[int, int, int], None],
    make: MakeVector,
) -> tuple[EvaluationResult, EvaluationResult]:
    """Score PyTorch and the graph in the environment, with the same seeds and the same noise in each episode."""
    policy.reset(0)
    results = []
    for act in (policy.acting(), _Exported(policy, sample)):
        results.append(
            evaluate(
                act,
                env_id,
                episodes=episodes,
                execute=execute,
                history=policy.sequence.history,
                progress=progress,
                make=make,
            )
        )
    return results[0], results[1]
