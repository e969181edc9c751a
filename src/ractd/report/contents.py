"""What is known of a run: everything its directory holds, read so that a broken file costs what it held and no more."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.errors import RactdError
from ractd.files import read_json
from ractd.runs import rows as results
from ractd.runs.directory import read_run

PLANS = "plans.png"
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Row:
    """One row of a result; what it doesn't say, or says as something that is no number, is None."""

    label: str
    policy: str
    score: float | None
    score_se: float | None
    mean_return: float | None
    return_se: float | None
    returns: list[float]
    """Per-episode returns, [E]; empty where nothing was simulated."""
    estimated_return: float | None
    """The return model's mean estimate at logged states."""
    distance: float | None
    """Mean distance to the logged actions, in the scaled action space."""
    nfe: float | None
    milliseconds: float | None
    """An action, or a plan, at batch 1."""
    reached: float | None
    """Share of a planner's episodes that came to the goal."""
    selection: str
    selected_step: float | None
    protocol: dict[str, Any]
    """How it was simulated: `episodes`, `env_id`, `backend`, `execute`, as far as they are there."""


@dataclass(frozen=True)
class Curve:
    """One metric of one stage over its steps, both [N]; a value that wasn't finite is NaN."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Contents:
    """A run as a report shows it."""

    label: str
    """What it is called beside the others of the report."""
    directory: Path
    description: dict[str, Any]
    """`config.json`; empty where it can't be read."""
    result: dict[str, Any]
    """`result.json`; empty where it can't be read."""
    rows: list[Row]
    curves: dict[str, dict[str, Curve]]
    """By stage, then by metric."""
    data_returns: NDArray[np.float64] | None
    """Returns of the dataset's episodes, [E]."""
    plans: bytes | None
    """`plans.png`."""
    missing: list[str] = field(default_factory=list)
    """What is not shown and why, a sentence each."""

    @property
    def config(self) -> dict[str, Any]:
        """The run's settings, nested as in `Config`."""
        return mapping(self.description.get("config"))

    @property
    def dataset(self) -> dict[str, Any]:
        """The dataset as the run recorded it."""
        return mapping(self.description.get("dataset")) or mapping(self.result.get("dataset"))

    @property
    def behavior(self) -> dict[str, Any]:
        """Returns and score of the data."""
        return mapping(self.result.get("behavior"))

    @property
    def env_id(self) -> str | None:
        """Where the run was scored, None without a simulator."""
        env_id = self.dataset.get("env_id")
        return env_id if isinstance(env_id, str) else None

    @property
    def timed(self) -> str:
        """What milliseconds are for: an action, or a planner's plan."""
        return "plan" if any(row.reached is not None for row in self.rows) else "action"

    def row(self, label: str) -> Row | None:
        """Return a row by its label."""
        return next((row for row in self.rows if row.label == label), None)


def read_runs(directories: Sequence[Path]) -> list[Contents]:
    """Read run directories, each under the shortest end of its path that tells it from the others.

    Raises `RactdError` for one that is no run at all, or that is named twice.
    """
    paths = [directory.resolve() for directory in directories]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise RactdError(f"{directories[index]}: is named twice")
    length = 1
    while len({path.parts[-length:] for path in paths}) < len(paths):
        length += 1
    labels = [str(Path(*path.parts[-length:])) for path in paths]
    return [read_contents(*pair) for pair in zip(directories, labels, strict=True)]


def read_contents(directory: Path, label: str) -> Contents:
    """Read what there is of a run; raises `RactdError` for a directory that is no run."""
    parts = ("config.json", "metrics.jsonl", "result.json")
    if not directory.is_dir():
        raise RactdError(f"{directory}: no such directory; name the directory of a run, such as runs/hopper-mixed-s0")
    if not any((directory / part).exists() for part in parts):
        raise RactdError(f"{directory}: is no run; it has none of {', '.join(parts)}")
    missing: list[str] = []
    description = _tolerated(lambda: read_run(directory), missing, "its configuration and dataset are not shown") or {}
    result = _read_result(directory, missing)
    run = Contents(
        label=label,
        directory=directory,
        description=description,
        result=result,
        rows=_rows(result, missing),
        curves=read_curves(directory / "metrics.jsonl", missing),
        data_returns=_data_returns(result, missing),
        plans=_read_plans(directory / PLANS, missing),
        missing=missing,
    )
    _name_unfinished(run)
    return run


def number(value: Any) -> float | None:
    """Return a finite number as it is and anything else as None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def mapping(value: Any) -> dict[str, Any]:
    """Return a dictionary as it is and anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def _tolerated(read: Any, missing: list[str], consequence: str) -> Any:
    try:
        return read()
    except (RactdError, OSError) as error:
        missing.append(f"{_without_directory(error)}; {consequence}.")
        return None


def _without_directory(error: Exception) -> str:
    """An error without the folder its file is in: a report is passed on, and the run it is about is named beside it."""
    if isinstance(error, OSError):
        return f"{Path(str(error.filename)).name}: can't be read ({error.strerror})"
    path, colon, rest = str(error).partition(": ")
    return f"{Path(path).name}{colon}{rest}"


