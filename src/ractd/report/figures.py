"""The plots of a report: score against latency, training curves, return histograms, score during training."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from ractd.data.scores import normalized_score, reference
from ractd.files import replacing
from ractd.report.contents import DATA, Contents, by_unit
from ractd.results.curves import Curve
from ractd.runs.meanings import meaning
from ractd.runs.rows import Row

GREY = "#7f7f7f"
COLORS = ("#4a7cc4", "#cf7417", "#2a9d62", "#b065c4", "#d0505f", "#1d93a0", "#a0743f", "#7c7f2a")
"""Of runs or of policies, at least 3:1 against both of the page's backgrounds."""
MARKERS = "osD^PX*v"
BINS = 40
MARKED_POINTS = 12
"""A curve of at most so many points shows them."""
SCORES = ("episode_return", "episode_return_se")
"""Metrics that the plot of the score during training shows."""
TEXT, LINE = "#1c2127", "#d7dce2"
"""Colours for which the page has its own, in both of its themes."""
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.facecolor": "none",
    "axes.edgecolor": TEXT,
    "grid.color": LINE,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "ractd",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), TEXT),
}


@dataclass
class Plot:
    """One figure of Matplotlib: in the page as SVG, beside it as a PNG file."""

    key: str
    """Name of the file and of the section."""
    title: str
    figure: Figure
    axes: list[Axes]
    note: str = ""
    """A line below it."""
    folded: bool = False
    """Shown when it is asked for, and in no file."""
    said: dict[str, str] = field(default_factory=dict)
    """What the page tells of marks under the pointer."""

    def mark(self, artists: Iterable[Any], run: int, said: str) -> None:
        """Let the page tell what artists are, and hide them with their run, given by its number."""
        for artist in artists:
            name = f"run{run}-{len(self.said)}"
            artist.set_gid(name)
            self.said[name] = said

    def legend(self, handles: Mapping[str, Any]) -> None:
        """Put a legend below everything."""
        if handles:
            self.figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)

    def write(self, directory: Path) -> Path:
        """Write a PNG file into a directory that need not exist, by atomic rename."""
        path = directory / f"{self.key}.png"
        with replacing(path) as partial, matplotlib.rc_context(STYLE):
            self.figure.savefig(partial, format="png", facecolor="white")
        return path

    def svg(self) -> str:
        """Return it as an element of the page, in the page's colours."""
        text = io.StringIO()
        with matplotlib.rc_context(STYLE):
            if (engine := self.figure.get_layout_engine()) is not None:
                engine.execute(self.figure)
                self.figure.set_layout_engine(None)  # where there is one, whatever is written is drawn twice
            self.figure.savefig(text, format="svg", facecolor="none", metadata={"Date": None})
        drawn = text.getvalue()
        drawn = re.sub(
            r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r' height="[^"]*"', "", drawn[drawn.index("<svg") :], count=1)
        )
        for color, of_page in ((TEXT, "currentColor"), (LINE, "var(--line)")):
            drawn = drawn.replace(color, of_page)
        for name, said in self.said.items():
            drawn = drawn.replace(f'<g id="{name}">', f'<g id="{name}"><title>{escape(said)}</title>', 1)
        # An id stands once in a page, and all plots stand in one.
        return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{self.key}-", drawn)


def new_plot(key: str, title: str, panels: int, *, inches: float = 1.2, width: float = 6.4) -> Plot:
    """Return a plot of empty panels, one below the other, so many inches high; they have a common horizontal axis."""
    figure = Figure(figsize=(width, 0.7 + inches * panels), dpi=120, layout="constrained")
    return Plot(key, title, figure, list(figure.subplots(panels, squeeze=False, sharex=True).flat))


