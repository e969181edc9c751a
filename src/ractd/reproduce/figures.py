"""The paper's figures, from a table's lines of one dataset. Each is drawn by Matplotlib; None where nothing is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ractd.reproduce.lines import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 40


def histograms(dataset: str, lines: Sequence[Line], unit: str) -> Figure | None:
    """Draw episode returns, a panel a method, all seeds together (Figure 3)."""
    by_seed = {line.method: list(line.samples("return").values())[: 1 if line.of_data else None] for line in lines}
    returns = {method: np.concatenate(values) for method, values in by_seed.items() if values}
    if not returns:
        return None
    edges = np.histogram_bin_edges(np.concatenate(list(returns.values())), BINS)
    figure = _figure(f"Episode returns: {dataset}", 1.0 + 1.6 * len(returns))
    panels = figure.subplots(len(returns), sharex=True, squeeze=False)[:, 0]
    for number, ((method, values), axes) in enumerate(zip(returns.items(), panels, strict=True)):
        shares = np.full(len(values), 100 / len(values))
        axes.hist(values, edges, weights=shares, histtype="stepfilled", color=f"C{number}", alpha=0.6)
        axes.set_title(f"{method}: mean {values.mean():,.0f}, {len(values):,} episodes", loc="left", fontsize=10)
        axes.set_ylabel("% of episodes")
    panels[-1].set_xlabel("episode return")
    return figure


def training_curves(dataset: str, lines: Sequence[Line], unit: str) -> Figure | None:
    """Draw evaluations during training, a curve a method: mean over seeds, standard error over them or over episodes (Figure 4)."""
    figure = _figure(f"Reward weights during training: {dataset}", 5.0)
    axes = figure.subplots()
    for number, line in enumerate(lines):
        curves = [measured.curve for measured in line.seeds.values() if measured.curve is not None]
        if not curves:
            continue
        by_step = pd.concat(curves).groupby("step")
        mean = by_step.score.mean()
        error = by_step.score.sem() if len(curves) > 1 else by_step.score_se.first()
        style = "o-" if number else "o--"
        axes.errorbar(mean.index, mean, error.fillna(0), fmt=style, color=f"C{number}", capsize=2, label=line.method)
    if not axes.lines:
        return None
    axes.set_xlabel("training step of the student")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def _figure(title: str, height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, height), dpi=150, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    return figure