def _read_result(directory: Path, missing: list[str]) -> dict[str, Any]:
    path = directory / "result.json"
    if not path.exists():
        missing.append("result.json: not there, the run has not been scored; the result table is empty.")
        return {}
    content = _tolerated(lambda: read_json(path), missing, "there are no scores to show")
    if content is None:
        return {}
    results.check_format(content, path)
    return mapping(content)


def _rows(result: dict[str, Any], missing: list[str]) -> list[Row]:
    """The rows that can be read, in their order."""
    rows = []
    for index, content in enumerate(result.get("rows", [])):
        row = _tolerated(
            lambda i=index, c=content: results.read_row(c, f"result.json: rows[{i}]"), missing, "not shown"
        )
        rows += [] if row is None else [row]
    return [_row(*pair) for pair in zip(results.labels(rows), rows, strict=True)]


def _row(label: str, row: results.Row) -> Row:
    return Row(
        label=label,
        policy=row.policy,
        score=row.mean_score,
        score_se=row.score_se,
        mean_return=row.mean_return,
        return_se=row.return_se,
        returns=list(row.returns),
        estimated_return=row.estimated_return,
        distance=row.offline.get("distance_to_data"),
        nfe=row.nfe,
        milliseconds=row.ms_per_action,
        reached=row.success_rate,
        selection=row.selection,
        selected_step=row.step,
        protocol={} if row.protocol is None else asdict(row.protocol),
    )


def read_curves(path: Path, missing: list[str]) -> dict[str, dict[str, Curve]]:
    """Read a run's `metrics.jsonl`, by stage and metric; what can't be read becomes a sentence in `missing`."""
    if not path.exists():
        missing.append("metrics.jsonl: not there; there are no training curves.")
        return {}
    try:
        lines = path.read_text(errors="replace").splitlines(keepends=True)
    except OSError as error:
        missing.append(f"metrics.jsonl: can't be read ({error.strerror}); there are no training curves.")
        return {}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    damaged = []
    for index, line in enumerate(lines):
        try:
            entry = json.loads(line)
            stage, step = entry.pop("stage"), float(entry.pop("step"))
            values = {name: float(value) for name, value in entry.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            damaged.append(index + 1)
            continue
        for name, value in values.items():
            found.setdefault(str(stage), {}).setdefault(name, []).append((step, value))
    if damaged == [len(lines)] and not lines[-1].endswith("\n"):
        missing.append("metrics.jsonl: its last line is cut off and left out.")
    elif damaged:
        what = "line" if len(damaged) == 1 else "lines"
        missing.append(f"metrics.jsonl: {len(damaged)} damaged {what} left out, the first is line {damaged[0]}.")
    return {stage: {name: _curve(points) for name, points in metrics.items()} for stage, metrics in found.items()}


def _curve(points: list[tuple[float, float]]) -> Curve:
    steps, values = np.array(points).T
    return Curve(steps, np.where(np.isfinite(values), values, np.nan))


def _read_plans(path: Path, missing: list[str]) -> bytes | None:
    if not path.exists():
        return None
    content: bytes | None = _tolerated(path.read_bytes, missing, "the maze plans are not shown")
    if content is not None and not content.startswith(PNG):
        missing.append(f"{PLANS}: is no PNG; the maze plans are not shown.")
        return None
    return content


def _name_unfinished(run: Contents) -> None:
    """Add to `missing` the stages without curves, and what a run that has not ended will still bring."""
    unlogged = [stage for stage in mapping(run.result.get("stages")) if stage not in run.curves]
    if unlogged and run.curves:
        run.missing.append(f"metrics.jsonl: has nothing of {', '.join(unlogged)}; there are no such training curves.")
    if run.result.get("complete") or not run.config:
        return
    steps = {
        "return": mapping(run.config.get("return_model")),
        "teacher": mapping(run.config.get("teacher")),
        "plain": mapping(run.config.get("student")),
        "student": mapping(run.config.get("student")),
    }
    for stage, metrics in run.curves.items():
        planned = number(mapping(mapping(steps.get(stage)).get("optimization")).get("steps"))
        reached = max(curve.steps[-1] for curve in metrics.values())
        if planned is not None and reached < planned:
            run.missing.append(f"{stage}: unfinished, its metrics end at step {reached:,.0f} of {planned:,.0f}.")
    measured = {row.policy for row in run.rows}
    for path in sorted((run.directory / "policy").glob("[!.]*")) if run.result else ():
        if path.name not in measured:
            run.missing.append(f"result.json: policy {path.name} is not measured yet.")


def _data_returns(result: dict[str, Any], missing: list[str]) -> NDArray[np.float64] | None:
    """The returns of the dataset's episodes, as the run noted them: its data may be far away."""
    returns = mapping(result.get("behavior")).get("returns")
    if isinstance(returns, list) and returns and all(number(value) is not None for value in returns):
        return np.array(returns, np.float64)
    if result.get("rows"):
        missing.append("result.json: has no returns of the data, so they are not shown beside the policies'.")
    return None
