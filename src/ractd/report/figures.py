"""The figures of a report: score against latency, training curves, return histograms, score during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ractd.data.scores import normalized_score, reference
from ractd.report.contents import Contents, Curve, Row, number
from ractd.report.plots import (
    DATA,
    DIAGNOSTICS,
    GREY,
    HISTOGRAM_COLORS,
    Entry,
    Figure,
    Panel,
    Series,
    by,
    color_of,
    file_name,
    row_color,
    run_color,
    shortened,
    timed_of,
    unique,
    unit_of,
    value_of,
)

BINS = 40
MAX_POINTS = 500
"""Of a curve: more can't be told apart, and the page has to stay small."""


def latency_figure(runs: Sequence[Contents]) -> Figure | None:
    """Score of every policy against the time that an action, or a plan, takes it, a panel for each unit."""
    several = len(runs) > 1
    labels = unique(row.label for run in runs for row in run.rows)
    panels = []
    for unit, indices in by(unit_of, runs).items():
        series = []
        for index in indices:
            run = runs[index]
            for row in run.rows:
                value, error = value_of(run, row)
                if value is None or row.milliseconds is None:
                    continue
                series.append(
                    Series(
                        name=f"{row.label} · {run.label}" if several else row.label,
                        x=[row.milliseconds],
                        y=[value],
                        color=run_color(index) if several else row_color(row),
                        tags=(run.label, row.label) if several else (row.label,),
                        line=False,
                        marker=labels.index(row.label),
                        error=[error or 0.0],
                        # Of several runs there are too many points to write beside them: the legend says it.
                        label="" if several else nfe_of(row),
                    )
                )
        if series:
            span = [x for one in series for x in one.x]
            data = [_data_line(runs[index], index, several, span) for index in indices]
            title = unit if len(by(unit_of, runs)) > 1 else ""
            lines = [line for line in data if line]
            drawn = lines + _beside(series, [line.y[0] for line in lines])
            panels.append(Panel(title, f"milliseconds per {timed_of(runs)}, batch 1", unit, drawn, log_x=True))
    if not panels:
        return None
    legend = [Entry(run.label, run_color(i)) for i, run in enumerate(runs)] if several else []
    for marker, label in enumerate(labels):
        color = next(row_color(row) for run in runs for row in run.rows if row.label == label)
        nfes = unique(nfe_of(row) for run in runs for row in run.rows if row.label == label)
        note = " or ".join(nfes) if several else ""
        legend.append(Entry(label, None if several else color, marker, note=note))
    if any(one.tags[-1] == DATA for panel in panels for one in panel.series):
        legend.append(Entry(DATA, None if several else GREY, dashed=True))
    what = "" if several else f": {runs[0].dataset.get('name', runs[0].label)}"
    return Figure("score-latency", f"Score against latency{what}", panels, legend, columns=1)


def training_figures(runs: Sequence[Contents]) -> list[Figure]:
    """Curves of every loss term, a figure for each stage, and another one for what else it logged."""
    figures = []
    for stage in unique(name for run in runs for name in run.curves):
        names = unique(name for run in runs for name in run.curves.get(stage, {}))
        losses = [name for name in names if not DIAGNOSTICS.search(name) and not _is_total(runs, stage, name, names)]
        others = [name for name in names if DIAGNOSTICS.search(name)]
        several = sum(stage in run.curves for run in runs) > 1
        for key, title, chosen in (
            (f"training-{stage}", f"Training: {stage}", losses),
            (f"training-{stage}-more", f"Training: {stage}, gradients, rates and warnings", others),
        ):
            panels = [_curve_panel(runs, stage, name) for name in chosen]
            legend = [Entry(run.label, run_color(i)) for i, run in enumerate(runs) if stage in run.curves]
            if panels:
                entries = legend if several else []
                figures.append(Figure(key, title, panels, entries, columns=3, folded=chosen is others))
    return figures


