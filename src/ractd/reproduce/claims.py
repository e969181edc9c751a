"""What the paper says of its numbers, and whether ours say so too.

Intervals are percentile bootstrap: seeds are drawn with replacement, the same ones for both methods, since these share data
and teacher, and then each seed's samples. With one seed an interval knows nothing of other trainings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ractd.reproduce.lines import Floats, Line

DRAWS = 4_000
INTERVAL = (2.5, 97.5)
CLEARLY = 1.1
"""Ratio from which times are taken to differ: one seed's is a single number, without an interval."""
State = Literal["confirmed", "not confirmed", "not run"]


@dataclass(frozen=True)
class Relation:
    """How one method is said to compare with another."""

    sign: str
    judge: Callable[[Floats, Floats], tuple[bool, str]]
    """Bootstrap means of both, [DRAWS] -> whether it holds, and the interval that says so."""


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


def larger(first: Floats, second: Floats) -> tuple[bool, str]:
    """Hold where the whole interval of the difference is above zero."""
    low, high = np.percentile(first - second, INTERVAL)
    return bool(low > 0), f"difference {(first - second).mean():+.3g}{_interval(low, high)}{_reverse(high < 0)}"


def many_times(first: Floats, second: Floats) -> tuple[bool, str]:
    """Hold where the whole interval of the ratio is above `CLEARLY`."""
    low, high = np.percentile(first / second, INTERVAL)
    ratio = np.exp(np.log(first / second).mean())
    return bool(low > CLEARLY), f"{ratio:.3g} times{_interval(low, high)}{_reverse(high < 1 / CLEARLY)}"


def _interval(low: float, high: float) -> str:
    return f" [{low:.3g}, {high:.3g}]" if low < high else ""


def _reverse(reverse: bool) -> str:
    return ", the other way round" if reverse else ""


def alike(margin: float) -> Callable[[Floats, Floats], tuple[bool, str]]:
    """Hold where the whole interval of the difference is closer to zero than `margin`."""

    def judge(first: Floats, second: Floats) -> tuple[bool, str]:
        low, high = np.percentile(first - second, INTERVAL)
        evidence = f"difference {(first - second).mean():+.3g} [{low:.3g}, {high:.3g}], alike within {margin:g}"
        return bool(-margin < low and high < margin), evidence

    return judge


MORE = Relation(">", larger)
TIMES = Relation(">", many_times)
ALIKE_SHARE = Relation("~", alike(0.1))


def bootstrap(first: Mapping[int, Floats], second: Mapping[int, Floats]) -> tuple[Floats, Floats]:
    """Return `DRAWS` bootstrap means of both methods, from the seeds that both have: samples by seed."""
    seeds = sorted(first.keys() & second.keys())
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(seeds), size=(DRAWS, len(seeds)))

    def means(samples: Mapping[int, Floats]) -> Floats:
        drawn = []
        for seed in seeds:
            values = samples[seed]
            total = np.zeros(chosen.shape)
            for _ in values:
                total += values[rng.integers(len(values), size=chosen.shape)]
            drawn.append(total / len(values))
        by_slot = np.take_along_axis(np.stack(drawn), chosen[None], axis=0)
        return np.asarray(by_slot[0].mean(axis=1))

    return means(first), means(second)


def verdict(claim: Claim, lines: Sequence[Line], dataset: str) -> Verdict:
    """Judge a claim by a dataset's lines."""
    found = {line.method: line for line in lines if line.dataset == dataset}
    first, second = (
        found[method].samples(claim.quantity) if method in found else {} for method in (claim.first, claim.second)
    )
    seeds = first.keys() & second.keys()
    if not seeds:
        lacking = [method for method, samples in ((claim.first, first), (claim.second, second)) if not samples]
        return Verdict(dataset, claim.text(), "not run", f"no numbers of {' and '.join(lacking) or 'the same seed'}")
    holds, evidence = claim.relation.judge(*bootstrap(first, second))
    count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    return Verdict(dataset, claim.text(), "confirmed" if holds else "not confirmed", f"{evidence}, {count}")
