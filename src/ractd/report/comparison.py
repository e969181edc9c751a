"""A comparison as one page: who won, the table, and what each method's score costs in training and in acting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from ractd.data.scores import normalized_score
from ractd.files import write_text
from ractd.report.build import render
from ractd.report.contents import DATA, Contents, number, read_contents
from ractd.report.figures import BINS, GREY, STYLE, Plot, file_name, histogram, log_axis, new_plot, run_color
from ractd.report.tables import command
from ractd.results.comparison import MethodRows
from ractd.runs.tables import Cells

Runs = dict[tuple[str, str], list[Contents]]
"""The runs of each dataset and method, a seed each."""


def write_comparison(found: MethodRows, missing: Sequence[str], path: Path) -> Path:
    """Write the page; `missing` is a sentence for each run that is not in it."""
    runs: Runs = {}
    for run in found.runs:
        contents = read_contents(run.directory, run.directory.name)
        runs.setdefault((run.dataset, run.method), []).append(contents)
    datasets = list(dict.fromkeys(dataset for dataset, _ in runs))
    labels = list(found.rows.label.unique())
    headings, rows = found.cells()
    unit = (found.unit or "distance").capitalize()
    plots: dict[str, list[Plot]] = {}
    if found.unit is not None:
        plots = {
            "time": [time_plot(found, runs, labels)],
            "latency": [latency_plot(found, runs, labels)],
            "returns": [returns_plot(found, runs, dataset, labels) for dataset in datasets],
        }
    page = render(
        "comparison.html",
        title=f"{len(labels)} policies on {', '.join(datasets)}",
        labels=labels,
        colors=[run_color(index) for index in range(len(labels))],
        found=found,
        result=Cells(f"{unit}s", headings, rows, sortable=True),
        missing=missing,
        plots=plots,
        unit=unit,
        timed="a plan" if found.measured[0].plans else "an action",
        commands={
            method: command(contents[0]) for (dataset, method), contents in runs.items() if dataset == datasets[0]
        },
    )
    write_text(path, page)
    return path


@matplotlib.rc_context(STYLE)
def time_plot(found: MethodRows, runs: Runs, labels: Sequence[str]) -> Plot:
    """Score during training against the processor time until then, a panel for each dataset."""
    lines = found.lines()
    plot = _plot("score-time", "Score against training time", found, runs)
    for dataset, axes in zip(lines.dataset.unique(), plot.axes, strict=True):
        for (of, method), contents in runs.items():
            curves = [curve for each in contents if (curve := _curve(each)) is not None] if of == dataset else []
            if not curves:
                continue
            index = labels.index(method)
            length = min(len(values) for _, values in curves)
            minutes = np.mean([seconds[:length] for seconds, _ in curves], axis=0) / 60
            values = np.array([each[:length] for _, each in curves])
            drawn: list[Any] = axes.plot(minutes, values.mean(0), color=run_color(index))
            if len(values) > 1:
                drawn.append(
                    axes.fill_between(minutes, values.min(0), values.max(0), color=run_color(index), alpha=0.2, lw=0)
                )
            plot.mark(drawn, index, f"{method} during training")
        for line in lines[(lines.dataset == dataset) & (lines.checkpoint == "last")].itertuples():
            if np.isfinite(line.processor_seconds):
                _point(plot, axes, labels, line, line.processor_seconds / 60, "min")
    plot.axes[-1].set_xlabel("minutes of processor time")
    return plot


def _plot(key: str, title: str, found: MethodRows, runs: Runs) -> Plot:
    """Return a panel for each dataset, of scores against what is shown on a logarithmic axis, with the data's own score."""
    data = {dataset: contents[0].data_value for (dataset, _), contents in reversed(runs.items())}
    datasets = list(found.rows.dataset.unique())
    plot = new_plot(key, title, len(datasets), inches=3.2)
    for dataset, axes in zip(datasets, plot.axes, strict=True):
        axes.set(title=dataset if len(datasets) > 1 else "", ylabel=found.unit)
        log_axis(axes)
        if (value := data[dataset]) is not None:
            axes.axhline(value, color=GREY, linestyle="--")
    return plot