def returns_figures(runs: Sequence[Contents]) -> list[Figure]:
    """Histograms of episode returns (the paper's Figure 3), one figure for each environment."""
    scored = [run for run in runs if any(row.returns for row in run.rows)]
    environments = by(lambda run: str(run.env_id), scored)
    several = len(runs) > 1
    figures = []
    for env_id, indices in environments.items():
        group = [scored[index] for index in indices]
        values: dict[str, list[tuple[Contents, NDArray[np.float64]]]] = {}
        for run in group:
            if run.data_returns is not None:
                values.setdefault(DATA, []).append((run, run.data_returns))
        for label in HISTOGRAM_COLORS:
            for run in group:
                row = run.row(label)
                if row is not None and row.returns:
                    values.setdefault(label, []).append((run, np.array(row.returns)))
        if not values:
            continue
        joined = np.concatenate([returns for pairs in values.values() for _, returns in pairs])
        edges = np.histogram_bin_edges(joined, BINS)
        panels = [
            _histogram(label, pairs, edges, runs, env_id, last=label == list(values)[-1])
            for label, pairs in values.items()
        ]
        key = "returns" if len(environments) == 1 else f"returns-{file_name(env_id)}"
        legend = [Entry(run.label, run_color(runs.index(run))) for run in group] if several else []
        figures.append(Figure(key, f"Episode returns in {env_id}", panels, legend, columns=1))
    return figures


def progress_figure(runs: Sequence[Contents]) -> Figure | None:
    """Score at the checkpoints that were evaluated during training, a panel for each unit; the chosen ones are large."""
    several = len(runs) > 1
    stages = unique(stage for run in runs for stage, metrics in run.curves.items() if "episode_return" in metrics)
    panels = []
    for unit, indices in by(unit_of, runs).items():
        series = []
        for index in indices:
            for number_of_stage, stage in enumerate(stages):
                series += _progress(runs[index], index, stage, number_of_stage, several)
        if series:
            title = unit if len(by(unit_of, runs)) > 1 else ""
            panels.append(Panel(title, "training step", unit, series))
    if not panels:
        return None
    legend = [Entry(run.label, run_color(i)) for i, run in enumerate(runs)] if several else []
    legend += [Entry(stage, None if several else color_of(stage), i) for i, stage in enumerate(stages)]
    return Figure("score-training", "Score during training", panels, legend, columns=1)


