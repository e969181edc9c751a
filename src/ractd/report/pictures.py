"""The report's plots as PNG files, drawn by Matplotlib: plotly's own way to PNG needs a browser, which servers lack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from ractd.files import replacing
from ractd.report.plots import SYMBOLS, Entry, Figure, Series

PANEL_INCHES = 4.2
DPI = 150
SIDES: tuple[dict[str, Any], ...] = (
    {"xytext": (0, 7), "ha": "center", "va": "bottom"},
    {"xytext": (9, 0), "ha": "left", "va": "center"},
    {"xytext": (-9, 0), "ha": "right", "va": "center"},
    {"xytext": (0, -8), "ha": "center", "va": "top"},
    {"xytext": (6, 6), "ha": "left", "va": "bottom"},
    {"xytext": (6, -6), "ha": "left", "va": "top"},
    {"xytext": (-6, 6), "ha": "right", "va": "bottom"},
    {"xytext": (-6, -6), "ha": "right", "va": "top"},
)
"""Of a point, where its text can be, the best first."""
MARKER_PIXELS = 12
ROUNDS = 3
"""In which each text looks for its place among the others'."""


def write_pictures(figures: Sequence[Figure], directory: Path) -> list[Path]:
    """Write one PNG a figure into a directory that need not exist, by atomic rename."""
    paths = []
    for figure in figures:
        path = directory / f"{figure.key}.png"
        canvas = _canvas(figure)
        with replacing(path) as partial:
            canvas.savefig(partial, format="png")
        paths.append(path)
    return paths


def _canvas(figure: Figure) -> Canvas:
    columns = min(figure.columns, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    stacked = columns == 1 and rows > 1
    size = (8.0, 1.0 + 1.6 * rows) if stacked else (max(8.0, PANEL_INCHES * columns), 0.6 + 0.75 * PANEL_INCHES * rows)
    if columns == rows == 1:
        size = (8.0, 5.0)
    canvas = Canvas(figsize=size, dpi=DPI, layout="constrained")
    grid = canvas.subplots(rows, columns, squeeze=False, sharex=stacked)
    canvas.suptitle(figure.title, x=0.01, ha="left", fontsize=12)
    for axes in grid.flat[len(figure.panels) :]:
        axes.set_axis_off()
    for panel, axes in zip(figure.panels, grid.flat, strict=False):
        if panel.log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        if panel.log_y:
            axes.set_yscale("log")
        for series in panel.series:
            _draw(axes, series)
        axes.set_title(panel.title, loc="left", fontsize=10)
        axes.set_xlabel(panel.x_label, fontsize=9)
        axes.set_ylabel(panel.y_label, fontsize=9)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    named = {series.name for panel in figure.panels for series in panel.series if series.label}
    handles = [_handle(entry) for entry in figure.legend if entry.tag not in named]
    if handles:
        canvas.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    if named:
        # Where texts have room is known only once everything else has its place.
        canvas.draw_without_rendering()
        for panel, axes in zip(figure.panels, grid.flat, strict=False):
            _name_points(axes, [series for series in panel.series if series.label])
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


def _name_points(axes: Any, points: Sequence[Series]) -> None:
    """Write names and labels beside single points, each on the side where it hides the least."""
    if not points:
        return
    marks = [_marked(axes, point) for point in points]
    written = [[_write(axes, point, side) for side in SIDES] for point in points]
    boxes = [[text.get_window_extent() for text in texts] for texts in written]
    chosen: dict[int, int] = {}
    for _ in range(ROUNDS):
        for i, candidates in enumerate(boxes):
            others = [*marks, *(boxes[j][side] for j, side in chosen.items() if j != i)]
            hidden = [sum(_shared(box, o) for o in others) + _area(box) - _shared(box, axes.bbox) for box in candidates]
            chosen[i] = hidden.index(min(hidden))
    for i, texts in enumerate(written):
        for side, text in enumerate(texts):
            if side != chosen[i]:
                text.remove()


def _write(axes: Any, point: Series, side: dict[str, Any]) -> Any:
    # Long names take two lines: points of about the same score stand side by side.
    text = point.name.replace(", ", ",\n") + f"\n{point.label}"
    look = {"fontsize": 9, "color": point.color, "linespacing": 1.05, "in_layout": False}
    return axes.annotate(text, (point.x[0], point.y[0]), textcoords="offset points", **look, **side)


def _marked(axes: Any, point: Series) -> Bbox:
    """What a point's marker and error bar cover, in pixels."""
    error = max(point.error, default=0.0)
    ends = axes.transData.transform([(point.x[0], point.y[0] + sign * error) for sign in (-1, 1)])
    return Bbox(ends).padded(MARKER_PIXELS / 2)


def _area(box: Bbox) -> float:
    return float(box.width * box.height)


def _shared(a: Bbox, b: Bbox) -> float:
    """The area that two boxes share."""
    shared = Bbox.intersection(a, b)
    return 0.0 if shared is None else _area(shared)


def _handle(entry: Entry) -> Line2D:
    marker = "" if entry.marker is None else SYMBOLS[entry.marker % len(SYMBOLS)][1]
    color = entry.color or "#555555"
    style = "--" if entry.dashed else "none" if entry.marker is not None else "-"
    return Line2D([], [], color=color, marker=marker, linestyle=style, label=f"{entry.tag} {entry.note}".strip())
