"""What the paper says of its numbers, and whether ours say so too.

Seeds are paired, since the methods of one seed share data and teacher: each seed that both methods have gives one difference of
their means (of times, the logarithm of one ratio), and Student's t interval of these says whether a claim is confirmed. Its
error is over trainings on one dataset. A claim in one direction holds by chance in 2.5% of the comparisons of equal methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ractd.reproduce.lines import Line, differ
from ractd.results.statistics import FEWEST_SEEDS, t_interval

State = Literal["confirmed", "not confirmed", "too few seeds", "not run"]
WORDS = {
    "score": "score",
    "ms": "time",
    "spread": "spread",
    "kept": "modes kept",
    "upper": "share in the better mode",
    "late": "score late in training",
    "swing": "swing late in training",
}


@dataclass(frozen=True)
class Claim:
    """A comparison that the paper makes between two methods of a table: the first has more of a quantity than the second."""

    first: str
    second: str
    quantity: str = "score"
    datasets: tuple[str, ...] = ()
    """The paper's names of those it is made for; empty for all."""
    alike: float | None = None
    """The claim is instead that both have as much: that all of the interval of their difference is nearer to zero than this."""

    def text(self) -> str:
        """Return it as people read it."""
        return f"{WORDS[self.quantity]}: {self.first} {'>' if self.alike is None else '~'} {self.second}"


@dataclass(frozen=True)
class Comparison:
    """A claim on one dataset."""

    dataset: str
    claim: str
    state: State
    evidence: str
    """Interval and number of seeds, or what is missing."""


def compare(claim: Claim, lines: Sequence[Line], dataset: str) -> Comparison:
    """Return whether a dataset's lines confirm a claim."""
    state, evidence = _compare(claim, {line.method: line for line in lines if line.dataset == dataset})
    return Comparison(dataset, claim.text(), state, evidence)


def _compare(claim: Claim, lines: dict[str, Line]) -> tuple[State, str]:
    names = (claim.first, claim.second)
    first, second = (lines[name].means(claim.quantity) if name in lines else {} for name in names)
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        lacking = [name for name, means in zip(names, (first, second), strict=True) if not means]
        return "not run", f"no numbers of {' and '.join(lacking) or 'the same seed'}"
    means = np.array([[each[seed] for seed in seeds] for each in (first, second)])
    ratio = claim.quantity == "ms"
    values = np.log(means[0] / means[1]) if ratio else means[0] - means[1]

    def told(interval: tuple[float, ...] = ()) -> str:
        mean, *bounds = np.exp([values.mean(), *interval]) if ratio else (values.mean(), *interval)
        middle = f"{mean:.3g} times" if ratio else f"difference {mean:+.3g}"
        return middle + (f" [{bounds[0]:.3g}, {bounds[1]:.3g}]" if bounds else "")

    count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    if len(seeds) < FEWEST_SEEDS:
        return "too few seeds", f"{told()}, {count} of the {FEWEST_SEEDS} that an interval needs"
    if not differ(values, float(np.abs(means).max())):
        return "not confirmed", f"{told()}, {count} that all have the same: no spread to judge by"
    low, high = t_interval(values)
    if claim.alike is not None:
        holds = -claim.alike < low and high < claim.alike
        return "confirmed" if holds else "not confirmed", f"{told((low, high))}, alike within {claim.alike:g}, {count}"
    reverse = ", the other way round" if high < 0 else ""
    return "confirmed" if low > 0 else "not confirmed", f"{told((low, high))}{reverse}, {count}"