def _curve(run: Contents) -> tuple[Any, Any] | None:
    """Return the processor seconds and the values, [N] each, of the evaluations of a run's main policy during training.

    Steps of a stage cost the same, and other stages that it needed come before. None where either isn't known.
    """
    row = next(iter(run.rows.values()))
    stage = row.policy.removesuffix("-last")
    curve = run.curves.get(stage, {}).get("episode_return")
    record = run.result.get("stages", {}).get(stage, {})
    own, steps = number(record.get("processor_seconds")), number(record.get("steps"))
    if curve is None or own is None or not steps or row.processor_seconds is None:
        return None
    values = curve.values if row.scores is None else normalized_score(str(run.env_id), curve.values)
    return row.processor_seconds - own + own * curve.steps / steps, values


def _point(plot: Plot, axes: Any, labels: Sequence[str], line: Any, x: float, unit: str) -> None:
    """Draw a line of the table as a point, with its interval."""
    index, last = labels.index(line.label), line.checkpoint == "last"
    color = run_color(index)
    below, above = (line.mean - line.low, line.high - line.mean) if np.isfinite(line.low) else (line.error, line.error)
    spread = None if np.isnan(below) else [[below], [above]]
    look: dict[str, Any] = {"color": color, "markerfacecolor": color if last else "none", "markersize": 9}
    drawn = axes.errorbar([x], [line.mean], yerr=spread, linestyle="none", marker="o", capsize=2, **look)
    told = f"{line.label}, {line.checkpoint} checkpoint: {line.mean:,.1f}, {x:.3g} {unit}"
    plot.mark(drawn.get_children(), index, told)


@matplotlib.rc_context(STYLE)
def latency_plot(found: MethodRows, runs: Runs, labels: Sequence[str]) -> Plot:
    """Final scores against the time that an action takes, a panel for each dataset."""
    lines = found.lines()
    plot = _plot("score-latency", "Score against latency", found, runs)
    for dataset, axes in zip(lines.dataset.unique(), plot.axes, strict=True):
        axes.set_xlim(
            lines.ms_per_action.min() / 2, 2 * lines.ms_per_action.max()
        )  # times that are alike stay together
        for line in lines[lines.dataset == dataset].itertuples():
            _point(plot, axes, labels, line, line.ms_per_action, "ms")
    plot.axes[-1].set_xlabel(f"milliseconds per {'plan' if found.measured[0].plans else 'action'}, batch 1")
    return plot


@matplotlib.rc_context(STYLE)
def returns_plot(found: MethodRows, runs: Runs, dataset: str, labels: Sequence[str]) -> Plot:
    """Histograms of the episode returns of the data and of each last checkpoint, of all seeds together."""
    last = found.rows[(found.rows.dataset == dataset) & (found.rows.checkpoint == "last")]
    returns = {label: np.concatenate([*group.returns]) for label, group in last.groupby("label", sort=False)}
    data = next(contents[0] for (of, _), contents in runs.items() if of == dataset)
    if data.data_returns is not None:
        returns = {DATA: data.data_returns, **returns}
    edges = np.histogram_bin_edges(np.concatenate([*returns.values()]), BINS)
    plot = new_plot(f"returns-{file_name(dataset)}", f"Episode returns, {dataset}", len(returns))
    for (label, values), axes in zip(returns.items(), plot.axes, strict=True):
        index = labels.index(label) if label in labels else len(labels)
        drawn = histogram(axes, values, edges, GREY if label == DATA else run_color(index))
        told = f"{label}: mean {values.mean():,.0f}, {len(values):,} episodes"
        plot.mark(drawn, index, told)
        axes.set_title(told if len(told) < 70 else f"{label[:30]}…{told.removeprefix(label)}")
    plot.axes[-1].set_xlabel(f"episode return in {data.env_id}")
    return plot
