"""One number a method over all seeds and datasets: interquartile means with intervals (`ractd.sweeps.statistics`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ractd.reproduce.lines import Line
from ractd.sweeps.statistics import FEWEST_SEEDS, installed, interquartile_mean, intervals


@dataclass(frozen=True)
class Aggregate:
    """A method's interquartile mean of per-run scores, over the seeds that every dataset has."""

    method: str
    iqm: float
    low: float
    high: float
    """95% by percentiles of a stratified bootstrap over seeds: with few seeds it is too narrow to confirm anything."""
    seeds: int
    datasets: int


def aggregates(lines: Sequence[Line], comparable: bool) -> list[Aggregate]:
    """Return the methods' aggregates; none without the extra `sweeps`, of too few seeds, of what no seed changes, and where
    datasets have their own units.

    `comparable` says that scores of all lines are in one unit.
    """
    datasets = list(dict.fromkeys(line.dataset for line in lines))
    if not installed() or not (comparable or len(datasets) == 1):
        return []
    runs = {}
    for method in dict.fromkeys(line.method for line in lines if not line.fixed):
        by_dataset = [line.samples("score") for line in lines if line.method == method]
        seeds = sorted(set.intersection(*(set(samples) for samples in by_dataset)))
        if len(by_dataset) == len(datasets) and len(seeds) >= FEWEST_SEEDS:
            runs[method] = np.array([[samples[seed].mean() for samples in by_dataset] for seed in seeds])
    bounds = intervals(runs) if runs else {}
    return [
        Aggregate(method, interquartile_mean(scores), *bounds[method], *scores.shape) for method, scores in runs.items()
    ]
