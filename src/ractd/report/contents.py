"""What is known of a run: everything its directory holds, read so that a broken file costs what it held and no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.scores import reference
from ractd.errors import RactdError
from ractd.files import read_json
from ractd.results.curves import Curve, read_curves
from ractd.runs.directory import read_run
from ractd.runs.rows import Row, check_format, labels, read_row

DATA = "behaviour data"
PLANS = "plans.png"
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Contents:
    """A run as a report shows it."""

    label: str
    """What it is called beside the others of the report."""
    directory: Path
    description: dict[str, Any]
    """`config.json`; empty where it can't be read."""
    result: dict[str, Any]
    """`result.json` without its rows; empty where it can't be read."""
    rows: dict[str, Row]
    """The rows of the result by name, the one that the run is about first."""
    curves: dict[str, dict[str, Curve]]
    """By stage, then by metric."""
    data_returns: NDArray[np.float64] | None
    """Returns of the dataset's episodes, [E]."""
    plans: bytes | None
    """`plans.png`."""
    missing: list[str] = field(default_factory=list)
    """What is not shown and why, a sentence each."""

    @property
    def method(self) -> str:
        """Name of the method that was trained."""
        return str(self.description.get("method"))

    @property
    def config(self) -> dict[str, Any]:
        """The run's settings, nested as in its file."""
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
        return "plan" if any(row.plans for row in self.rows.values()) else "action"

    @property
    def column(self) -> str:
        """What its policies are measured in, as a row's columns are called."""
        if self.env_id is None:
            return "estimated_return"
        return "mean_return" if reference(self.env_id) is None else "mean_score"

    @property
    def unit(self) -> str:
        """The same in words: runs of the same unit can share an axis."""
        estimate = f"return model's estimate, {self.dataset.get('name', self.label)}"
        words = {"estimated_return": estimate, "mean_return": f"return in {self.env_id}"}
        return words.get(self.column, "D4RL-normalised score")

    def value(self, row: Row) -> tuple[float | None, float | None]:
        """Return a row's value in the run's unit, and its standard error."""
        errors = {"mean_return": row.return_se, "mean_score": row.score_se}
        return getattr(row, self.column), errors.get(self.column)

    @property
    def data_value(self) -> float | None:
        """What the data is worth in the run's unit."""
        if self.env_id is not None:
            return number(self.behavior.get(self.column))
        return next((row.offline.get("estimated_return_of_data") for row in self.rows.values()), None)


def by_unit(runs: Sequence[Contents]) -> dict[str, list[int]]:
    """Group runs, given by their numbers in the report, by their units."""
    groups: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(run.unit, []).append(index)
    return groups


def read_runs(directories: Sequence[Path]) -> list[Contents]:
    """Read run directories, each under the shortest end of its path that tells it from the others.

    Raises `RactdError` for one that is no run at all, that is of another edition, or that is named twice.
    """
    paths = [directory.resolve() for directory in directories]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise RactdError(f"{directories[index]}: is named twice")
    length = 1
    while len({path.parts[-length:] for path in paths}) < len(paths):
        length += 1
    names = [str(Path(*path.parts[-length:])) for path in paths]
    return [read_contents(*pair) for pair in zip(directories, names, strict=True)]


def read_contents(directory: Path, label: str) -> Contents:
    """Read what there is of a run; raises `RactdError` for a directory that is no run, and for a result of another edition."""
    parts = ("config.json", "metrics.jsonl", "result.json")
    if not directory.is_dir():
        raise RactdError(f"{directory}: no such directory; name the directory of a run, such as runs/hopper-mixed-s0")
    if not any((directory / part).exists() for part in parts):
        raise RactdError(f"{directory}: is no run; it has none of {', '.join(parts)}")
    missing: list[str] = []
    description = _tolerated(lambda: read_run(directory), missing, "its configuration and dataset are not shown")
    result = _read_result(directory / "result.json", missing)
    contents = Contents(
        label=label,
        directory=directory,
        description=mapping(description),
        rows=_read_rows(result.pop("rows", []), missing),
        result=result,
        curves=read_curves(directory / "metrics.jsonl", missing),
        data_returns=_data_returns(result, missing),
        plans=_read_plans(directory / PLANS, missing),
        missing=missing,
    )
    _name_unfinished(contents)
    return contents


def number(value: Any) -> float | None:
    """Return a finite number as it is and anything else as None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def mapping(value: Any) -> dict[str, Any]:
    """Return a dictionary as it is and anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def _tolerated(read: Callable[[], Any], missing: list[str], consequence: str) -> Any:
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


def _read_result(path: Path, missing: list[str]) -> dict[str, Any]:
    if not path.exists():
        missing.append("result.json: not there, the run has not been scored; the result table is empty.")
        return {}
    content = _tolerated(lambda: read_json(path), missing, "there are no scores to show")
    if content is None:
        return {}
    check_format(content, path)
    return mapping(content)


def _read_rows(contents: Sequence[Any], missing: list[str]) -> dict[str, Row]:
    rows = []
    for index, content in enumerate(contents):
        try:
            rows.append(read_row(content, f"result.json: rows[{index}]"))
        except RactdError as error:
            missing.append(f"{error}; this row is not shown.")
    return dict(zip(labels(rows), rows, strict=True))


def _read_plans(path: Path, missing: list[str]) -> bytes | None:
    if not path.exists():
        return None
    content: bytes | None = _tolerated(path.read_bytes, missing, "the maze plans are not shown")
    if content is not None and not content.startswith(PNG):
        missing.append(f"{PLANS}: is no PNG; the maze plans are not shown.")
        return None
    return content


def _data_returns(result: dict[str, Any], missing: list[str]) -> NDArray[np.float64] | None:
    """The returns of the dataset's episodes, as the run noted them: its data may be far away."""
    returns = mapping(result.get("behavior")).get("returns")
    if isinstance(returns, list) and returns and all(number(value) is not None for value in returns):
        return np.array(returns, np.float64)
    if result:
        missing.append("result.json: has no returns of the data, so they are not shown beside the policies'.")
    return None


def _name_unfinished(run: Contents) -> None:
    """Add to `missing` the stages without curves, and what a run that has not ended will still bring."""
    unlogged = [stage for stage in mapping(run.result.get("stages")) if stage not in run.curves]
    if unlogged and run.curves:
        run.missing.append(f"metrics.jsonl: has nothing of {', '.join(unlogged)}; there are no such training curves.")
    if run.result.get("complete") or not run.config:
        return
    if run.curves and not run.result:
        stage, metrics = list(run.curves.items())[-1]
        reached = max(curve.steps[-1] for curve in metrics.values())
        run.missing.append(
            f"{stage}: the run has not ended, its metrics are as far as step {reached:,.0f} of this stage."
        )
    measured = {row.policy for row in run.rows.values()}
    for path in sorted((run.directory / "policy").glob("[!.]*")) if run.result else ():
        if path.name not in measured:
            run.missing.append(f"result.json: policy {path.name} is not measured yet.")
