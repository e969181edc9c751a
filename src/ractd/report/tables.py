"""The report's tables and sentences, as text."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from datetime import timedelta
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ractd.report.contents import DATA, Contents, by_unit, mapping, number
from ractd.report.figures import SCORES, returns_of, timed_of, unique
from ractd.runs.latency import busy_sentence
from ractd.runs.meanings import meaning
from ractd.runs.tables import Cells, measured_columns, protocol_sentence, with_error

NOTHING = "\u2013"


def shown(value: float | None, digits: int = 0, error: float | None = None) -> str:
    """Return a number with its standard error; what there is none of is a dash."""
    return NOTHING if value is None or math.isnan(value) else with_error(value, error, digits)


def result_table(runs: Sequence[Contents]) -> Cells:
    """Every row of every result: score, return, network evaluations, time; estimates where nothing was simulated."""
    lines: list[dict[str, str]] = []
    strong = set()
    for run in runs:
        of = {"run": run.label} if len(runs) > 1 else {}
        behavior = {name: number(value) for name, value in run.behavior.items()}
        columns = measured_columns(list(run.rows.values()), behavior, timed_of(runs))
        for index, name in enumerate([DATA, *run.rows] if run.behavior else run.rows, start=not run.behavior):
            strong |= {len(lines)} if index == 1 else set()
            lines.append({"policy": name, **of, **{heading: cells[index] for heading, cells in columns.items()}})
    names = unique(name for line in lines for name in line)
    rows = [[line[name] or NOTHING for name in names] for line in lines]
    return Cells("Every policy", *_filled(names, rows), strong, sortable=True)


def _filled(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Return a table without the columns that say nothing."""
    kept = [any(row[index] != NOTHING for row in rows) for index in range(len(columns))]
    return [*compress(columns, kept)], [[*compress(row, kept)] for row in rows]


def comparison_table(runs: Sequence[Contents]) -> Cells:
    """The same policies of several runs side by side, each in its run's own unit."""
    rows = [[DATA, *(shown(run.data_value, 1) for run in runs)]] if any(run.behavior for run in runs) else []
    names = unique(name for run in runs for name in run.rows)
    for name in names:
        valued = [run.value(run.rows[name]) if name in run.rows else (None, None) for run in runs]
        rows.append([name, *(shown(value, 1, error) for value, error in valued)])
    strong = {
        len(rows) - len(names) + index for index, name in enumerate(names) if any([*r.rows][:1] == [name] for r in runs)
    }
    units = list(by_unit(runs))
    columns = ["policy", *(run.label if len(units) == 1 else f"{run.label} ({run.unit})" for run in runs)]
    return Cells(f"Side by side{f': {units[0]}' if len(units) == 1 else ''}", columns, rows, strong, sortable=True)


def scores(run: Contents) -> list[tuple[str, str, str]]:
    """Return what the run brought, beside its other checkpoint, its slowest policy and the data: name, value, and how it acts."""
    if not run.rows:
        return []
    rows = list(run.rows.items())
    slowest = max(rows, key=lambda item: item[1].nfe)
    beside = [(name, row) for name, row in rows[1:] if row.variant == rows[0][1].variant]
    found = []
    for name, row in dict([rows[0], *beside, slowest]).items():
        value, error = run.value(row)
        if value is not None:
            how = ["best checkpoint by playing"] if row.selection == "online" else []
            how += [f"{row.nfe} network evaluation{'s' if row.nfe != 1 else ''}"]
            how += [f"{row.ms_per_action:.2f} ms"] if row.ms_per_action is not None else []
            found.append((name, with_error(value, error), ", ".join(how)))
    return [*found, (DATA, f"{run.data_value:,.1f}", "")] if found and run.data_value is not None else found


def protocol(run: Contents) -> str:
    """How the rows were measured, in a sentence; empty without a result."""
    if not run.rows:
        return ""
    told = protocol_sentence(list(run.rows.values()))
    load = mapping(run.result.get("load"))
    sound = load.get("busy") is True and None not in (number(load.get("waiting")), number(load.get("cores")))
    return f"{told}. {busy_sentence(load | {'others': number(load.get('others'))})}" if sound else f"{told}."


def _table(
    title: str, columns: Sequence[str], runs: Sequence[Contents], rows: Sequence[tuple[Contents, list[str]]]
) -> Cells:
    """A table with a column for the run where there are several."""
    several = len(runs) > 1
    named = [[run.label, *cells] if several else cells for run, cells in rows]
    return Cells(title, *_filled([*(["run"] if several else []), *columns], named))


def returns_table(runs: Sequence[Contents]) -> Cells:
    """The returns that the histograms show, in numbers."""
    rows = []
    for run in runs:
        for name, values in returns_of(run).items() if run.rows else ():
            numbers = [values.mean(), np.median(values), values.min(), values.max()]
            rows.append((run, [name, *(shown(float(value)) for value in (len(values), *numbers))]))
    columns = ["policy", "episodes", "mean", "median", "smallest", "largest"]
    return _table("The histograms in numbers", columns, runs, rows)


