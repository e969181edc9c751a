"""Puts the report together: read, plot, film, and one page of it all."""

from __future__ import annotations

import base64
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console

from ractd.errors import RactdError
from ractd.files import write_text
from ractd.report import tables
from ractd.report.contents import Contents, by_unit, read_runs
from ractd.report.figures import latency_plot, progress_plot, returns_plots, training_plots, unique
from ractd.report.video import Clip, best_and_worst
from ractd.runs.meanings import meaning


@dataclass(frozen=True)
class Written:
    """A report and what belongs to it."""

    page: Path
    """The HTML file."""
    pictures: list[Path]
    """The plots as PNG files."""
    missing: list[str]
    """What it doesn't show and why, a sentence each."""


def build(directories: Sequence[Path], path: Path, video: bool, console: Console) -> Written:
    """Write the page and its pictures; see `write_report`."""
    runs = read_runs(directories)
    clips = _film(runs, console) if video else {}
    latency, progress, training = latency_plot(runs), progress_plot(runs), training_plots(runs)
    plots = {
        "latency": [latency] if latency else [],
        "returns": returns_plots(runs),
        "progress": [progress] if progress else [],
    }
    page = render(
        "page.html",
        title=" · ".join(run.label for run in runs[:4]) + (f" and {len(runs) - 4} more" if len(runs) > 4 else ""),
        runs=runs,
        several=len(runs) > 1,
        environments=unique(run.env_id or "no environment" for run in runs),
        units=list(by_unit(runs)),
        plots=plots,
        training=[
            (stage, meaning(next(run.method for run in runs if stage in run.curves), stage), drawn)
            for stage, drawn in training.items()
        ],
        clips=clips,
        tables=tables,
    )
    every = [plot for group in (*plots.values(), *training.values()) for plot in group]
    pictures = [plot.write(path.with_suffix("")) for plot in every if not plot.folded]
    write_text(path, page)
    several = len(runs) > 1
    missing = [f"{run.label}: {what}" if several else what for run in runs for what in run.missing]
    return Written(path, pictures, missing)


def _film(runs: Sequence[Contents], console: Console) -> dict[str, list[Clip]]:
    """Clips of each run, by its label; why there are none goes to what is missing."""
    clips = {}
    for run in runs:
        with console.status("") as status:
            try:
                clips[run.label] = best_and_worst(run, status.update)
            except (RactdError, OSError) as error:
                run.missing.append(f"video: there is none, for {error}.")
    return clips


def render(template: str, **what: Any) -> str:
    """Return a page of a template of this folder, with the style, the script and the date that all have."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ractd.report", ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    files = resources.files("ractd.report")
    return environment.get_template(template).render(
        **what,
        style=files.joinpath("page.css").read_text(encoding="utf-8"),
        script=files.joinpath("page.js").read_text(encoding="utf-8"),
        version=importlib.metadata.version("ractd"),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
