"""Methods side by side: the rows of their runs, timed in turns, as one table, and a sentence that says who won."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich import box
from rich.table import Table

from ractd.files import read_json, write_json, write_text
from ractd.results.statistics import FEWEST_SEEDS, installed, t_interval
from ractd.results.tables import markdown_table, terminal_table
from ractd.runs.latency import busy_sentence, time_policies
from ractd.runs.rows import Result, Row, complete_result, frame
from ractd.runs.tables import protocol_sentence, with_error

UNITS = {"score": ("mean_score", "score_se"), "return": ("mean_return", "return_se")}
"""What can rank methods, the first that all rows have: columns of a row. A critic's estimate can't: each method has its own."""
LINE = ["dataset", "label", "checkpoint"]
EPISODES = ["returns", "lengths", "terminated"]


@dataclass(frozen=True)
class MethodRun:
    """A run of a comparison."""

    dataset: str
    method: str
    """As it was named, with its settings."""
    seed: int
    directory: Path


@dataclass(frozen=True)
class MethodRows:
    """What the runs of a comparison brought."""

    runs: tuple[MethodRun, ...]
    """Those that are finished."""
    measured: tuple[Row, ...]
    rows: pd.DataFrame
    """A line a row of `measured`: the columns of `ractd.runs.rows.frame`, but `method` as it was named; `label` is the method's
    main policy or another one; `ms_per_action`, `ms_low` and `ms_high` were measured in turns."""
    load: dict[str, Any]
    """What the machine did meanwhile, see `ractd.runs.latency`."""

    @property
    def unit(self) -> str | None:
        """A key of `UNITS`, None where nothing was played."""
        return next((unit for unit, (column, _) in UNITS.items() if self.rows[column].notna().all()), None)

    def lines(self) -> pd.DataFrame:
        """Return a line a dataset, label and checkpoint, over seeds.

        `mean`; `error`, its standard error, over the episodes of a single seed; `low` and `high`, Student's t interval from three
        seeds on; `seeds`, `processor_seconds`, `ms_per_action`.
        """
        value, error = UNITS.get(self.unit or "", ("distance_to_data", ""))
        records = {}
        for key, group in self.rows.groupby(LINE, sort=False):
            values = group[value].to_numpy(float)
            several = len(values) > 1
            bounds = t_interval(values) if len(values) >= FEWEST_SEEDS and installed() else (np.nan, np.nan)
            records[key] = {
                "mean": values.mean(),
                "error": group[value].sem() if several else group[error].iloc[0] if error else np.nan,
                "low": bounds[0],
                "high": bounds[1],
                "seeds": len(values),
                "processor_seconds": group.processor_seconds.astype(float).mean(),
                "ms_per_action": group.ms_per_action.iloc[0],
            }
        return pd.DataFrame(records.values(), pd.MultiIndex.from_tuples(records, names=LINE)).reset_index()

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the table as headings and lines of text, checkpoints side by side."""
        lines, rows = self.lines(), []
        digits = 2 if self.unit is None else 1
        headings = {"last": "last"} | ({"best": "best by playing"} if (lines.checkpoint == "best").any() else {})
        several = lines.dataset.nunique() > 1
        for (dataset, label), group in lines.groupby(["dataset", "label"], sort=False):
            of = group.set_index("checkpoint")
            means = [
                with_error(of["mean"].get(each), of.high.sub(of["mean"]).fillna(of.error).get(each), digits)
                for each in headings
            ]
            minutes = group.processor_seconds.iloc[0] / 60
            times = [
                with_error(minutes, None, 1 if minutes >= 10 else 2),
                with_error(group.ms_per_action.iloc[0], None, 2),
            ]
            name = label.replace(",", ", ").replace(":", ": ")
            rows.append([*([dataset] if several else []), name, *means, *times])
        timed = "ms/plan" if self.measured[0].plans else "ms/action"
        return [*(["dataset"] if several else []), "method", *headings.values(), "CPU min", timed], rows

    def table(self) -> Table:
        """Return the table for people: only names are broken on a narrow terminal."""
        headings, rows = self.cells()
        table = terminal_table(
            headings, rows, caption=self.caption(), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
        )
        for column in table.columns[headings.index("method") + 1 :]:
            column.no_wrap, column.header = True, str(column.header).replace("best by ", "best by\n")
        return table

    def caption(self) -> str:
        """Say what the numbers are, and how they were measured."""
        counts = sorted({*self.lines().seeds})
        if counts[-1] == 1:
            spread = "of one seed" + (" ± standard error over episodes" if self.unit else "")
        elif counts[-1] < FEWEST_SEEDS or not installed():
            spread = f"mean over {_of(counts)} seeds ± standard error"
        else:
            fewer = f" (standard error of fewer than {FEWEST_SEEDS} seeds)" if counts[0] < FEWEST_SEEDS else ""
            spread = f"mean over {_of(counts)} seeds ± half of its 95% t interval{fewer}"
        what = f"{self.unit.capitalize()}s" if self.unit else "Distances of actions to the data's"
        lacking = (
            "" if installed() or counts[-1] < FEWEST_SEEDS else '; intervals need SciPy: pip install "ractd[sweeps]"'
        )
        played = protocol_sentence(self.measured) if self.measured[0].protocol else "No environment was given"
        episodes = sorted({row.protocol.episodes for row in self.measured if row.protocol})
        apart = f" (their runs played {_of(episodes)})" if len(episodes) > 1 else ""
        threads = int(self.rows.threads.iloc[0])
        timed = (
            f"CPU min: processor time of the training; times: batch 1, {threads} thread{'s' * (threads != 1)}, in turns"
        )
        return " ".join(f"{what}: {spread}{lacking}. {played}{apart}. {timed}. {busy_sentence(self.load)}".split())

    def verdicts(self) -> Iterator[str]:
        """Say of each dataset who won, each method on its last checkpoint; only where that was played."""
        lines = self.lines()
        last = lines[lines.checkpoint == "last"]
        if self.unit is None:
            yield "Nothing was played, so nothing says which method is better."
        for dataset, group in last.groupby("dataset", sort=False) if self.unit else ():
            ranked = group.sort_values("mean", ascending=False)
            if len(ranked) > 1:
                yield self._verdict(str(dataset), ranked)

    def _verdict(self, dataset: str, ranked: pd.DataFrame) -> str:
        first, second = (ranked.iloc[index] for index in (0, 1))
        of = self.rows[(self.rows.dataset == dataset) & (self.rows.checkpoint == "last")]
        values = of.pivot(index="seed", columns="label", values=UNITS[self.unit or "score"][0])
        difference = (values[first.label] - values[second.label]).dropna().to_numpy(float)
        seeds = len(difference)
        if seeds >= FEWEST_SEEDS and installed():
            low, high = t_interval(difference)
            sure = low > 0
            about = f"{seeds} seeds; 95% t interval of the lead: [{low:,.1f}, {high:,.1f}]"
        else:
            sure = first["mean"] - second["mean"] > 2 * np.hypot(first.error, second.error)
            about = f"{'one seed' if seeds == 1 else f'{seeds} seeds'}, which says little of others"
        names = [f"{line.label} {with_error(line.mean, None)}" for line in ranked.itertuples()]
        told = f"{first.label} won with {with_error(first['mean'], None)}, ahead of {_and(names[1:])}"
        return f"On {dataset}, by last checkpoints, {told if sure else f'nobody is sure to have won: {_and(names)}'} ({about})."

    def write(self, out: Path, missing: Sequence[str] = ()) -> list[Path]:
        """Write `comparison.md` and `comparison.csv`; `missing` is a sentence for each run that is not in them."""
        paths = [out / "comparison.md", out / "comparison.csv"]
        parts = ["# Comparison\n", markdown_table(*self.cells()), self.caption() + "\n", *self.verdicts()]
        write_text(paths[0], "\n".join([*parts, *(f"\nmissing: {sentence}" for sentence in missing)]) + "\n")
        write_text(paths[1], self.rows.drop(columns=EPISODES).to_csv(index=False))
        return paths


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _of(counts: Sequence[int]) -> str:
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def read_methods(runs: Sequence[MethodRun], also: Sequence[str], times: Path, threads: int) -> MethodRows | None:
    """Read the finished ones of runs and time their policies in turns, once: `times` keeps that. None where no run is finished.

    `also` names policies that get rows beside each method's main one.
    """
    results = {run: result for run in runs if (result := complete_result(run.directory)) is not None}
    if not results:
        return None
    found = [(run, label, row) for run, result in results.items() for label, row in _chosen(run, result, also)]
    first = {f"{run.dataset}: {label}": (results[run], row.policy) for run, label, row in reversed(found)}
    measured, load = _times(first, times, threads)
    rows = frame([row for *_, row in found]).assign(
        dataset=[run.dataset for run, *_ in found],
        method=[run.method for run, *_ in found],
        label=[label for _, label, _ in found],
        seed=[run.seed for run, *_ in found],
        threads=threads,
    )
    timed = [measured[f"{run.dataset}: {label}"] for run, label, _ in found]
    rows = rows.assign(**pd.DataFrame(timed, rows.index))
    return MethodRows(tuple(results), tuple(row for *_, row in found), rows, load)


def _chosen(run: MethodRun, result: Result, also: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Yield the rows that a run is compared by, with what they are called; each policy as it samples by itself."""
    main = result.rows[0].variant
    named = {row.policy: row.variant for row in reversed(result.rows)}
    for row in result.rows:
        if row.variant == main:
            yield run.method, row
        elif row.policy.removesuffix("-last") in also and named[row.policy] == row.variant:
            yield f"{row.variant} of {run.method}", row


def _times(
    policies: dict[str, tuple[Result, str]], path: Path, threads: int
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    known = read_json(path) if path.exists() else {}
    if known.get("threads") == threads and known["times"].keys() >= policies.keys():
        return known["times"], known["load"]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times, load = time_policies({label: result.policy(name) for label, (result, name) in policies.items()})
    finally:
        torch.set_num_threads(before)
    write_json(path, {"threads": threads, "times": times, "load": load})
    return times, load
