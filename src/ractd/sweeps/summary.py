"""What a sweep found: one table as Markdown, CSV and JSON, and performance profiles."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ractd.files import replacing, write_json
from ractd.runs.rows import Row, labels, read_result
from ractd.sweeps.grid import Run, label
from ractd.sweeps.statistics import FEWEST_SEEDS, Array, installed, interquartile_mean, intervals, performance_profile

FORMAT_VERSION = 1
UNITS = {"score": "mean_score", "return": "mean_return", "estimated return": "estimated_return"}
"""What runs are compared by: the first that all of them have. Only scores mean the same on several datasets."""
THRESHOLDS = 101


@dataclass(frozen=True)
class Line:
    """One setting under one policy."""

    setting: str
    values: dict[str, dict[int, float]]
    """Of each dataset and seed that has one."""
    iqm: float | None = None
    """Interquartile mean of `scores`; None where there are none, or datasets can't be compared."""
    interval: tuple[float, float] | None = None
    """95%, of the interquartile mean; None for fewer than `FEWEST_SEEDS` seeds."""

    @property
    def seeds(self) -> list[int]:
        """Seeds that every dataset has: statistics are of those."""
        return sorted(set.intersection(*(set(of_task) for of_task in self.values.values())))

    @property
    def scores(self) -> Array:
        """Values `[seeds, datasets]`."""
        return np.array([[of_task[seed] for of_task in self.values.values()] for seed in self.seeds], dtype=np.float64)


@dataclass(frozen=True)
class Summary:
    """The tables of a sweep, one a policy."""

    unit: str
    tasks: list[str]
    policies: dict[str, list[Line]]
    profiles: dict[str, Any] | None
    """Of the main policy; None where datasets can't be compared."""

    @property
    def main(self) -> str:
        """The policy that a sweep is about: the first row of its results."""
        return next(iter(self.policies))


def summarize(runs: Sequence[Run], out: Path) -> Summary | None:
    """Compare the finished runs of a sweep; None where there is none."""
    rows: dict[Run, dict[str, Row]] = {}
    for run in runs:
        result = read_result(out / run.name)
        if result is not None and result.complete:
            rows[run] = dict(zip(labels(result.rows), result.rows, strict=True))
    if not rows:
        return None
    found = [row for each in rows.values() for row in each.values()]
    unit = next(unit for unit, column in UNITS.items() if all(getattr(row, column) is not None for row in found))
    tasks = list(dict.fromkeys(run.task for run in runs))
    comparable = installed() and (unit == "score" or len(tasks) == 1)
    policies = {}
    for policy in dict.fromkeys(name for each in rows.values() for name in each):
        values = {run: getattr(each[policy], UNITS[unit]) for run, each in rows.items() if policy in each}
        if values:
            lines = _lines(runs, values, tasks)
            policies[policy] = _with_statistics(lines) if comparable else lines
    summary = Summary(unit, tasks, policies, None)
    return replace(summary, profiles=_profiles(policies[summary.main])) if comparable else summary


def _lines(runs: Sequence[Run], values: dict[Run, Any], tasks: list[str]) -> list[Line]:
    return [
        Line(
            label(setting),
            {
                task: {run.seed: value for run, value in values.items() if (run.setting, run.task) == (setting, task)}
                for task in tasks
            },
        )
        for setting in dict.fromkeys(run.setting for run in runs)
    ]


def _with_statistics(lines: list[Line]) -> list[Line]:
    bounds = intervals({line.setting: line.scores for line in lines if len(line.seeds) >= FEWEST_SEEDS})
    return [
        replace(line, iqm=interquartile_mean(line.scores), interval=bounds.get(line.setting)) if line.seeds else line
        for line in lines
    ]


def _profiles(lines: list[Line]) -> dict[str, Any] | None:
    scores = {line.setting: line.scores for line in lines if line.seeds}
    if not scores:
        return None
    everything = np.concatenate([values.ravel() for values in scores.values()])
    thresholds: Array = np.linspace(min(0.0, everything.min()), everything.max(), THRESHOLDS)
    named = {
        name: {"share": share.tolist(), "low": low.tolist(), "high": high.tolist()}
        for name, (share, low, high) in performance_profile(scores, thresholds).items()
    }
    return {"thresholds": thresholds.tolist(), "settings": named}


