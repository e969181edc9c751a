"""A result is tidy rows: one for each variant of a method that was measured, in `result.json` and in the files of `ractd eval`.

Importing it imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ractd.data.scores import normalized_score, standard_error
from ractd.envs.evaluate import EvaluationResult, Protocol
from ractd.errors import RactdError
from ractd.files import read_json, write_json

if TYPE_CHECKING:
    import pandas as pd

    from ractd.policies import Policy

FORMAT, FORMAT_VERSION = "ractd-result", 2
DERIVED = ("mean_return", "return_se", "mean_score", "score_se", "mean_length", "terminated_share", "success_rate")
"""What a file says beside a row's own columns, for its readers; it is computed again from the episodes when it is read."""

Checkpoint = Literal["last", "best"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One policy of a run, sampled in one way, and what was measured of it; what was not measured is None or empty."""

    method: str
    variant: str
    """What the method calls this policy sampled like this; in an evaluation's file the policy's name."""
    policy: str
    """Its folder in the run's `policy/`."""
    dataset: str
    seed: int | None
    """The training's."""
    checkpoint: Checkpoint
    """`best` where evaluations during training chose it, `last` where training ended with it."""
    selection: str
    """What picked the checkpoint: `last`, or `online`, the evaluations during training."""
    step: int | None
    """Training step of the checkpoint, None where it isn't noted."""
    sampler: str
    steps: int
    """Sampling steps."""
    candidates: int
    """Sequences drawn for each action."""
    nfe: int
    """Network evaluations for one sequence."""
    plans: bool
    """Whether it plans a way to a goal: then times are for a plan, and an episode that paid anything came to the goal."""
    processor_seconds: float | None = None
    """Processor time of the training of all stages that it needed, evaluations apart; None where one of them isn't known."""
    protocol: Protocol | None = None
    returns: tuple[float, ...] = ()
    """Undiscounted return of each episode, [E]."""
    lengths: tuple[int, ...] = ()
    """Steps of each episode, [E]."""
    terminated: tuple[bool, ...] = ()
    """True where the environment ended the episode, False where its time limit did, [E]; empty where it isn't known."""
    offline: dict[str, float] = field(default_factory=dict)
    """What is said without a simulator, at logged states: `distance_to_data`, and where there is a critic
    `estimated_return` and `estimated_return_of_data`."""
    threads: int | None = None
    """CPU threads that it was measured with."""
    ms_per_action: float | None = None
    """Median wall time of `act` at batch 1."""
    ms_low: float | None = None
    """10% of the calls were faster."""
    ms_high: float | None = None
    """10% of the calls were slower."""

    @cached_property
    def scores(self) -> NDArray[np.float64] | None:
        """D4RL-normalised return of each episode, [E]; None where nothing was played or there is no reference."""
        return None if self.protocol is None else normalized_score(self.protocol.env_id, self.returns)

    @property
    def mean_return(self) -> float | None:
        """Mean undiscounted return."""
        return float(np.mean(self.returns)) if self.returns else None

    @property
    def return_se(self) -> float | None:
        """Standard error of the mean return over episodes, None for fewer than two."""
        return _known(standard_error(self.returns))

    @property
    def mean_score(self) -> float | None:
        """Mean normalised score."""
        return None if self.scores is None else float(self.scores.mean())

    @property
    def score_se(self) -> float | None:
        """Standard error of the mean score over episodes, None for fewer than two."""
        return None if self.scores is None else _known(standard_error(self.scores))

    @property
    def mean_length(self) -> float | None:
        """Mean steps of an episode."""
        return float(np.mean(self.lengths)) if self.lengths else None

    @property
    def terminated_share(self) -> float | None:
        """Share of the episodes that the environment ended."""
        return float(np.mean(self.terminated)) if self.terminated else None

    @property
    def success_rate(self) -> float | None:
        """Share of a planner's episodes that came to the goal: a maze pays for nothing else."""
        return float((np.array(self.returns) > 0).mean()) if self.plans and self.returns else None

    @property
    def estimated_return(self) -> float | None:
        """The critic's mean estimate of the discounted return-to-go at logged states."""
        return self.offline.get("estimated_return")

    @property
    def plan_ms_per_episode(self) -> float | None:
        """Wall time of an episode's plans."""
        if not self.plans or self.protocol is None or self.ms_per_action is None:
            return None
        return self.ms_per_action * float(np.ceil(np.array(self.lengths) / self.protocol.execute).mean())

    def played(self, result: EvaluationResult) -> Row:
        """Return the row with what episodes brought."""
        columns = {each.name: getattr(result, each.name) for each in fields(Protocol)}
        each: dict[str, Any] = {
            name: tuple(getattr(result, name).tolist()) for name in ("returns", "lengths", "terminated")
        }
        return replace(self, protocol=Protocol(**columns), **each)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types, with what is derived from its episodes."""
        return asdict(self) | {name: getattr(self, name) for name in DERIVED}


def _known(value: float) -> float | None:
    """Return a number, None for NaN, which JSON has not."""
    return None if np.isnan(value) else value


def select(rows: Iterable[Row], **columns: Any) -> list[Row]:
    """Return the rows that have these values in these columns."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in columns.items())]


def labels(rows: Sequence[Row]) -> list[str]:
    """Return a name for each row: its variant, with its checkpoint where the same variant stands there with another."""
    best = {row.variant for row in rows if row.checkpoint == "best"}
    return [
        f"{row.variant}, last checkpoint" if row.checkpoint == "last" and row.variant in best else row.variant
        for row in rows
    ]


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as a table of pandas: a column for each of a row's, the protocol's and the derived values.

    `returns`, `lengths` and `terminated` hold a tuple a row: `frame(rows).explode("returns")` has a line an episode.
    """
    import pandas

    lines = []
    for row in rows:
        line = row.to_json()
        protocol, offline = line.pop("protocol") or {}, line.pop("offline")
        # The training's seed and the episodes' are two columns.
        protocol = {"evaluation_seed" if name == "seed" else name: value for name, value in protocol.items()}
        lines.append(line | protocol | offline)
    return pandas.DataFrame(lines)


@dataclass(frozen=True, repr=False)
class Result:
    """What was measured of a run, or of one of its policies; it prints as a table, and is one in notebooks."""

    directory: Path
    """The run."""
    content: dict[str, Any]
    """What its file says beside the rows: the data, the stages, versions, the machine's load; empty before anything is measured."""
    rows: tuple[Row, ...] = ()

    @property
    def complete(self) -> bool:
        """True once every row is measured."""
        return bool(self.content.get("complete"))

    def __repr__(self) -> str:
        from ractd.runs.tables import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from ractd.runs.tables import as_html

        return as_html(self)

    def row(self, variant: str, **columns: Any) -> Row:
        """Return the first row of a variant that has these columns; raises `KeyError`."""
        for row in select(self.rows, variant=variant, **columns):
            return row
        raise KeyError(variant)

    def scores(self) -> dict[str, float]:
        """Return mean return and mean score of every row that has one, as `mean_return/NAME`."""
        found = {
            f"{column}/{name}": getattr(row, column)
            for name, row in zip(labels(self.rows), self.rows, strict=True)
            for column in ("mean_return", "mean_score")
        }
        return {name: value for name, value in found.items() if value is not None}

    def policy(self, name: str | None = None) -> Policy:
        """Load a policy of the run, by default its main one."""
        from ractd.policies import Policy

        return Policy.load(self.directory if name is None else self.directory / "policy" / name)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        head = {"format": FORMAT, "format_version": FORMAT_VERSION}
        write_json(path, head | self.content | {"rows": [row.to_json() for row in self.rows]})


def read_result(directory: Path) -> Result | None:
    """Read a run's result, None where it has none yet; raises `RactdError` for one that can't be read."""
    path = directory / "result.json"
    return read_file(path, directory) if path.exists() else None


def complete_result(directory: Path) -> Result | None:
    """Read the result of a run that is finished, None where it isn't, or where its file can't be read: training tells why."""
    with suppress(RactdError):
        if (result := read_result(directory)) is not None and result.complete:
            return result
    return None


def read_evaluations(directory: Path) -> list[Result]:
    """Read what `ractd eval` measured of a run's policies, a result of one row each."""
    return [read_file(path, directory) for path in sorted((directory / "evaluations").glob("*.json"))]


def read_file(path: Path, directory: Path) -> Result:
    """Read a result's file; raises `RactdError` for anything that is none, and for one of the first edition."""
    content = read_json(path)
    check_format(content, path)
    rows = tuple(read_row(row, f"{path}: rows[{index}]") for index, row in enumerate(content.pop("rows")))
    del content["format"], content["format_version"]
    return Result(directory, content, rows)


def check_format(content: Any, path: Path) -> None:
    """Raise `RactdError` for JSON that is no result of this format."""
    version = content.get("format_version", 1) if isinstance(content, dict) else None
    if version == FORMAT_VERSION and content.get("format") == FORMAT and isinstance(content.get("rows"), list):
        return
    if version == 1 and ("rows" in content or "evaluation" in content):
        raise RactdError(
            f"{path}: is a result of the first edition (format 1), and this ractd reads format {FORMAT_VERSION}; "
            "train again into another directory, use ractd 0.1 for this one, or convert it with benchmarks/convert_results.py"
        )
    raise RactdError(f"{path}: is no result of ractd in format {FORMAT_VERSION}")


def read_row(content: Any, where: str) -> Row:
    """Return a row as a file has it; raises `RactdError` naming the column that is missing or of another type."""
    try:
        return msgspec.convert(content, Row)
    except msgspec.ValidationError as error:
        raise RactdError(f"{where}: {error}") from None
