"""What scales a dataset: ranges, means and spreads, whatever a few broken rows say."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ractd.errors import RactdError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK_ROWS = 65_536
"""Rows that blockwise passes look at together: small next to any dataset that needs care."""
FAR = 20.0
"""A value is an outlier where it lies outside the bulk by more than so many of the bulk's widths. Tails of real data end earlier:
in D4RL's Gym sets within one width, of log-normal variables with sigma = 2 within 20 in 99 of 100 draws."""
FEW = 10
"""The bulk leaves out the so many smallest and largest values: of what is rarer nothing can be learnt anyway. Of fewer than
1,000 rows it leaves out 1% at either end, of fewer than 100 none; of more than 100,000 it leaves out 0.01%."""
CONSTANT = 1e-5
"""A spread below this share of the magnitude is none: 80 times float32's resolution, and less than a sensor resolves."""


@dataclass(frozen=True)
class Statistics:
    """What scales a dataset of N rows: float32 arrays `[O]` or `[A]`, one entry a dimension, and how many values it left out.

    `observation_mean` and `observation_std` are those of the values from `observation_low` to `observation_high`; a dimension
    that is constant, or as good as that, has std 1. A constant action c has the range c .. c. Lows and highs are the smallest and
    the largest values, outliers (see `ranges`) left out; `observation_outliers` and `action_outliers` count them, int64.
    """

    observation_mean: Floats
    observation_std: Floats
    action_low: Floats
    action_high: Floats
    observation_low: Floats
    observation_high: Floats
    observation_outliers: Ints
    action_outliers: Ints


def statistics_of(observations: Floats, actions: Floats) -> Statistics:
    """Return what scales `observations [N, O]` and `actions [N, A]`, computed blockwise in float64."""
    observation_low, observation_high, observation_outliers = ranges(observations)
    action_low, action_high, action_outliers = ranges(actions)
    mean, std = mean_and_std(observations)
    for i in np.flatnonzero(observation_outliers):
        column = observations[:, i : i + 1]
        kept = (column >= observation_low[i]) & (column <= observation_high[i])
        mean[i : i + 1], std[i : i + 1] = mean_and_std(column[kept][:, None])
    # Divided by its own spread, the rounding of a constant would look like a signal.
    std[no_spread(mean, std)] = 1
    action_low, action_high = constant_held(action_low, action_high)
    return Statistics(
        observation_mean=mean.astype(np.float32),
        observation_std=std.astype(np.float32),
        action_low=action_low,
        action_high=action_high,
        observation_low=observation_low,
        observation_high=observation_high,
        observation_outliers=observation_outliers,
        action_outliers=action_outliers,
    )


def ranges(values: Floats) -> tuple[Floats, Floats, Ints]:
    """Return each dimension's smallest and largest value of `values [N, D]` without outliers, and how many those are, each `[D]`.

    An outlier lies far outside the bulk: all values but the few smallest and largest, see `FAR` and `FEW`. A bulk of one value has
    no width: there the unit is its magnitude, at least 1, and what two rows have is no outlier, since a switch is seldom on.
    """
    count = len(values)
    few = max(min(FEW, count // 100), count // 10_000)
    low, high = values.min(axis=0), values.max(axis=0)
    outliers = np.zeros(values.shape[1], np.int64)
    if not few:
        return low, high, outliers
    for i in range(values.shape[1]):
        column = np.partition(values[:, i], (few, count - 1 - few))
        first, last = float(column[few]), float(column[count - 1 - few])
        width, magnitude = last - first, max(abs(first), abs(last))
        constant = width <= CONSTANT * magnitude
        reach = FAR * (max(1.0, magnitude) if constant else width)
        if first - reach <= float(low[i]) and float(high[i]) <= last + reach:
            continue
        tails = np.concatenate([column[:few], column[count - few :]])
        value, times = np.unique(tails.astype(np.float64), return_counts=True)
        near = (value >= first - reach) & (value <= last + reach)
        kept = value[near | (constant & (times > 1))]
        low[i], high[i] = min(kept.min(initial=first), first), max(kept.max(initial=last), last)
        outliers[i] = int(((tails < low[i]) | (tails > high[i])).sum())
    return low, high, outliers


def per_dimension(action_range: tuple[float, ...], dims: int) -> Floats:
    """Return a range of actions, LOW HIGH once or for each dimension, as `[dims, 2]`; raises RactdError for another number."""
    if len(action_range) not in (2, 2 * dims):
        raise RactdError(
            f"--action-range has {len(action_range)} numbers, expected 2 (LOW HIGH for every dimension) or {2 * dims} "
            f"(LOW HIGH for each of the {dims} dimensions)"
        )
    return np.broadcast_to(np.array(action_range, np.float32).reshape(-1, 2), (dims, 2))


def within(statistics: Statistics, action_range: tuple[float, ...] | None) -> Statistics:
    """Return statistics with the robot's own range of actions, see `per_dimension`; None keeps the data's.

    An action that is constant in the data stays so. Raises RactdError for a number of bounds that doesn't fit.
    """
    if action_range is None:
        return statistics
    low, high = per_dimension(action_range, len(statistics.action_low)).T
    held = statistics.action_low == statistics.action_high
    constant = np.clip(statistics.action_low, low, high)
    return replace(statistics, action_low=np.where(held, constant, low), action_high=np.where(held, constant, high))


def constant_held(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return ranges with one value where there is hardly more: what is left of the range is rounding."""
    constant = high - low <= CONSTANT * np.maximum(np.abs(low), np.abs(high))
    middle = low + (high - low) / 2
    return np.where(constant, middle, low), np.where(constant, middle, high)


def no_spread(mean: Doubles, std: Doubles) -> NDArray[np.bool_]:
    """Tell which observations are constant, or as good as that, `[O]`: near zero the unit is 1."""
    spread: NDArray[np.bool_] = std <= CONSTANT * np.maximum(1, np.abs(mean))
    return spread


def mean_and_std(values: Floats) -> tuple[Doubles, Doubles]:
    """Return mean and standard deviation of each dimension of `values [N, D]`, computed blockwise."""
    blocks = [values[start : start + BLOCK_ROWS] for start in range(0, len(values), BLOCK_ROWS)]
    mean = sum((block.sum(axis=0, dtype=np.float64) for block in blocks), np.zeros(values.shape[1])) / len(values)
    # Two passes: the one-pass formula loses every digit of a small spread around a large mean.
    squares = sum(((block - mean) ** 2).sum(axis=0) for block in blocks)
    return np.asarray(mean), np.sqrt(squares / len(values))