def log_axis(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with plain numbers also where it spans less than a decade."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def histogram(axes: Axes, values: Any, edges: Any, color: str) -> Any:
    """Draw which share of some episodes [E] lies between edges, and return what is drawn."""
    axes.set_ylabel("% of episodes")
    shares = np.full(len(values), 100 / len(values))
    return axes.hist(values, list(edges), weights=shares, color=color, histtype="stepfilled", alpha=0.6)[2]


def run_color(index: int) -> str:
    """Return the colour of the report's run of that number."""
    return COLORS[index % len(COLORS)]


def color_of(runs: Sequence[Contents], name: str) -> str:
    """Return the colour of a policy or a stage, the same in all plots of a report."""
    policies = [row.policy.removesuffix("-last") for run in runs for row in run.rows.values()]
    names = unique([*policies, *(stage for run in runs for stage in run.curves), name.removesuffix("-last")])
    return COLORS[names.index(name.removesuffix("-last")) % len(COLORS)]


def _line(**look: Any) -> Line2D:
    return Line2D([], [], **{"color": GREY, "linestyle": "none", **look})


def _of_runs(runs: Sequence[Contents], drawn: Iterable[int]) -> dict[str, Line2D]:
    """Return the legend's entries of several runs, of those that are drawn: their colours."""
    return {runs[i].label: _line(color=run_color(i), linestyle="-") for i in drawn} if len(runs) > 1 else {}


@matplotlib.rc_context(STYLE)
def latency_plot(runs: Sequence[Contents]) -> Plot | None:
    """Score of every policy against the time that an action, or a plan, takes it, a panel for each unit."""
    several, names = len(runs) > 1, unique(name for run in runs for name in run.rows)
    units = {unit: indices for unit, indices in by_unit(runs).items() if any(_placed(runs[i]) for i in indices)}
    if not units:
        return None
    plot = new_plot("score-latency", "Score against latency", len(units), inches=3.2)
    handles: dict[str, Any] = _of_runs(runs, (index for indices in units.values() for index in indices))
    for (unit, indices), axes in zip(units.items(), plot.axes, strict=True):
        log_axis(axes)
        axes.margins(y=0.1)
        axes.set_ylabel(unit)
        times = [milliseconds for index in indices for _, _, milliseconds, _, _ in _placed(runs[index])]
        axes.set_xlim(min(times) / 1.5, max(times) * 1.5)
        for index in indices:
            run = runs[index]
            for name, row, milliseconds, value, error in _placed(run):
                color = run_color(index) if several else color_of(runs, row.policy)
                look: dict[str, Any] = {
                    "color": color,
                    "marker": MARKERS[names.index(name) % len(MARKERS)],
                    "markersize": 8,
                }
                drawn = axes.errorbar([milliseconds], [value], yerr=error, linestyle="none", capsize=2, **look)
                nfe = f"NFE {row.nfe}"
                told = f"{name}{f' of {run.label}' if several else ''}: {value:,.1f}, {milliseconds:.3g} ms, {nfe}"
                plot.mark(drawn.get_children(), index, told)
                entry = name if several else f"{name} ({nfe})"
                handles.setdefault(entry, _line(**look | ({"color": GREY} if several else {})))
            if run.data_value is not None and run.env_id is not None:
                color = run_color(index) if several else GREY
                drawn_line = axes.axhline(run.data_value, color=color, linestyle="--")
                plot.mark([drawn_line], index, f"{DATA}: {run.data_value:,.1f}")
                handles.setdefault(DATA, _line(linestyle="--"))
    plot.axes[-1].set_xlabel(f"milliseconds per {timed_of(runs)}, batch 1")
    plot.legend(handles)
    return plot


def _placed(run: Contents) -> list[tuple[str, Row, float, float, float | None]]:
    """Return name, row, milliseconds, value and standard error of the rows that were both valued and timed."""
    found = []
    for name, row in run.rows.items():
        value, error = run.value(row)
        if row.ms_per_action is not None and value is not None:
            found.append((name, row, row.ms_per_action, value, error))
    return found


@matplotlib.rc_context(STYLE)
def training_plots(runs: Sequence[Contents]) -> dict[str, list[Plot]]:
    """Return a curve of every metric, by stage: what the losses are made of, and folded what only says how training ran."""
    plots: dict[str, list[Plot]] = {}
    for stage in unique(name for run in runs for name in run.curves):
        curves = {index: run.curves[stage] for index, run in enumerate(runs) if stage in run.curves}
        names = unique(name for metrics in curves.values() for name in metrics if name not in SCORES)
        plots[stage] = []
        for name in names:
            if _is_total(name, names, curves.values()):
                continue
            told = meaning(next(runs[index].method for index, metrics in curves.items() if name in metrics), name)
            plot = new_plot(f"training-{stage}-{file_name(name)}", told.title, 1, inches=2.0, width=4.2)
            plot.note, plot.folded = told.text, told.aside
            for index, metrics in curves.items():
                if name in metrics:
                    color = run_color(index) if len(runs) > 1 else color_of(runs, stage)
                    drawn = _draw_curve(plot.axes[0], metrics[name], color)
                    plot.mark(drawn, index, f"{told.title} of {runs[index].label}" if len(runs) > 1 else told.title)
            plot.axes[0].set_title(told.title)
            plot.legend(_of_runs(runs, (index for index, metrics in curves.items() if name in metrics)))
            plots[stage].append(plot)
    return plots


def _is_total(name: str, names: Sequence[str], metrics: Iterable[dict[str, Curve]]) -> bool:
    """True for the sum of a single term: it would be drawn twice."""
    having = [each for each in metrics if name in each]
    return name == "loss" and any(
        all(other in each and np.array_equal(each[other].values, each[name].values, equal_nan=True) for each in having)
        for other in names
        if other != name
    )


def _draw_curve(axes: Axes, curve: Curve, color: str) -> list[Line2D]:
    known = curve.values[~np.isnan(curve.values)]
    # A term that falls by a factor of thirty is a flat line on a linear axis.
    if len(known) and known.min() > 0 and known.max() > 30 * known.min():
        axes.set_yscale("log")
    return axes.plot(curve.steps, curve.values, color=color, marker="o" if len(curve.steps) <= MARKED_POINTS else "")


def returns_of(run: Contents) -> dict[str, Any]:
    """Return the episode returns [E] of the data and of each policy as it samples by itself (the paper's Figure 3)."""
    first = {row.policy: name for name, row in reversed(run.rows.items())}
    played = {
        name: np.array(row.returns) for name, row in run.rows.items() if first[row.policy] == name and row.returns
    }
    return ({} if run.data_returns is None else {DATA: run.data_returns}) | played


@matplotlib.rc_context(STYLE)
def returns_plots(runs: Sequence[Contents]) -> list[Plot]:
    """Histograms of episode returns, one plot for each environment."""
    several, plots = len(runs) > 1, []
    environments = unique(str(run.env_id) for run in runs if any(row.returns for row in run.rows.values()))
    for env_id in environments:
        group = {index: returns_of(run) for index, run in enumerate(runs) if str(run.env_id) == env_id}
        names = unique(name for returns in group.values() for name in returns)
        edges = np.histogram_bin_edges(
            np.concatenate([v for returns in group.values() for v in returns.values()]), BINS
        )
        key = "returns" if len(environments) == 1 else f"returns-{file_name(env_id)}"
        plot = new_plot(key, f"Episode returns in {env_id}", len(names))
        for name, axes in zip(names, plot.axes, strict=True):
            axes.set_title(name)
            for index, returns in group.items():
                if name not in returns:
                    continue
                values, run = returns[name], runs[index]
                color = GREY if name == DATA else color_of(runs, run.rows[name].policy)
                drawn = histogram(axes, values, edges, run_color(index) if several else color)
                told = f"{name}: mean {values.mean():,.0f}, {len(values):,} episodes"
                plot.mark(drawn, index, f"{run.label}, {told}" if several else told)
                if not several:
                    axes.set_title(told)
        plot.axes[-1].set_xlabel(f"episode return in {env_id}")
        plot.legend(_of_runs(runs, group))
        plots.append(plot)
    return plots


@matplotlib.rc_context(STYLE)
def progress_plot(runs: Sequence[Contents]) -> Plot | None:
    """Score at the checkpoints that were evaluated during training, a panel for each unit; the chosen ones are large."""
    several = len(runs) > 1
    stages = unique(stage for run in runs for stage, metrics in run.curves.items() if "episode_return" in metrics)
    played = [i for i, run in enumerate(runs) if any("episode_return" in metrics for metrics in run.curves.values())]
    units = by_unit([runs[i] for i in played])
    if not units:
        return None
    plot = new_plot("score-training", "Score during training", len(units), inches=3.2)
    panels = dict(zip(units, plot.axes, strict=True))
    handles: dict[str, Any] = _of_runs(runs, played)
    for index, run in enumerate(runs):
        for number, stage in enumerate(stages):
            curve = run.curves.get(stage, {}).get("episode_return")
            if curve is None:
                continue
            values, errors = _in_unit(run, curve, run.curves[stage].get("episode_return_se"))
            color = run_color(index) if several else color_of(runs, stage)
            look: dict[str, Any] = {"color": color, "marker": MARKERS[number % len(MARKERS)]}
            axes = panels[run.unit]
            drawn = axes.errorbar(curve.steps, values, yerr=errors, capsize=2, **look).get_children()
            best = [row.step for row in run.rows.values() if row.policy == stage and row.step is not None]
            chosen = np.isin(curve.steps, best)
            drawn += axes.plot(curve.steps[chosen], values[chosen], linestyle="none", markersize=12, **look)
            plot.mark(drawn, index, f"{stage} of {run.label}" if several else stage)
            handles.setdefault(stage, _line(**look | ({"color": GREY} if several else {"linestyle": "-"})))
    for unit, axes in panels.items():
        axes.set_ylabel(unit)
    plot.axes[-1].set_xlabel("training step")
    plot.legend(handles)
    return plot


def _in_unit(run: Contents, curve: Curve, errors: Curve | None) -> tuple[Any, Any]:
    """Return evaluations during training and their standard errors, [N] each, in the run's unit; None for errors of other steps."""
    bounds = None if run.env_id is None else reference(run.env_id)
    values, scale = curve.values, 1.0
    if bounds is not None:
        values, scale = np.asarray(normalized_score(str(run.env_id), values)), 100 / (bounds[1] - bounds[0])
    known = errors is not None and np.array_equal(errors.steps, curve.steps)
    return values, np.nan_to_num(errors.values * scale) if known and errors is not None else None


def timed_of(runs: Sequence[Contents]) -> str:
    """Return what runs' milliseconds are for."""
    return " or ".join(unique(run.timed for run in runs if run.rows)) or "action"


def unique(names: Iterable[str]) -> list[str]:
    """Return names without repetitions, in their order."""
    return list(dict.fromkeys(names))


def file_name(text: str) -> str:
    """Return text as the name of a file on any system."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text)