def _cells(line: Line) -> list[str]:
    cells = [line.setting]
    for of_task in line.values.values():
        values = list(of_task.values())
        spread = f" ± {np.std(values, ddof=1) / np.sqrt(len(values)):.1f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.1f}{spread}" if values else "-")
    interval = f" [{line.interval[0]:.1f}, {line.interval[1]:.1f}]" if line.interval else ""
    return [*cells, f"{line.iqm:.1f}{interval}" if line.iqm is not None else "-", str(len(line.seeds))]


def _columns(summary: Summary) -> list[str]:
    return ["setting", *summary.tasks, "IQM [95% bootstrap interval]", "seeds"]


def _caption(summary: Summary) -> str:
    unit = {
        "score": "D4RL-normalised scores",
        "return": "returns",
        "estimated return": "the return model's estimates of the discounted return-to-go",
    }[summary.unit]
    if not installed():
        lacking = '; interquartile means need rliable: pip install "ractd[sweeps]"'
    elif summary.unit != "score" and len(summary.tasks) > 1:
        lacking = "; datasets of different scales have no common mean"
    else:
        lacking = ""
    statistics = "mean ± standard error over seeds, and the interquartile mean (IQM) over all runs"
    return f"{unit[0].upper()}{unit[1:]}: {statistics}{lacking}."


def main_table(summary: Summary) -> Table:
    """Return the main policy's table for people."""
    table = Table(title=summary.main, title_justify="left", caption=_caption(summary), caption_justify="left")
    for index, column in enumerate(_columns(summary)):
        table.add_column(column.replace("[", "\\["), justify="right" if index else "left")
    for line in summary.policies[summary.main]:
        table.add_row(*(cell.replace("[", "\\[") for cell in _cells(line)))
    return table


def write_summary(summary: Summary, out: Path, missing: Sequence[str]) -> list[Path]:
    """Write `sweep.md`, `sweep.csv`, `sweep.json` and, where Matplotlib is installed, `profiles.png`; return their paths.

    `missing` is a sentence for each run that is not in the tables.
    """
    paths = [out / "sweep.md", out / "sweep.csv", out / "sweep.json"]
    with replacing(paths[0]) as partial:
        partial.write_text(_markdown(summary, missing))
    with replacing(paths[1]) as partial:
        partial.write_text(_csv(summary))
    content = {
        "format": "ractd-sweep",
        "format_version": FORMAT_VERSION,
        "unit": summary.unit,
        "datasets": summary.tasks,
        "policies": {name: [asdict(line) for line in lines] for name, lines in summary.policies.items()},
        "profiles": summary.profiles,
        "missing": list(missing),
    }
    write_json(paths[2], content)
    if summary.profiles and _draw(summary, out / "profiles.png"):
        paths.append(out / "profiles.png")
    return paths


def _markdown(summary: Summary, missing: Sequence[str]) -> str:
    columns = _columns(summary)
    parts = ["# Sweep\n", _caption(summary) + "\n"]
    for name in sorted(summary.policies, key=lambda name: name != summary.main):
        parts.append(f"## {name}\n")
        header = [f"| {' | '.join(columns)} |", "| --- |" + " ---: |" * (len(columns) - 1)]
        parts.append(
            "\n".join([*header, *(f"| {' | '.join(_cells(line))} |" for line in summary.policies[name])]) + "\n"
        )
    if missing:
        parts.append("## Missing\n\n" + "\n".join(f"- {sentence}" for sentence in missing) + "\n")
    return "\n".join(parts)


def _csv(summary: Summary) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["policy", "setting", "unit", *summary.tasks, "iqm", "low", "high", "seeds"])
    for policy, lines in summary.policies.items():
        for line in lines:
            means = [float(np.mean(list(of_task.values()))) if of_task else "" for of_task in line.values.values()]
            low, high = line.interval or ("", "")
            iqm = "" if line.iqm is None else line.iqm
            writer.writerow([policy, line.setting, summary.unit, *means, iqm, low, high, len(line.seeds)])
    return text.getvalue()


def _draw(summary: Summary, path: Path) -> bool:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    profiles = summary.profiles or {}
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = figure.subplots()
    for name, profile in profiles["settings"].items():
        axes.plot(profiles["thresholds"], profile["share"], label=name)
        axes.fill_between(profiles["thresholds"], profile["low"], profile["high"], alpha=0.2)
    axes.set_xlabel(summary.unit)
    axes.set_ylabel("share of runs above")
    axes.set_ylim(-0.02, 1.02)
    axes.set_title(f"Performance profiles of {summary.main}; bands: 95%", loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=100, format="png")
    return True