def thinned(curve: Curve) -> tuple[list[float], list[float]]:
    """Return a curve with at most `MAX_POINTS` points: of each stretch the smallest and the largest, so that spikes stay."""
    steps, values = curve.steps, curve.values
    if len(steps) > MAX_POINTS:
        kept: list[int] = []
        for part in np.array_split(np.arange(len(steps)), MAX_POINTS // 2):
            filled = np.where(np.isnan(values[part]), np.inf, values[part])
            low, high = part[filled.argmin()], part[np.where(np.isinf(filled), -np.inf, filled).argmax()]
            kept += sorted({int(low), int(high)})
        steps, values = steps[kept], values[kept]
    return shortened(steps), shortened(values)


def nfe_of(row: Row) -> str:
    """Return the number of network evaluations of a row as a label, empty where it isn't known."""
    return "" if row.nfe is None else f"NFE {row.nfe:g}"


def _beside(points: list[Series], lines: list[float]) -> list[Series]:
    """Put the text of points that are close together to different sides; `lines` are drawn across the same axis."""
    x = np.log([point.x[0] for point in points])
    y = np.array([point.y[0] for point in points])
    near_x, near_y = 0.12 * max(float(np.ptp(x)), 1.0), 0.08 * max(float(np.ptp([*y, *lines])), 1e-9)
    placed = []
    for index, point in enumerate(points):
        near = (abs(x - x[index]) < near_x) & (abs(y - y[index]) < near_y)
        left, right = near & (x < x[index]), near & (x > x[index])
        side: Literal["top", "bottom", "left", "right"] = "top" if y[index] >= y[near].max() else "bottom"
        if left.any() != right.any():
            side = "right" if left.any() else "left"
        placed.append(replace(point, side=side))
    return placed


def _data_line(run: Contents, index: int, several: bool, span: list[float]) -> Series | None:
    """A horizontal line at what the data is worth; None without a simulator, where the unit is another one."""
    key = "mean_score" if run.env_id is not None and reference(run.env_id) else "mean_return"
    mean = number(run.behavior.get(key))
    if mean is None or run.env_id is None:
        return None
    return Series(
        name=f"{DATA} · {run.label}" if several else DATA,
        x=[min(span) / 1.5, max(span) * 1.5],
        y=[mean, mean],
        color=run_color(index) if several else GREY,
        tags=(run.label, DATA) if several else (DATA,),
        dashed=True,
    )


def _is_total(runs: Sequence[Contents], stage: str, name: str, names: list[str]) -> bool:
    """True for the sum of a single term: it would be drawn twice."""
    if name != "loss":
        return False
    every = [run.curves[stage] for run in runs if name in run.curves.get(stage, {})]
    return any(
        other != name
        and all(
            other in metrics and np.array_equal(metrics[other].values, metrics[name].values, equal_nan=True)
            for metrics in every
        )
        for other in names
    )


def _curve_panel(runs: Sequence[Contents], stage: str, name: str) -> Panel:
    several = sum(stage in run.curves for run in runs) > 1
    series, values = [], [np.zeros(0)]
    for index, run in enumerate(runs):
        curve = run.curves.get(stage, {}).get(name)
        if curve is None:
            continue
        values.append(curve.values)
        steps, kept = thinned(curve)
        series.append(
            Series(
                name=run.label if several else name,
                x=steps,
                y=kept,
                color=run_color(index) if several else color_of(stage),
                tags=(run.label,) if several else (),
                marker=0 if len(curve.steps) <= 12 else None,
            )
        )
    joined = np.concatenate(values)
    joined = joined[~np.isnan(joined)]
    # A term that falls by a factor of thirty is a flat line on a linear axis.
    log = bool(len(joined)) and joined.min() > 0 and joined.max() > 30 * joined.min()
    return Panel(name, "step", "", series, log_y=bool(log))


def _histogram(
    label: str,
    pairs: list[tuple[Contents, NDArray[np.float64]]],
    edges: NDArray[np.float64],
    runs: Sequence[Contents],
    env_id: str,
    last: bool,
) -> Panel:
    several = len(runs) > 1
    series = []
    for run, returns in pairs:
        shares = 100 * np.histogram(returns, edges)[0] / len(returns)
        series.append(
            Series(
                name=run.label if several else label,
                x=shortened(edges),
                y=shortened([*shares, shares[-1]]),
                color=run_color(runs.index(run)) if several else HISTOGRAM_COLORS[label],
                tags=(run.label,) if several else (),
                outline=True,
            )
        )
    title = label if several else f"{label}: mean {pairs[0][1].mean():,.0f}, {len(pairs[0][1]):,} episodes"
    return Panel(title, f"episode return in {env_id}" if last else "", "% of episodes", series)


def _progress(run: Contents, index: int, stage: str, number_of_stage: int, several: bool) -> list[Series]:
    metrics = run.curves.get(stage, {})
    curve = metrics.get("episode_return")
    if curve is None:
        return []
    errors = metrics.get("episode_return_se")
    values, scale = curve.values, 1.0
    if run.env_id is not None and (bounds := reference(run.env_id)) is not None:
        values, scale = np.asarray(normalized_score(run.env_id, values)), 100 / (bounds[1] - bounds[0])
    aligned = errors is not None and np.array_equal(errors.steps, curve.steps)
    style: dict[str, Any] = {
        "color": run_color(index) if several else color_of(stage),
        "tags": (run.label, stage) if several else (stage,),
    }
    line = Series(
        name=f"{stage} · {run.label}" if several else stage,
        x=shortened(curve.steps),
        y=shortened(values),
        error=shortened(np.nan_to_num(errors.values * scale)) if aligned and errors is not None else [],
        marker=number_of_stage,
        dashed=stage != "student",
        **style,
    )
    row = next((row for row in run.rows if row.policy == stage), None)
    chosen = [] if row is None else [i for i, step in enumerate(curve.steps) if step == row.selected_step]
    name = f"{line.name}, chosen checkpoint"
    marks = [
        Series(name, [line.x[i]], [line.y[i]], line=False, marker=number_of_stage, large=True, **style) for i in chosen
    ]
    return [line, *marks]
