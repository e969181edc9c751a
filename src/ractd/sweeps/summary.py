"""What a sweep found: tables as Markdown, CSV and JSON, and performance profiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from ractd.files import replacing, write_json, write_text
from ractd.results.statistics import FEWEST_SEEDS, installed, interquartile_means, performance_profiles, t_interval
from ractd.results.tables import markdown_table, terminal_table
from ractd.runs.rows import complete_result, frame
from ractd.runs.tables import with_error, with_interval
from ractd.sweeps.grid import SweepRun, label

FORMAT_VERSION = 2
UNITS = {
    "score": ("mean_score", "D4RL-normalised scores"),
    "return": ("mean_return", "Returns"),
    "estimated return": ("estimated_return", "The critic's estimates of the discounted return-to-go"),
    "distance to data": ("distance_to_data", "Distances of actions to the data's"),
}
"""What runs are compared by, the first that all rows have: a row's column, and what it is.

Only scores mean the same on several datasets."""
LINE = ["policy", "setting", "checkpoint"]
INTERVALS = {"iqm": "IQM [95% bootstrap interval]", "difference": "difference to the first [95% t interval]"}
"""Columns of the lines that have an interval, and their headings."""
THRESHOLDS = 101


@dataclass(frozen=True)
class Summary:
    """The tables of a sweep."""

    unit: str
    """A key of `UNITS`."""
    datasets: list[str]
    values: pd.DataFrame
    """A line a row of a result: policy, setting, checkpoint, dataset, seed, value in `unit`, processor_seconds."""
    lines: pd.DataFrame
    """A line a policy, setting and checkpoint.

    `DATASET` and `DATASET_se` are the mean over seeds and its standard error, `processor_seconds` the mean of the trainings. Over
    `seeds`, those that every dataset has: `iqm`, the interquartile mean, and `difference`, that of the mean to the policy's first
    setting, each with an interval (`iqm_low`, `iqm_high`, ...).
    """
    profiles: dict[str, Any] | None
    """Of the policy that the sweep is about; None where datasets can't be compared."""

    @property
    def main(self) -> str:
        """The policy that the sweep is about: what stands first in the runs' results."""
        return str(self.lines.policy.iloc[0])


def summarize(runs: Sequence[SweepRun], out: Path) -> Summary | None:
    """Compare the finished runs of a sweep; None where there is none."""
    found = []
    for run in runs:
        if (result := complete_result(out / run.name)) is not None:
            found += [(run, row, row.variant == result.rows[0].variant) for row in result.rows]
    if not found:
        return None
    rows = frame([row for _, row, _ in found]).assign(
        dataset=[run.dataset_name for run, _, _ in found],
        setting=[label(run.setting) for run, _, _ in found],
        seed=[run.seed for run, _, _ in found],
    )
    if rows.method.nunique() > 1:  # each method's main policy in one table
        rows["setting"] = rows.method + ", " + rows.setting
        rows["policy"] = (rows.method + ": " + rows.variant).mask([main for _, _, main in found], "each method's own")
    else:
        rows["policy"] = rows.variant
    unit = next(unit for unit, (column, _) in UNITS.items() if column in rows and rows[column].notna().all())
    values = rows.assign(value=rows[UNITS[unit][0]].astype(float))
    values = values[[*LINE, "dataset", "seed", "value", "processor_seconds"]]
    datasets = list(dict.fromkeys(run.dataset_name for run in runs))
    comparable = installed() and (unit == "score" or len(datasets) == 1)
    lines, scores = _lines(values, datasets)
    if comparable:
        lines = lines.join(_statistics(scores))
    profiles = _profiles(scores) if comparable else None
    return Summary(unit, datasets, values, lines.reset_index(), profiles)


Scores = dict[tuple[str, str, str], pd.DataFrame]
"""By policy, setting and checkpoint [seeds, datasets], of the seeds that every dataset has."""


def _lines(values: pd.DataFrame, datasets: list[str]) -> tuple[pd.DataFrame, Scores]:
    records, scores = {}, {}
    for key, group in values.groupby(LINE, sort=False):
        wide = group.pivot(index="seed", columns="dataset", values="value").reindex(columns=datasets)
        scores[key] = wide.dropna()
        errors = wide.sem().add_suffix("_se")
        counts = {"seeds": len(scores[key]), "processor_seconds": group.processor_seconds.astype(float).mean()}
        records[key] = {**wide.mean(), **errors, **counts}
    index = pd.MultiIndex.from_tuples(records, names=LINE)
    return pd.DataFrame(list(records.values()), index=index), scores


def _statistics(scores: Scores) -> pd.DataFrame:
    """Return interquartile means, and paired differences of means to the first setting of the same policy and checkpoint."""
    means = interquartile_means({key: values.to_numpy() for key, values in scores.items() if len(values)})
    table = pd.DataFrame(means, index=["iqm", "iqm_low", "iqm_high"]).T.rename_axis(index=LINE)
    first: dict[tuple[str, str], pd.DataFrame] = {}
    for (policy, setting, checkpoint), values in scores.items():
        reference = first.setdefault((policy, checkpoint), values)
        difference = (values - reference).mean(axis=1).dropna()
        if reference is not values and len(difference) >= FEWEST_SEEDS:
            bounds = t_interval(difference.to_numpy())
            columns = ["difference", "difference_low", "difference_high"]
            table.loc[(policy, setting, checkpoint), columns] = [difference.mean(), *bounds]
    return table


