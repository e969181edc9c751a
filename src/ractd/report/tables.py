"""The report's tables, as text with the numbers that they sort by."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ractd.report.contents import Contents, Row, mapping, number
from ractd.report.plots import DATA, DIAGNOSTICS, HISTOGRAM_COLORS, by, timed_of, unique, unit_of, value_of
from ractd.runs.latency import busy_sentence

NOTHING = "\u2013"


@dataclass(frozen=True)
class Cell:
    """Text, what it sorts by, and whether it stands out."""

    text: str
    key: float | str
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under the names of their columns; the first cell names the row."""

    title: str
    columns: list[str]
    """Empty for a table that needs no headings."""
    rows: list[list[Cell]]
    sortable: bool = False


def result_table(runs: Sequence[Contents]) -> Table:
    """Every row of every result: score, return, network evaluations, time; estimates where nothing was simulated."""
    several = len(runs) > 1
    scored = any(row.score is not None for run in runs for row in run.rows)
    simulated = any(row.mean_return is not None for run in runs for row in run.rows)
    apart = any(run.rows and run.env_id is None for run in runs)
    estimated = apart and any(row.estimated_return is not None for run in runs for row in run.rows)
    columns = ["policy", *(["run"] if several else [])]
    columns += ["score ± s.e."] if scored else []
    columns += ["return ± s.e."] if simulated else []
    columns += ["estimated return"] if estimated else []
    columns += ["distance to data"] if apart else []
    planned = any(row.reached is not None for run in runs for row in run.rows)
    columns += ["reached"] if planned else []
    columns += ["NFE", f"ms/{timed_of(runs)}"]
    rows = []
    for run in runs:
        for row in [_data_row(run), *run.rows]:
            if row is None:
                continue
            cells = [Cell(row.label, row.label, strong=row.label == "RACTD")]
            cells += [text_cell(run.label)] if several else []
            cells += [value_cell(row.score, ",.1f", row.score_se)] if scored else []
            cells += [value_cell(row.mean_return, ",.0f", row.return_se)] if simulated else []
            cells += [value_cell(row.estimated_return, ",.1f")] if estimated else []
            cells += [value_cell(row.distance, ".2f")] if apart else []
            cells += [value_cell(row.reached, ".0%")] if planned else []
            cells += [value_cell(row.nfe, ",.0f"), value_cell(row.milliseconds, ".2f")]
            rows.append(cells)
    return Table("Every policy", columns, rows, sortable=True)


def comparison_table(runs: Sequence[Contents]) -> Table:
    """The same policies of several runs side by side, each in its run's own unit."""
    labels = unique(row.label for run in runs for row in [_data_row(run), *run.rows] if row is not None)
    rows = []
    for label in labels:
        cells = [Cell(label, label, strong=label == "RACTD")]
        for run in runs:
            row = _data_row(run) if label == DATA else run.row(label)
            value, error = (None, None) if row is None else value_of(run, row)
            cells.append(value_cell(value, ",.1f", error))
        rows.append(cells)
    units = by(unit_of, runs)
    names = [run.label if len(units) == 1 else f"{run.label} ({unit_of(run)})" for run in runs]
    return Table(f"Side by side{f': {next(iter(units))}' if len(units) == 1 else ''}", ["policy", *names], rows, True)


def headline(run: Contents) -> str:
    """One sentence on what the run brought, empty where it brought nothing yet."""
    best, teacher = run.row("RACTD") or run.row("plain student"), run.row("teacher")
    value, error = (None, None) if best is None else value_of(run, best)
    if best is None or value is None:
        return ""
    what = "scores" if best.score is not None else "returns" if best.mean_return is not None else "is estimated at"
    text = f"{best.label} {what} {value:,.1f}" + ("" if error is None else f" ± {error:,.1f}")
    if best.nfe is not None and best.milliseconds is not None:
        text += f" with {best.nfe:g} network evaluation{'s' if best.nfe != 1 else ''} ({best.milliseconds:.2f} ms)"
    other = None if teacher is None else value_of(run, teacher)[0]
    if teacher is not None and other is not None and teacher.nfe is not None and teacher.milliseconds is not None:
        text += f"; its teacher {other:,.1f} with {teacher.nfe:g} ({teacher.milliseconds:.2f} ms)"
    data = _data_row(run)
    mean = None if data is None else value_of(run, data)[0]
    return text + (f"; the data {mean:,.1f}." if mean is not None else ".")


