"""What a few seeds say: interquartile means, performance profiles (both of Agarwal et al., 2021) and Student's t intervals.

Scores are arrays `[seeds, datasets]` in a unit that is the same for all datasets, e.g. D4RL's normalised score. The extra
`sweeps` has rliable and SciPy, which compute all of it.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.scores import standard_error

Array = NDArray[np.float64]

LEVEL = 0.95
"""Of all intervals, two-sided."""
RESAMPLES = 2_000
FEWEST_SEEDS = 3
"""Below these no interval over seeds is shown: two say next to nothing of how far others lie apart."""


def installed() -> bool:
    """Return whether the extra `sweeps` is installed, without importing it."""
    return importlib.util.find_spec("rliable") is not None


def interquartile_means(scores: Mapping[Any, Array]) -> dict[Any, tuple[float, float, float]]:
    """Return the mean of the middle half of each method's scores, and the bounds of its interval.

    The bounds are percentiles of a stratified bootstrap over seeds, NaN below `FEWEST_SEEDS`. Of three seeds they hold the truth
    about four times in five: they confirm nothing.
    """
    from rliable import metrics

    several = {name: values for name, values in scores.items() if len(values) >= FEWEST_SEEDS}
    _, bounds = _estimates(several, lambda x: np.array([metrics.aggregate_iqm(x)]))
    found = {}
    for name, values in scores.items():
        (low,), (high,) = bounds.get(name, np.full((2, 1), np.nan))
        found[name] = float(metrics.aggregate_iqm(values)), float(low), float(high)
    return found


def performance_profiles(scores: Mapping[str, Array], thresholds: Array) -> dict[str, dict[str, list[float]]]:
    """Return the `share` of each method's runs that score above each threshold [n], with the bounds `low` and `high`.

    The bounds of a single seed are its own shares.
    """
    # As rliable's own score distribution, without its loop over the thresholds.
    shares, bounds = _estimates(scores, lambda x: (x[..., None] > thresholds).mean(axis=(0, 1)))
    return {
        name: {"share": shares[name].tolist(), "low": bounds[name][0].tolist(), "high": bounds[name][1].tolist()}
        for name in scores
    }


def t_interval(values: Array) -> tuple[float, float]:
    """Return the bounds of Student's t interval of the mean of values [n], n at least 2."""
    from scipy.special import stdtrit

    half = stdtrit(len(values) - 1, (1 + LEVEL) / 2) * standard_error(values)
    return float(values.mean() - half), float(values.mean() + half)


def _estimates(scores: Mapping[Any, Array], statistic: Callable[[Array], Array]) -> tuple[dict[Any, Array], Any]:
    """Return a statistic of each method's scores, and the bounds [2, ...] of its bootstrap interval."""
    from rliable import library

    # rliable draws from numpy's global generator, whatever generator it is given.
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # arch's, of the argument that rliable passes
            return library.get_interval_estimates(  # type: ignore[no-any-return]
                dict(scores), statistic, reps=RESAMPLES, confidence_interval_size=LEVEL
            )
    finally:
        np.random.set_state(state)  # noqa: NPY002