def _profiles(scores: Scores) -> dict[str, Any] | None:
    main = next(iter(scores))[0]
    several = len({checkpoint for policy, _, checkpoint in scores if policy == main}) > 1
    arrays = {
        f"{setting}, {checkpoint}" if several else setting: values.to_numpy()
        for (policy, setting, checkpoint), values in scores.items()
        if policy == main and len(values)
    }
    if not arrays:
        return None
    everything = np.concatenate([values.ravel() for values in arrays.values()])
    thresholds = np.linspace(min(0.0, everything.min()), everything.max(), THRESHOLDS)
    return {"thresholds": thresholds.tolist(), "settings": performance_profiles(arrays, thresholds)}


def _cells(summary: Summary, policy: str) -> pd.DataFrame:
    """Return a policy's table as text: a line a setting, checkpoints side by side."""
    lines = summary.lines[summary.lines.policy == policy]
    texts = {
        name: lines.apply(lambda line, name=name: with_error(line[name], line[f"{name}_se"]), axis=1)
        for name in summary.datasets
    }
    for name, heading in INTERVALS.items():
        if name in lines:
            bounds = lines[[name, f"{name}_low", f"{name}_high"]]
            texts[heading] = bounds.apply(lambda line: with_interval(*line), axis=1)
    cells = pd.DataFrame({"setting": lines.setting.unique()}).set_index("setting")
    checkpoints = lines.checkpoint.unique()
    for heading, text in texts.items():
        for checkpoint in checkpoints:
            here = lines.checkpoint == checkpoint
            cells[f"{heading}, {checkpoint}" if len(checkpoints) > 1 else heading] = text[here].set_axis(
                lines.setting[here]
            )
    whole = lines.drop_duplicates("setting").set_index("setting")
    cells["seeds"] = whole.seeds.astype(str)
    if whole.processor_seconds.notna().any():
        cells["processor s"] = whole.processor_seconds.map("{:,.0f}".format, na_action="ignore")
    return cells.fillna("").replace("", "-").reset_index()


def _caption(summary: Summary) -> str:
    if not installed():
        lacking = '; interquartile means need rliable: pip install "ractd[sweeps]"'
    elif summary.unit != "score" and len(summary.datasets) > 1:
        lacking = "; datasets of different scales have no common mean"
    else:
        lacking = ""
    statistics = "mean ± standard error over seeds, and the interquartile mean (IQM) over all runs"
    return f"{UNITS[summary.unit][1]}: {statistics}{lacking}."


def main_table(summary: Summary) -> Table:
    """Return the main policy's table for people."""
    cells = _cells(summary, summary.main)
    return terminal_table(cells.columns, cells.itertuples(index=False), title=summary.main, caption=_caption(summary))


def write_summary(summary: Summary, out: Path, missing: Sequence[str]) -> list[Path]:
    """Write `sweep.md`, `sweep.csv`, `sweep.json` and, where Matplotlib is installed, `profiles.png`; return their paths.

    `missing` is a sentence for each run that is not in the tables.
    """
    paths = [out / "sweep.md", out / "sweep.csv", out / "sweep.json"]
    write_text(paths[0], _markdown(summary, missing))
    write_text(paths[1], summary.lines.assign(unit=summary.unit).to_csv(index=False))
    content = {
        "format": "ractd-sweep",
        "format_version": FORMAT_VERSION,
        "unit": summary.unit,
        "datasets": summary.datasets,
        "values": _records(summary.values),
        "lines": _records(summary.lines),
        "profiles": summary.profiles,
        "missing": list(missing),
    }
    write_json(paths[2], content)
    if summary.profiles and _draw(summary, out / "profiles.png"):
        paths.append(out / "profiles.png")
    return paths


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a frame's lines as JSON types, without what is not known."""
    return [{name: value for name, value in line.items() if pd.notna(value)} for line in frame.to_dict("records")]


def _markdown(summary: Summary, missing: Sequence[str]) -> str:
    parts = ["# Sweep\n", _caption(summary) + "\n"]
    for policy in summary.lines.policy.unique():
        cells = _cells(summary, policy)
        parts += [f"## {policy}\n", markdown_table(cells.columns, cells.itertuples(index=False))]
    if missing:
        parts.append("## Missing\n\n" + "\n".join(f"- {sentence}" for sentence in missing) + "\n")
    return "\n".join(parts)


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
    axes.set(xlabel=summary.unit, ylabel="share of runs above", ylim=(-0.02, 1.02))
    axes.set_title(f"Performance profiles of {summary.main}; bands: 95%", loc="left")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=100, format="png")
    return True