def protocol(run: Contents) -> str:
    """How the rows were measured, in a sentence; empty without a result."""
    if not run.rows:
        return ""
    selected = {row.selection for row in run.rows}
    checkpoint = "best checkpoint by evaluations during training" if "online" in selected else "last checkpoint"
    busy = _busy(run)
    if run.env_id is None and all(row.estimated_return is None for row in run.rows):
        return f"No environment was given and there is no return model, so nothing says which policy is better.{busy}"
    if run.env_id is None:
        return (
            f"No environment was given: returns are the return model's estimates of the discounted return-to-go.{busy}"
        )
    p = run.rows[0].protocol
    execute = p.get("execute", 1)
    what = "closed loop" if execute == 1 else f"{execute} actions of each sequence"
    if run.timed == "plan":
        what += " before the next plan; reached: came to the goal at all"
    reference = ", score: D4RL's normalisation" if run.rows[0].score is not None else ""
    backend = f" ({p['backend']})" if "backend" in p else ""
    return (
        f"{p.get('episodes', '?')} episodes in {run.env_id}{backend}, {what}; students: {checkpoint}{reference}.{busy}"
    )


def _busy(run: Contents) -> str:
    load = mapping(run.result.get("load"))
    known = {name: number(load.get(name)) for name in ("waiting", "others", "cores")}
    if load.get("busy") is not True or known["waiting"] is None or known["cores"] is None:
        return ""
    return f" {busy_sentence(load | known)}"


def returns_table(runs: Sequence[Contents]) -> Table:
    """The returns that the histograms show, in numbers."""
    columns = [*(["run"] if len(runs) > 1 else []), "policy", "episodes", "mean", "median", "smallest", "largest"]
    rows = []
    for run in runs:
        returns = {row.label: np.array(row.returns) for row in run.rows if row.returns}
        if run.data_returns is not None:
            returns[DATA] = run.data_returns
        for label in HISTOGRAM_COLORS:
            if label in returns:
                values = returns[label]
                numbers = [values.mean(), np.median(values), values.min(), values.max()]
                cells = [text_cell(run.label)] if len(runs) > 1 else []
                cells += [text_cell(label), value_cell(len(values), ",.0f")]
                rows.append([*cells, *(value_cell(float(value), ",.0f") for value in numbers)])
    return Table("The histograms in numbers", columns, rows)


def curves_table(runs: Sequence[Contents]) -> Table:
    """First and last value of every loss term, and its range."""
    columns = [*(["run"] if len(runs) > 1 else []), "stage", "term", "steps", "first", "last", "smallest", "largest"]
    rows = []
    for run in runs:
        for stage, metrics in run.curves.items():
            for name, curve in metrics.items():
                values = curve.values[~np.isnan(curve.values)]
                if DIAGNOSTICS.search(name) or not len(values):
                    continue
                cells = [text_cell(run.label)] if len(runs) > 1 else []
                cells += [text_cell(stage), text_cell(name), value_cell(float(curve.steps[-1]), ",.0f")]
                numbers = [values[0], values[-1], values.min(), values.max()]
                rows.append([*cells, *(value_cell(float(value), ".4g") for value in numbers)])
    return Table("The curves in numbers", columns, rows)


def progress_table(runs: Sequence[Contents]) -> Table:
    """Return at every checkpoint that was evaluated during training."""
    columns = [*(["run"] if len(runs) > 1 else []), "stage", "step", "return", "s.e."]
    rows = []
    for run in runs:
        for stage, metrics in run.curves.items():
            if "episode_return" not in metrics:
                continue
            curve, errors = metrics["episode_return"], metrics.get("episode_return_se")
            known = {} if errors is None else dict(zip(errors.steps.tolist(), errors.values.tolist(), strict=True))
            for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
                cells = [text_cell(run.label)] if len(runs) > 1 else []
                cells += [text_cell(stage), value_cell(step, ",.0f"), value_cell(value, ",.1f")]
                rows.append([*cells, value_cell(known.get(step), ",.1f")])
    return Table("The evaluations during training in numbers", columns, rows)


