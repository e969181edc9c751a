"""What a few seeds say, after Agarwal et al., 2021: interquartile means with stratified bootstrap intervals, performance profiles.

Scores are arrays `[runs, tasks]` in any unit that is the same for all tasks, e.g. D4RL's normalised score divided by 100. The
resampling is over runs, within each task. Computed by rliable, which the extra `sweeps` has.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.errors import RactdError

Array = NDArray[np.floating[Any]]

RESAMPLES = 2_000
FEWEST_SEEDS = 3
"""Below these no interval over seeds is shown: two say next to nothing of how far others lie apart."""


def installed() -> bool:
    """Return whether the extra `sweeps` is installed, without importing it."""
    return importlib.util.find_spec("rliable") is not None


def interquartile_mean(scores: Array) -> float:
    """Return the mean of the middle half of all scores `[runs, tasks]`."""
    _, metrics = _rliable()
    return float(metrics.aggregate_iqm(_checked(scores)))


def intervals(
    scores: Mapping[str, Array],
    statistic: Callable[[Array], float] = interquartile_mean,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return the lower and upper bound of a statistic of each method's scores `[runs, tasks]`.

    Raises `RactdError` for a method with fewer than two runs, of which nothing can be said, and for values that are no numbers.
    """
    library, _ = _rliable()
    for name, values in scores.items():
        if len(_checked(values)) < 2:
            raise RactdError(f"{name}: an interval needs two runs or more, and there is {len(values)}")
    with _seeded(seed):
        _, bounds = library.get_interval_estimates(
            dict(scores), lambda x: np.array([statistic(x)]), reps=resamples, confidence_interval_size=level
        )
    return {name: (float(low), float(high)) for name, ((low,), (high,)) in bounds.items()}


def performance_profile(
    scores: Mapping[str, Array], thresholds: Array, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, tuple[Array, Array, Array]]:
    """Return for each method the share of its runs that score above each threshold, and the bounds of its 95% interval.

    `thresholds` is `[n]`, and so are the three arrays. The bounds of a single run are its own shares.
    """
    library, _ = _rliable()
    checked = {name: _checked(values) for name, values in scores.items()}
    with _seeded(seed):
        shares, bounds = library.create_performance_profile(
            checked, thresholds, custom_profile_func=_shares_above, reps=resamples
        )
    return {name: (shares[name], bounds[name][0], bounds[name][1]) for name in scores}


def _shares_above(scores: Array, thresholds: Array) -> Array:
    """rliable's own score distribution, without its loop over the thresholds."""
    return (scores[..., None] > thresholds).mean(axis=(0, 1))  # type: ignore[no-any-return]


def _checked(scores: Array) -> Array:
    if scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
        raise RactdError(f"scores have to be numbers of shape [runs, tasks], got {scores.shape} or NaN")
    return scores


def _rliable() -> tuple[Any, Any]:
    try:
        from rliable import library, metrics
    except ModuleNotFoundError as error:
        raise RactdError(f'statistics need {error.name}: pip install "ractd[sweeps]"') from None
    return library, metrics


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator for a while: rliable draws from it, whatever generator it is given."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # arch's, of the argument that rliable passes
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
