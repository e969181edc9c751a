"""The report's plots as PNG files, drawn by Matplotlib: plotly's own way to PNG needs a browser, which servers lack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from ractd.report.plots import SYMBOLS, Entry, Figure, Series
from ractd.training.checkpoint import replacing

PANEL_INCHES = 4.2
SIDES: dict[str, dict[str, Any]] = {
    "top": {"xytext": (0, 7), "ha": "center"},
    "left": {"xytext": (-8, 0), "ha": "right", "va": "center"},
    "right": {"xytext": (8, 0), "ha": "left", "va": "center"},
}


def write_pictures(figures: Sequence[Figure], directory: Path) -> list[Path]:
    """Write one PNG a figure into a directory that need not exist, by atomic rename."""
    paths = []
    for figure in figures:
        path = directory / f"{figure.key}.png"
        canvas = _canvas(figure)
        with replacing(path) as partial:
            canvas.savefig(partial, dpi=100, format="png")
        paths.append(path)
    return paths


def _canvas(figure: Figure) -> Canvas:
    columns = min(figure.columns, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    stacked = columns == 1 and rows > 1
    size = (8.0, 1.0 + 1.6 * rows) if stacked else (max(8.0, PANEL_INCHES * columns), 0.6 + 0.75 * PANEL_INCHES * rows)
    if columns == rows == 1:
        size = (8.0, 5.0)
    canvas = Canvas(figsize=size, layout="constrained")
    grid = canvas.subplots(rows, columns, squeeze=False, sharex=stacked)
    canvas.suptitle(figure.title, x=0.01, ha="left", fontsize=12)
    for axes in grid.flat[len(figure.panels) :]:
        axes.set_axis_off()
    for panel, axes in zip(figure.panels, grid.flat, strict=False):
        if panel.log_x:
            axes.set_xscale("log")
        if panel.log_y:
            axes.set_yscale("log")
        for series in panel.series:
            _draw(axes, series)
        axes.set_title(panel.title, loc="left", fontsize=10)
        axes.set_xlabel(panel.x_label, fontsize=9)
        axes.set_ylabel(panel.y_label, fontsize=9)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if figure.legend:
        handles = [_handle(entry) for entry in figure.legend]
        canvas.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return canvas


def _draw(axes: Any, series: Series) -> None:
    if series.outline:
        axes.stairs(series.y[:-1], series.x, fill=True, color=series.color, alpha=0.3)
        axes.stairs(series.y[:-1], series.x, color=series.color)
        return
    axes.errorbar(
        series.x,
        series.y,
        yerr=series.error if any(series.error) else None,
        color=series.color,
        linestyle=("--" if series.dashed else "-") if series.line else "none",
        marker="" if series.marker is None else SYMBOLS[series.marker % len(SYMBOLS)][1],
        markersize=11 if series.large else 6,
        capsize=2,
    )
    for point in zip(series.x, series.y, strict=True) if series.label else ():
        axes.annotate(series.label, point, textcoords="offset points", fontsize=8, **SIDES[series.side])


def _handle(entry: Entry) -> Line2D:
    marker = "" if entry.marker is None else SYMBOLS[entry.marker % len(SYMBOLS)][1]
    color = entry.color or "#555555"
    style = "--" if entry.dashed else "none" if entry.marker is not None else "-"
    return Line2D([], [], color=color, marker=marker, linestyle=style, label=f"{entry.tag} {entry.note}".strip())