def stages_table(runs: Sequence[Contents]) -> Table:
    """How long each stage took, its best checkpoint, and whether it collapsed."""
    columns = [*(["run"] if len(runs) > 1 else []), "stage", "steps", "time", "best checkpoint", "warning"]
    rows = []
    for run in runs:
        stages = mapping(run.result.get("stages"))
        for stage in [name for name in run.curves if name in stages] + [n for n in stages if n not in run.curves]:
            record = mapping(stages[stage])
            best, seconds = mapping(record.get("best")), number(record.get("seconds"))
            collapse = record.get("collapse")
            cells = [text_cell(run.label)] if len(runs) > 1 else []
            cells += [text_cell(stage), value_cell(number(record.get("steps")), ",.0f")]
            cells.append(text_cell(NOTHING if seconds is None else _duration(seconds)))
            cells.append(value_cell(number(best.get("step")), ",.0f"))
            rows.append([*cells, text_cell(NOTHING if collapse is None else f"collapsed: {_flat(collapse)}")])
    return Table("Stages", columns, rows)


def facts_table(runs: Sequence[Contents]) -> Table:
    """What each run was trained on, a column for each run."""
    names = {
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
        "fingerprint": "fingerprint (sha256)",
    }
    facts = []
    for run in runs:
        numbers = {key: number(value) for key, value in run.behavior.items()}
        known = {**numbers, **run.dataset, "ends": run.result.get("ends")}
        facts.append({names[key]: round(v, 1) if isinstance(v := known.get(key), float) else v for key in names})
    return _beside([run.label for run in runs], facts, "Dataset")


def settings_table(runs: Sequence[Contents]) -> Table:
    """Every setting of every run, the differing ones marked."""
    return _beside([run.label for run in runs], [_leaves(run.config) for run in runs], "Configuration", marked=True)


def versions_table(runs: Sequence[Contents]) -> Table:
    """Versions of what computed the result, or of what began the run where there is none yet."""
    found = []
    for run in runs:
        invocations = run.description.get("invocations")
        last = mapping(invocations[-1]) if isinstance(invocations, list) and invocations else {}
        found.append(mapping(run.result.get("versions")) or mapping(last.get("versions")))
    return _beside([run.label for run in runs], found, "Versions")


def command(run: Contents) -> str:
    """The command that began a run, empty where it isn't recorded."""
    invocations = run.description.get("invocations")
    first = mapping(invocations[0]) if isinstance(invocations, list) and invocations else {}
    words = first.get("command")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words) or not words:
        return ""
    program = "ractd" if Path(words[0]).stem in ("ractd", "cli") else Path(words[0]).name
    return shlex.join([program, *words[1:]])


def text_cell(text: str) -> Cell:
    """A cell that sorts by its text."""
    return Cell(text, text)


def value_cell(value: float | None, form: str, error: float | None = None) -> Cell:
    """A number with its standard error; what there is none of is a dash."""
    if value is None or math.isnan(value):
        return Cell(NOTHING, "")
    # z: what rounds to zero is not shown as -0.
    return Cell(f"{value:z{form}}" + ("" if error is None else f" ± {error:{form}}"), float(value))


def _data_row(run: Contents) -> Row | None:
    if not run.behavior:
        return None
    e = run.behavior
    offline = [mapping(mapping(row).get("offline")) for row in run.result.get("rows", [])]
    estimate = number(offline[0].get("estimated_return_of_data")) if offline and run.env_id is None else None
    simulated = run.env_id is not None
    return Row(
        label=DATA,
        policy="",
        score=number(e.get("mean_score")),
        score_se=None,
        mean_return=number(e.get("mean_return")) if simulated else None,
        return_se=None,
        returns=[],
        estimated_return=estimate,
        distance=None if simulated else 0.0,
        nfe=None,
        milliseconds=None,
        reached=None,
        selection="",
        selected_step=None,
        protocol={},
    )


def _beside(labels: Sequence[str], facts: Sequence[dict[str, Any]], title: str, marked: bool = False) -> Table:
    """A row a key, a column a run; where `marked`, a row whose values differ stands out."""
    rows = []
    for key in unique(name for one in facts for name in one):
        texts = [_flat(one.get(key)) for one in facts]
        differs = marked and len(set(texts)) > 1
        rows.append([text_cell(key), *(Cell(text, text, strong=differs) for text in texts)])
    return Table(title, ["", *labels] if len(labels) > 1 else [], rows)


def _leaves(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix}{key}".replace("_", "-")
        leaves |= _leaves(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return leaves


def _flat(value: Any) -> str:
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    return str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
