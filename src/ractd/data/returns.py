"""What a row's actions led to: discounted returns-to-go, n-step sums, and where a value may be asked for after them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ractd.data.dataset import Bools, OfflineDataset
from ractd.data.ranges import BLOCK_ROWS, Floats
from ractd.errors import RactdError

PAPERS_PENALTY = -100.0
"""Of an early termination (paper, Appendix B.2), for rewards of 1 to 10 a step."""


def return_to_go(dataset: OfflineDataset, gamma: float, termination_penalty: float = 0.0) -> Floats:
    """Return the discounted return from each row to its episode's end, float32 [N]: `G_n = r_n + gamma G_(n+1)`.

    `termination_penalty` is added to the last reward of episodes that end by a failure, and of no others (paper, B.2).
    Sums are float64. Raises RactdError unless gamma is in [0, 1] and the penalty is finite.
    """
    _check(gamma, termination_penalty)
    rewards, out = _with_penalties(dataset, termination_penalty), np.empty_like(dataset.rewards)
    ended = np.zeros(dataset.num_transitions, np.bool_)
    ended[dataset.episode_ends - 1] = True
    following = 0.0
    for stop in range(dataset.num_transitions, 0, -BLOCK_ROWS):
        rows, backwards = slice(max(0, stop - BLOCK_ROWS), stop), []
        for reward, last in zip(reversed(rewards[rows].tolist()), reversed(ended[rows].tolist()), strict=True):
            following = reward if last else reward + gamma * following
            backwards.append(following)
        out[rows] = backwards[::-1]
    return out


def _with_penalties(dataset: OfflineDataset, termination_penalty: float) -> NDArray[np.float64]:
    rewards = dataset.rewards.astype(np.float64)
    rewards[dataset.episode_ends[dataset.ends.are("failure")] - 1] += termination_penalty
    return rewards


def _check(gamma: float, termination_penalty: float) -> None:
    if not 0 <= gamma <= 1:
        raise RactdError(f"gamma is {gamma}, expected a discount in [0, 1]")
    if not np.isfinite(termination_penalty):
        raise RactdError(f"termination penalty is {termination_penalty}, expected a finite number (0 switches it off)")


def resolved_penalty(dataset: OfflineDataset, asked: float | None) -> float:
    """Return the penalty of a failure: as asked for, or the paper's -100 at the scale of the data's rewards.

    The paper's robots are paid 1 to 10 a step, in the mean of the rewards' magnitudes, so that a failure costs what 10 to 100
    steps pay. Where rewards are larger or smaller, the penalty is the nearest to -100 that still does.
    """
    if asked is not None:
        return asked
    a_step = float(np.abs(dataset.rewards).mean(dtype=np.float64))
    return float(f"{np.clip(PAPERS_PENALTY, -100 * a_step, -10 * a_step):.3g}")


def describe_ends(dataset: OfflineDataset, asked: float | None) -> str:
    """Return in a sentence how episodes end, who says so, and what a failure costs: see `resolved_penalty`."""
    penalty = resolved_penalty(dataset, asked)
    spread = float(dataset.episode_returns().std())
    share = f", {abs(penalty) / spread:.2g} of the returns' standard deviation" if spread and penalty else ""
    how = {
        "failure": f"by a failure: {penalty:+g} at each{share}" if penalty else "by a failure: no penalty",
        "success": "by a success: no penalty",
        "unclear": "by a terminal that may be either: no penalty",
    }
    parts = []
    for kind, count in dataset.ends.counts.items():
        episodes, verb, are = (f"{count:,} episodes", "end", "are") if count > 1 else ("1 episode", "ends", "is")
        parts.append(f"{episodes} {are} cut" if kind == "cut" else f"{episodes} {verb} {how[kind]}")
    return "; ".join(parts) + (f" ({dataset.ends.source})" if dataset.ends.source else "")


@dataclass(frozen=True)
class NStep:
    """Each row's next steps as one (all arrays [N]): `rewards + discounts * value(next observation)`."""

    rewards: Floats
    """Sum of the discounted rewards of the steps."""
    discounts: Floats
    """gamma to the power of the steps, what the value after them counts: 0 where the episode ended and nothing came."""
    steps: NDArray[np.int32]
    """How many steps these are, 0 where `known` is False."""
    known: Bools
    """False where nothing is known: the last row of a cut episode without a final observation."""


def n_step(dataset: OfflineDataset, n: int, gamma: float, termination_penalty: float = 0.0) -> NStep:
    """Return the sums of each row's next n rewards, fewer towards an episode's end, and what a value after them counts.

    An end by the environment has no value after it. A cut's is that of its final observation. Without one the steps end before the
    cut, at the last observation that was logged: no value is taken of an observation that nobody made. Sums are float64.
    Raises RactdError unless n is at least 1 and for what `return_to_go` does.
    """
    _check(gamma, termination_penalty)
    if n < 1:
        raise RactdError(f"n is {n}, expected at least 1 step")
    lengths, cut = dataset.episode_lengths, dataset.ends.are("cut")
    unknown = cut & ~dataset.final_observation_known
    left = np.repeat(dataset.episode_ends, lengths) - np.arange(dataset.num_transitions)  # steps to the episode's end
    steps = np.minimum(n, left - np.repeat(unknown, lengths))
    rewards = _with_penalties(dataset, termination_penalty)
    sums = np.zeros(dataset.num_transitions)
    for k in range(min(n, int(lengths.max()))):
        rows = np.flatnonzero(steps > k)
        sums[rows] += gamma**k * rewards[rows + k]
    ended = (steps == left) & np.repeat(~cut, lengths)
    return NStep(
        rewards=sums.astype(np.float32),
        discounts=np.where(ended | (steps == 0), 0.0, gamma**steps).astype(np.float32),
        steps=steps.astype(np.int32),
        known=steps > 0,
    )
