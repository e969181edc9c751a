"""What a table is made of: a line a method on a dataset, with the paper's numbers and what was measured, seed by seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.reproduce.paper import NOTHING, Published

Floats = NDArray[np.float64]
NOT_RUN = "not run"
"""The reason where there is no other."""


def vary(values: Floats, scale: float | None = None) -> bool:
    """Return whether numbers differ by more than the rounding of numbers as large as `scale`, by default the largest of them."""
    return len(values) > 1 and bool(np.ptp(values) > 1e-9 * (abs(values).max() if scale is None else scale))


@dataclass(frozen=True)
class Measured:
    """What one seed gave."""

    samples: dict[str, Floats]
    """By quantity its samples, [episodes], [states] or [1]; see `QUANTITIES`."""
    run: str
    """The run directory's name."""
    curve: tuple[Floats, Floats, Floats] | None = None
    """Steps, values and standard errors of the evaluations during training, all [N]."""
    fixed: bool = False
    """True of the data itself, which no seed changes: several seeds are one sample of it and not several that agree."""
    busy: bool = False
    """True where the machine was busy when its time was measured."""


QUANTITIES = {
    "score": "D4RL-normalised score of each episode; its return where D4RL has no reference",
    "return": "return of each episode",
    "nfe": "network evaluations per sampled sequence",
    "ms": "median wall milliseconds of a sampled sequence at batch 1",
    "spread": "at each logged state, standard deviation over samples of the action sequence in scaled units, mean over its entries",
    "kept": "at each logged state, share of the clusters of the teacher's samples that a sample falls into",
    "upper": "1 for each episode in the higher of the two groups that the data's returns fall into, else 0",
    "late": "score of each evaluation in the second half of training",
    "swing": "how far each of those is from their mean",
}
"""What is measured; the names are those of the CSV's columns."""
SHARES = ("upper",)
"""Quantities whose samples are 0 or 1."""


@dataclass(frozen=True)
class Line:
    """One method on one dataset."""

    dataset: str
    method: str
    published: Published = NOTHING
    seeds: dict[int, Measured] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)
    """By seed, why there is nothing."""

    def samples(self, quantity: str) -> dict[int, Floats]:
        """Return a quantity's samples by seed, of the seeds that have it."""
        return {seed: each.samples[quantity] for seed, each in self.seeds.items() if quantity in each.samples}

    def mean(self, quantity: str) -> float | None:
        """Return the mean over seeds of each seed's mean, None where there is none."""
        means = [values.mean() for values in self.samples(quantity).values()]
        return float(np.mean(means)) if means else None

    @property
    def fixed(self) -> bool:
        """True of a line that no seed changes."""
        return all(measured.fixed for measured in self.seeds.values())

    def error(self, quantity: str) -> float | None:
        """Return the standard error of `mean`, None where the numbers show no spread to take it from.

        It is over seeds where their means differ, else over all samples: of one seed, of the data, of seeds that happen to
        agree. Where all samples of a share are 0, or all 1, it is Agresti and Coull's, who add two of each (1998).
        """
        by_seed = list(self.samples(quantity).values())
        if self.fixed:
            by_seed = by_seed[:1]
        means = np.array([each.mean() for each in by_seed])
        values = means if vary(means) else np.concatenate([*by_seed, []])
        if quantity in SHARES and len(values) and not vary(values):
            count = len(values) + 4
            share = (values.sum() + 2) / count
            return float(np.sqrt(share * (1 - share) / count))
        return float(values.std(ddof=1) / np.sqrt(len(values))) if vary(values) else None

    def note(self) -> str:
        """Say why it was not run, or not with every seed; empty where it was."""
        if not self.seeds and not self.missing:
            return "not run: the paper's figures only"
        reasons: dict[str, list[str]] = {}
        for seed, why in self.missing.items():
            reasons.setdefault(why, []).append(str(seed))
        if not self.seeds and list(reasons) == [NOT_RUN]:
            return NOT_RUN
        return "; ".join(
            f"{NOT_RUN} with seed {', '.join(seeds)}" + (f": {why}" if why != NOT_RUN else "")
            for why, seeds in reasons.items()
        )


@dataclass(frozen=True)
class Source:
    """A dataset of a table: what it is, and whether it is the paper's."""

    name: str
    description: dict[str, Any]
    """As a run records it: name, recipe, environment, sizes, fingerprint; without a path of this machine."""
    published: bool
    """True for D4RL's own file."""
    unit: str
    """What `score` is in: `score`, or `return` where D4RL has no reference."""

    def sentence(self) -> str:
        """Say where the data is from."""
        facts = self.description
        own = "D4RL's own file" if self.published else f"not D4RL's own data; recipe: {facts['recipe'] or 'unknown'}"
        env = facts["env_id"] or "no environment"
        return (
            f"{self.name}: {own}. {facts['transitions']:,} transitions, {facts['episodes']:,} episodes, {env}, "
            f"fingerprint {facts['fingerprint'][:16]}."
        )
