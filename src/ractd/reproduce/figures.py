"""The paper's figures from a table's lines, for whoever draws them (`ractd.report.plots`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ractd.report.figures import BINS
from ractd.report.plots import GREY, HISTOGRAM_COLORS, RUN_COLORS, Entry, Figure, Panel, Series, shortened
from ractd.reproduce.lines import Floats, Line


def histograms(name: str, dataset: str, lines: Sequence[Line], unit: str) -> list[Figure]:
    """Episode returns, a panel a method, all seeds together (Figure 3)."""
    returns = {line.method: np.concatenate(by_seed) for line in lines if (by_seed := _returns(line))}
    if not returns:
        return []
    edges = np.histogram_bin_edges(np.concatenate(list(returns.values())), BINS)
    panels = []
    for method, values in returns.items():
        shares = 100 * np.histogram(values, edges)[0] / len(values)
        outline = Series(
            name=method,
            x=shortened(edges),
            y=shortened([*shares, shares[-1]]),
            color=HISTOGRAM_COLORS[method],
            outline=True,
        )
        title = f"{method}: mean {values.mean():,.0f}, {len(values):,} episodes"
        last = method == list(returns)[-1]
        panels.append(Panel(title, "episode return" if last else "", "% of episodes", [outline]))
    return [Figure(f"{name}-{dataset}", f"Episode returns: {dataset}", panels, [], columns=1)]


def _returns(line: Line) -> list[Floats]:
    by_seed = line.samples("return")
    return list(by_seed.values())[:1] if line.fixed else list(by_seed.values())


def training_curves(name: str, dataset: str, lines: Sequence[Line], unit: str) -> list[Figure]:
    """Evaluations during training, a curve a method: mean over seeds, standard error over them or over episodes (Figure 4)."""
    series, legend = [], []
    for number, line in enumerate(lines):
        curves = [measured.curve for measured in line.seeds.values() if measured.curve and len(measured.curve[0])]
        if not curves:
            continue
        steps = curves[0][0]
        same = [curve for curve in curves if np.array_equal(curve[0], steps)]
        values = np.stack([curve[1] for curve in same])
        errors = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan_to_num(same[0][2])
        color = GREY if number == 0 else RUN_COLORS[number % len(RUN_COLORS)]
        series.append(
            Series(
                name=line.method,
                x=shortened(steps),
                y=shortened(values.mean(axis=0)),
                error=shortened(errors),
                color=color,
                tags=(line.method,),
                marker=number,
                dashed=number == 0,
            )
        )
        legend.append(Entry(line.method, color, number, dashed=number == 0))
    if not series:
        return []
    panel = Panel("", "training step of the student", unit, series)
    return [Figure(f"{name}-{dataset}", f"Reward weights during training: {dataset}", [panel], legend, columns=1)]
