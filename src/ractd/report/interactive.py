"""Figures for the page: what plotly.js draws, and plotly.js itself, small enough to be sent by mail."""

from __future__ import annotations

import base64
import gzip
import math
from functools import cache
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ractd.report.plots import SYMBOLS, Figure, Panel, Series

SIDES = {"top": "top center", "bottom": "bottom center", "left": "middle left", "right": "middle right"}
TICKS = [digit * 10.0**power for power in range(-4, 6) for digit in (1, 2, 5)]
"""Of a logarithmic axis in milliseconds; plotly's own name the digits 2 and 5 without their power."""


@cache
def library() -> str:
    """Return plotly.js, gzipped and in base64: the page inflates it, and nothing is fetched from anywhere."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def figure_json(figure: Figure) -> dict[str, Any]:
    """Return a figure as the page's script takes it; colours of the page itself (text, grid) are the script's."""
    return {"key": figure.key, "panels": [_panel(panel) for panel in figure.panels]}


def _panel(panel: Panel) -> dict[str, Any]:
    traces = [_trace(series) for series in panel.series]
    x = (
        {"type": "log", "tickvals": TICKS, "ticktext": [f"{tick:g}" for tick in TICKS]}
        if panel.log_x
        else {"exponentformat": "SI"}
    )
    y = {"type": "log", "dtick": 1} if panel.log_y else {}
    layout = go.Layout(
        xaxis={"title": {"text": panel.x_label}, **x},
        yaxis={"title": {"text": panel.y_label}, "exponentformat": "power", **y},
    )
    return {
        "traces": [trace.to_plotly_json() for trace in traces],
        "tags": [series.tags for series in panel.series],
        "layout": layout.to_plotly_json(),
    }


def _trace(series: Series) -> Any:
    modes = (("lines", series.line), ("markers", series.marker is not None), ("text", bool(series.label)))
    trace = go.Scatter(
        name=series.name,
        x=list(series.x),
        y=[None if math.isnan(value) else value for value in series.y],
        mode="+".join(mode for mode, used in modes if used),
        line={"color": series.color, "width": 2, "dash": "dash" if series.dashed else "solid"},
        hoverlabel={"namelength": -1},
    )
    if series.outline:
        trace.update(line={"shape": "hv", "width": 1.5}, fill="tozeroy", opacity=0.9)
    if series.marker is not None:
        symbol = SYMBOLS[series.marker % len(SYMBOLS)][0]
        trace.update(marker={"color": series.color, "size": 17 if series.large else 10, "symbol": symbol})
    if series.label:
        trace.update(text=[series.label] * len(series.x), textposition=SIDES[series.side], cliponaxis=False)
    if any(series.error):
        trace.update(error_y={"type": "data", "array": list(series.error), "thickness": 1.2, "width": 3})
    return trace
