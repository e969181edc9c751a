"""What a table is made of: a line a method on a dataset, with what was measured of it, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ractd.data.scores import standard_error
from ractd.reproduce import paper
from ractd.results.statistics import Array

NOT_RUN = "not run"
"""The reason where there is no other."""
QUANTITIES = {
    "score": "D4RL-normalised score of each episode; its return where D4RL has no reference",
    "last": "the same of the last checkpoint, where the score is of the best one",
    "return": "return of each episode",
    "nfe": "network evaluations per sampled sequence",
    "ms": "median wall milliseconds of a sampled sequence at batch 1",
    "processor_seconds": "processor time of the training of all stages that it needed, evaluations apart",
    "spread": "at each logged state, standard deviation over samples of the action sequence in scaled units, mean over its entries",
    "kept": "at each logged state, share of the clusters of the teacher's samples that a sample falls into",
    "upper": "1 for each episode in the higher of the two groups that the data's returns fall into, else 0",
    "late": "score of each evaluation in the second half of training",
    "swing": "how far each of those is from their mean",
}
"""What is measured; the names are those of the CSV's columns."""


@dataclass(frozen=True)
class Measured:
    """What one seed gave."""

    samples: dict[str, Array]
    """By quantity its samples, [episodes], [states] or [1]; see `QUANTITIES`."""
    run: str
    """The run directory's name; empty for the data itself, which no seed changes."""
    policy: str = ""
    """Its folder in the run's `policy/`."""
    busy: bool = False
    """True where the machine was busy when its time was measured."""
    curve: pd.DataFrame | None = None
    """The evaluations during training: columns step, score, score_se."""


@dataclass(frozen=True)
class Line:
    """One method on one dataset."""

    dataset: str
    method: str
    seeds: dict[int, Measured] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)
    """By seed, why there is nothing."""

    @property
    def of_data(self) -> bool:
        """True of the data itself: several seeds are one sample of it, and not several that agree."""
        return not any(measured.run for measured in self.seeds.values())

    def samples(self, quantity: str) -> dict[int, Array]:
        """Return a quantity's samples by seed, of the seeds that have it."""
        return {seed: each.samples[quantity] for seed, each in self.seeds.items() if quantity in each.samples}

    def means(self, quantity: str) -> dict[int, float]:
        """Return a quantity's mean by seed."""
        return {seed: float(samples.mean()) for seed, samples in self.samples(quantity).items()}

    def mean(self, quantity: str) -> float:
        """Return the mean over seeds of each seed's mean, NaN where there is none."""
        means = list(self.means(quantity).values())
        return float(np.mean(means)) if means else np.nan

    def error(self, quantity: str) -> float:
        """Return the standard error of `mean`, NaN where the numbers show no spread to take it from.

        It is over seeds where their means differ, else over all samples: of one seed, of the data, of seeds that happen to
        agree. Where all samples of a share are 0, or all 1, it is Agresti and Coull's, who add two of each (1998).
        """
        by_seed = list(self.samples(quantity).values())[: 1 if self.of_data else None]
        means = np.array([each.mean() for each in by_seed])
        values = means if differ(means) else np.concatenate([*by_seed, []])
        if differ(values):
            return standard_error(values)
        if quantity != "upper" or not len(values):
            return np.nan
        count = len(values) + 4
        share = (values.sum() + 2) / count
        return float(np.sqrt(share * (1 - share) / count))

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


def differ(values: Array, scale: float | None = None) -> bool:
    """Return whether numbers differ by more than the rounding of numbers as large as `scale`, by default the largest of them."""
    return len(values) > 1 and bool(np.ptp(values) > 1e-9 * (abs(values).max() if scale is None else scale))


def summary(lines: Sequence[Line], table: str) -> pd.DataFrame:
    """Return a line a row: the paper's numbers of a table, and mean and standard error of each quantity."""
    columns = [name for quantity in QUANTITIES for name in (quantity, f"{quantity}_se")]
    records = []
    for line in lines:
        numbers = {name: value for q in QUANTITIES for name, value in ((q, line.mean(q)), (f"{q}_se", line.error(q)))}
        texts = {
            "dataset": line.dataset,
            "method": line.method,
            "seeds": " ".join(map(str, line.seeds)),
            "note": line.note(),
        }
        records.append({**texts, "episodes": sum(map(len, line.samples("score").values())), **numbers})
    frame = pd.DataFrame(records, columns=["dataset", "method", "seeds", "episodes", *columns, "note"])
    keys = pd.MultiIndex.from_arrays([frame.dataset.map(paper.dataset_key), frame.method])
    numbers = paper.published(table).reindex(keys).add_prefix("paper_").set_index(frame.index)
    for position, (name, values) in enumerate(numbers.items(), start=2):
        frame.insert(position, str(name), values)
    return frame


@dataclass(frozen=True)
class TableSource:
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
