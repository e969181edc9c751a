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


@dataclass(frozen=True)
class Measured:
    """What one seed gave."""

    samples: dict[str, Floats]
    """By quantity its samples, [episodes], [states] or [1]; see `QUANTITIES`."""
    run: str
    """The run directory's name."""
    curve: tuple[Floats, Floats, Floats] | None = None
    """Steps, values and standard errors of the evaluations during training, all [N]."""


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

    def error(self, quantity: str) -> float | None:
        """Return the standard error of `mean`: over seeds, of one seed over its samples, and None of a single number."""
        # What doesn't depend on the seed, such as the data's returns, is one sample and not several that agree.
        by_seed = list({id(values): values for values in self.samples(quantity).values()}.values())
        values = np.array([each.mean() for each in by_seed]) if len(by_seed) > 1 else np.concatenate([*by_seed, []])
        return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None

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
