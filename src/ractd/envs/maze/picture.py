"""A maze as a picture: where the data has been, what was planned, what came of it. Needs Matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.envs.maze.maps import CENTRE, Maze
from ractd.errors import RactdError
from ractd.files import replacing

Array = NDArray[np.floating[Any]]

WALL_COLOR, FLOOR_COLOR, GOAL_COLOR = "#39424e", "#fbfaf7", "#d62839"
PAIR_COLORS = ("#1f77b4", "#e07b00", "#2a9d4a", "#9b4dca", "#c2185b", "#008b9a", "#8c6d31", "#5c5c5c")
BINS_PER_CELL = 24
PANEL_INCHES = 4.0
CROPPED = 0.6
"""Of the outer wall's cells on each side."""


@dataclass(frozen=True)
class MazePanel:
    """One maze of a picture; sequence b of `plans` and of `executed` is of the same start and goal, in one colour."""

    title: str
    data: Array | None = None
    """States [N, 2 or more], drawn as a density."""
    plans: Sequence[Array] = ()
    """Planned states, each [H, 2 or more]; dashed where there is something executed beside them."""
    executed: Sequence[Array] = ()
    """States that came of it, each [T, 2 or more]."""


def draw(maze: Maze, panels: Sequence[MazePanel], path: Path) -> Path:
    """Draw panels of a maze side by side, as its text map lies (x downwards), and return the image's path.

    The suffix says the format; the file appears whole or not at all. Raises `RactdError` without Matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise RactdError('pictures need Matplotlib, which is not installed: pip install "ractd[plot]"') from None
    rows, columns = maze.grid.shape
    height = PANEL_INCHES * (rows - 2 * CROPPED) / (columns - 2 * CROPPED)
    figure = Figure(figsize=(PANEL_INCHES * len(panels), height + 0.3), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw_panel(axes, maze, panel)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150, format=path.suffix[1:])
    return path


def draw_panel(axes: Any, maze: Maze, panel: MazePanel) -> None:
    """Draw one panel on Matplotlib axes of one's own."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    rows, columns = maze.grid.shape
    low = CENTRE - 0.5
    axes.set_title(panel.title, fontsize=11, loc="left")
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    axes.set_facecolor(FLOOR_COLOR)
    if panel.data is not None:
        edges = [low + np.arange(size * BINS_PER_CELL + 1) / BINS_PER_CELL for size in (rows, columns)]
        counts, *_ = np.histogram2d(panel.data[:, 0], panel.data[:, 1], bins=edges)
        shades = LinearSegmentedColormap.from_list("density", ["#e3edf5", "#7fb0d3", "#1c5c93"])
        # The brightest hundredth is cut off, or a few crossings would leave the rest pale.
        norm = LogNorm(1, max(2.0, float(np.quantile(counts[counts > 0], 0.99)) if counts.any() else 0.0))
        axes.pcolormesh(edges[1], edges[0], np.ma.masked_equal(counts, 0), cmap=shades, norm=norm, rasterized=True)
    extent = (low, low + columns, low + rows, low)
    wall = LinearSegmentedColormap.from_list("wall", [WALL_COLOR, WALL_COLOR])
    axes.imshow(np.ma.masked_equal(maze.walls.astype(float), 0), cmap=wall, extent=extent, interpolation="nearest")
    axes.set_xlim(low + CROPPED, low + columns - CROPPED)
    axes.set_ylim(low + rows - CROPPED, low + CROPPED)
    for sequences, style in ((panel.plans, "--" if len(panel.executed) else "-"), (panel.executed, "-")):
        for pair, states in enumerate(sequences):
            color = PAIR_COLORS[pair % len(PAIR_COLORS)]
            axes.plot(states[:, 1], states[:, 0], style, color=color, linewidth=1.5, alpha=0.85)
            axes.plot(states[0, 1], states[0, 0], "o", color=color, markersize=6, markeredgecolor="white", zorder=4)
    axes.plot(maze.goal[1], maze.goal[0], "*", color=GOAL_COLOR, markersize=14, markeredgecolor="white", zorder=5)