def curves_table(runs: Sequence[Contents]) -> Cells:
    """First and last value of everything that is drawn without being asked for, and its range."""
    rows = []
    for run in runs:
        for stage, name, curve in ((s, n, c) for s, metrics in run.curves.items() for n, c in metrics.items()):
            values, told = curve.values[~np.isnan(curve.values)], meaning(run.method, name)
            if len(values) and not told.aside and name not in SCORES:
                numbers = [values[0], values[-1], values.min(), values.max()]
                texts = [f"{value:,.4g}" for value in numbers]
                rows.append((run, [stage, told.title, name, shown(curve.steps[-1]), *texts]))
    columns = ["stage", "metric", "logged as", "steps", "first", "last", "smallest", "largest"]
    return _table("The curves in numbers", columns, runs, rows)


def progress_table(runs: Sequence[Contents]) -> Cells:
    """Return at every checkpoint that was evaluated during training."""
    rows = []
    for run in runs:
        for stage, metrics in run.curves.items():
            if "episode_return" not in metrics:
                continue
            curve, errors = metrics["episode_return"], metrics.get("episode_return_se")
            known = {} if errors is None else dict(zip(errors.steps.tolist(), errors.values.tolist(), strict=True))
            for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
                rows.append((run, [stage, shown(step), shown(value, 1), shown(known.get(step), 1)]))
    return _table("The evaluations during training in numbers", ["stage", "step", "return", "s.e."], runs, rows)


def stages_table(runs: Sequence[Contents]) -> Cells:
    """How long each stage took, its best checkpoint, and whether it collapsed."""
    rows = []
    for run in runs:
        stages = mapping(run.result.get("stages"))
        for stage in [name for name in run.curves if name in stages] + [n for n in stages if n not in run.curves]:
            record = mapping(stages[stage])
            best, collapse = number(mapping(record.get("best")).get("step")), record.get("collapse")
            seconds = [number(record.get(key)) for key in ("seconds", "processor_seconds")]
            times = [NOTHING if value is None else str(timedelta(seconds=round(value))) for value in seconds]
            warning = NOTHING if collapse is None else f"collapsed: {_flat(collapse)}"
            rows.append((run, [stage, shown(number(record.get("steps"))), *times, shown(best), warning]))
    columns = ["stage", "steps", "time (h:min:s)", "processor time", "best checkpoint", "warning"]
    return _table("Stages", columns, runs, rows)


FACTS = {
    "name": "dataset",
    "recipe": "where it comes from",
    "env_id": "environment",
    "transitions": "transitions",
    "episodes": "episodes",
    "ends": "how they end",
    "observation_dim": "observation dimensions",
    "action_dim": "action dimensions",
    "mean_return": "mean return",
    "max_return": "largest return",
    "mean_score": "mean score",
    "fingerprint": "fingerprint (sha256, its beginning)",
}


def facts_table(runs: Sequence[Contents]) -> Cells:
    """What each run was trained on, a column for each run."""
    facts = []
    for run in runs:
        numbers = {key: number(value) for key, value in run.behavior.items()}
        known = {**numbers, **run.dataset, "ends": run.result.get("ends")}
        known["fingerprint"] = str(known.get("fingerprint", ""))[:16]
        facts.append({FACTS[key]: round(v, 1) if isinstance(v := known.get(key), float) else v for key in FACTS})
    return _beside(runs, facts, "Dataset")


def settings_table(runs: Sequence[Contents]) -> Cells:
    """Every setting of every run, the differing ones marked."""
    settings = [pd.json_normalize(run.config).rename(columns=lambda name: name.replace("_", "-")) for run in runs]
    return _beside(runs, [each.squeeze(axis=0).to_dict() for each in settings], "Configuration", marked=True)


def versions_table(runs: Sequence[Contents]) -> Cells:
    """Versions of what computed the result, or of what began the run where there is none yet."""
    found = [mapping(run.result.get("versions")) or mapping(_invocation(run, -1).get("versions")) for run in runs]
    return _beside(runs, found, "Versions")


def command(run: Contents) -> str:
    """The command that began a run, empty where it isn't recorded."""
    words = _invocation(run, 0).get("command")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words) or not words:
        return ""
    program = "ractd" if Path(words[0]).stem in ("ractd", "cli", "guarded") else Path(words[0]).name
    return shlex.join([program, *words[1:]])


def _invocation(run: Contents, index: int) -> dict[str, Any]:
    invocations = run.description.get("invocations")
    return mapping(invocations[index]) if isinstance(invocations, list) and invocations else {}


def _beside(runs: Sequence[Contents], facts: Sequence[dict[str, Any]], title: str, marked: bool = False) -> Cells:
    """A row a key, a column a run; where `marked`, a row whose values differ stands out."""
    rows = [[key, *(_flat(one.get(key)) for one in facts)] for key in unique(name for one in facts for name in one)]
    strong = {index for index, (_, *texts) in enumerate(rows) if marked and len(set(texts)) > 1}
    return Cells(title, ["", *(run.label for run in runs)] if len(runs) > 1 else [], rows, strong)


def _flat(value: Any) -> str:
    match value:
        case None | "":
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.6g}"
        case list():
            return ", ".join(map(_flat, value))
        case dict():
            return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    return str(value)
