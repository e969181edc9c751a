"""What the paper says of its numbers, and whether ours say so too.

Seeds are paired, since the methods of one seed share data and teacher: each seed that both methods have gives one difference of
their means (of times, one ratio), and Student's t interval of these says whether a claim is confirmed. Its error is over
trainings on one dataset. A claim in one direction holds by chance in 2.5% of the comparisons of equal methods.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ractd.errors import RactdError
from ractd.reproduce.lines import Floats, Line, vary
from ractd.sweeps.statistics import FEWEST_SEEDS

LEVEL = 0.95
"""Of the intervals, two-sided."""
State = Literal["confirmed", "not confirmed", "too few seeds", "not run"]


@dataclass(frozen=True)
class Relation:
    """How one method is said to compare with another."""

    sign: str
    paired: Callable[[Floats, Floats], Floats]
    """Means of both methods, [seeds] each -> one number a seed, [seeds], which is 0 where they are equal."""
    holds: Callable[[float, float], bool]
    """Bounds of the interval of these numbers' mean -> whether the claim does."""
    shown: Callable[[float], float]
    """From such a number to what people read."""
    evidence: str
    """Sentence about their mean, `{0}`, and interval, `{1}`, as shown."""


@dataclass(frozen=True)
class Claim:
    """A comparison that the paper makes between two methods of a table."""

    first: str
    relation: Relation
    second: str
    quantity: str = "score"
    datasets: tuple[str, ...] = ()
    """The paper's names of those it is made for; empty for all."""

    def text(self) -> str:
        """Return it as people read it."""
        return f"{WORDS[self.quantity]}: {self.first} {self.relation.sign} {self.second}"


@dataclass(frozen=True)
class Verdict:
    """A claim on one dataset."""

    dataset: str
    claim: str
    state: State
    evidence: str
    """Interval and number of seeds, or what is missing."""


WORDS = {
    "score": "score",
    "ms": "time",
    "spread": "spread",
    "kept": "modes kept",
    "upper": "share in the better mode",
    "late": "score late in training",
    "swing": "swing late in training",
}


def _above(low: float, high: float) -> bool:
    return low > 0


def alike(margin: float) -> Relation:
    """Hold where the whole interval of the difference is closer to zero than `margin`: a test of equivalence."""

    def holds(low: float, high: float) -> bool:
        return -margin < low and high < margin

    return Relation("~", np.subtract, holds, float, f"difference {{0:+.3g}}{{1}}, alike within {margin:g}")


MORE = Relation(">", np.subtract, _above, float, "difference {0:+.3g}{1}")
TIMES = Relation(">", lambda first, second: np.log(first / second), _above, np.exp, "{0:.3g} times{1}")
ALIKE_SHARE = alike(0.1)


def require_scipy() -> None:
    """Raise `RactdError` where `t_interval` can't be computed."""
    if importlib.util.find_spec("scipy") is None:
        raise RactdError('intervals of comparisons need scipy: pip install "ractd[reproduce]"')


def t_interval(values: Floats) -> tuple[float, float]:
    """Return the bounds of Student's t interval (`LEVEL`) of the mean of `values` [n], n at least 2."""
    from scipy.stats import t

    half = t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def verdict(claim: Claim, lines: Sequence[Line], dataset: str) -> Verdict:
    """Judge a claim by a dataset's lines."""
    found = {line.method: line for line in lines if line.dataset == dataset}
    first, second = (
        found[method].samples(claim.quantity) if method in found else {} for method in (claim.first, claim.second)
    )
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        lacking = [method for method, samples in ((claim.first, first), (claim.second, second)) if not samples]
        return Verdict(dataset, claim.text(), "not run", f"no numbers of {' and '.join(lacking) or 'the same seed'}")
    relation = claim.relation
    means = [np.array([samples[seed].mean() for seed in seeds]) for samples in (first, second)]
    values = relation.paired(*means)
    mean = relation.shown(float(values.mean()))
    count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    if len(seeds) < FEWEST_SEEDS:
        evidence = f"{relation.evidence.format(mean, '')}, {count} of the {FEWEST_SEEDS} that an interval needs"
        return Verdict(dataset, claim.text(), "too few seeds", evidence)
    if not vary(values, float(np.abs(means).max())):
        evidence = f"{relation.evidence.format(mean, '')}, {count} that all have the same: no spread to judge by"
        return Verdict(dataset, claim.text(), "not confirmed", evidence)
    low, high = t_interval(values)
    evidence = relation.evidence.format(mean, f" [{relation.shown(low):.3g}, {relation.shown(high):.3g}]")
    holds = relation.holds(low, high)
    reverse = ", the other way round" if not holds and relation.holds(-high, -low) else ""
    return Verdict(dataset, claim.text(), "confirmed" if holds else "not confirmed", f"{evidence}{reverse}, {count}")
