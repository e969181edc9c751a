"""Everything that is wrong or suspicious about a dataset, each in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ractd.data.dataset import Bools, Floats, Ints, OfflineDataset
from ractd.data.end_checks import check_ends, check_returns
from ractd.data.end_fields import SUCCESSES
from ractd.data.fields import FORMS, GOALS, Finding, Source, field_of, rows_told
from ractd.data.range_checks import check_ranges
from ractd.data.ranges import BLOCK_ROWS
from ractd.data.reading import read
from ractd.data.registry import find_source
from ractd.data.rewards import settle_rewards
from ractd.errors import RactdError
from ractd.settings import TerminalsMean

BOUND_TOLERANCE = 1e-4
"""Share of an action's range that float32 rounding may put it outside its bounds."""


def check_data(
    dataset: str | Path | OfflineDataset,
    env_id: str | None = None,
    env_steps: int | None = None,
    ends: TerminalsMean | None = None,
    termination_penalty: float | None = None,
) -> tuple[OfflineDataset | None, list[Finding]]:
    """Return a dataset as training takes it, None where there is an error in its layout or values, and what its rows show.

    `env_id`, `env_steps` and `ends` are what the user says of it, `termination_penalty` what a failure is to cost, where that
    is not the default.
    """
    in_memory = dataset if isinstance(dataset, OfflineDataset) else None
    try:
        found = find_source(dataset) if in_memory is None else _source_of(in_memory)  # type: ignore[arg-type]
    except RactdError as error:
        return None, [Finding("error", str(error))]
    source = found.with_options(env_id, env_steps, ends)
    data, findings = read(source)
    if data is None or any(finding.level == "error" for finding in findings):
        return None, findings
    # A dataset in memory is taken as it is, but where rows were left out.
    if in_memory is not None and in_memory.num_transitions == data.num_transitions:
        options = {name: getattr(source, name) for name in ("env_id", "env_settings", "terminals_mean")}
        same = all(getattr(in_memory, name) == value for name, value in options.items())
        data, _ = settle_rewards(in_memory if same else replace(in_memory, **options))
    where = data.where
    findings += check_episodes(data, where)
    findings += check_ends(data, where)
    findings += check_returns(data, where, termination_penalty)
    findings += check_spread(data, where)
    findings += check_ranges(data, where)
    return data, findings


def _source_of(dataset: OfflineDataset) -> Source:
    names = [name for name in (*FORMS, SUCCESSES) if getattr(dataset, name) is not None]
    fields = {name: field_of(getattr(dataset, name)) for name in names if name != "rewards" or dataset.has_rewards}
    if dataset.goals is not None:
        fields[GOALS] = field_of(dataset.goals)
    return Source(
        where=dataset.where,
        name=dataset.name,
        fields=fields,
        env_id=dataset.env_id,
        env_settings=dataset.env_settings,
        recipe=dataset.recipe,
        maze=dataset.maze,
        terminals_mean=dataset.terminals_mean,
    )


def check_episodes(data: OfflineDataset, where: str) -> Iterator[Finding]:
    """Yield what is suspicious about where episodes end."""
    last, rows = int(data.episode_starts[-1]), data.num_transitions
    if not (data.terminals.any() or data.timeouts.any()):
        yield Finding(
            "error",
            f"{where}: no row has a terminal or a timeout, so all {rows:,} rows are one episode without an end; "
            "mark the ends in 'terminals' and 'timeouts', or take it as it is with --accept one-episode",
            "one-episode",
        )
        return
    if not (data.terminals[-1] or data.timeouts[-1]):
        yield Finding(
            "warning",
            f"{where}: the last episode (rows {last:,} to {rows - 1:,}) has no end, it is taken as cut off there",
        )
    if data.num_episodes == 1:
        yield Finding("warning", f"{where}: one episode only, so nothing can be held out to measure the return model")
    short = int((data.episode_lengths == 1).sum())
    if short and data.num_episodes > 1:
        yield Finding(
            "warning",
            f"{where}: {short:,} of {data.num_episodes:,} episodes have one row only; if steps are not decisions of their own, an "
            "end is marked too often",
        )


def check_spread(data: OfflineDataset, where: str) -> Iterator[Finding]:
    """Yield the dimensions that never change."""
    for name, values in (("observations", data.observations), ("actions", data.actions)):
        constant = constant_dimensions(values)
        if len(constant):
            yield Finding(
                "warning", f"{where}: {name} never change in {_dimensions(constant)}, which can teach nothing"
            )


def constant_dimensions(values: Floats) -> Ints:
    """Return which columns of [N, D] hold one value in every row, rising; none for N = 1."""
    if len(values) < 2:
        return np.zeros(0, np.int64)
    return np.flatnonzero(values.min(axis=0) == values.max(axis=0))


def check_unit_actions(data: OfflineDataset, where: str) -> Iterator[Finding]:
    """Yield actions outside [-1, 1], the bounds of most environments, where none is named."""
    beyond = outside(data, np.float32(-1), np.float32(1))
    if beyond.any():
        yield Finding(
            "warning",
            f"{where}: {rows_told(np.flatnonzero(beyond))} actions outside [-1, 1]; fine if those are their units, "
            "name the environment (--env) to check them against its bounds",
        )


def outside(data: OfflineDataset, low: Floats | np.float32, high: Floats | np.float32) -> Bools:
    """Return the rows [N] with an action outside of bounds, scalars or [A], by more than rounding."""
    slack = BOUND_TOLERANCE * np.minimum(high - low, np.float32(1e6))
    found = np.zeros(data.num_transitions, np.bool_)
    for start in range(0, data.num_transitions, BLOCK_ROWS):
        block = data.actions[start : start + BLOCK_ROWS]
        found[start : start + BLOCK_ROWS] = ((block < low - slack) | (block > high + slack)).any(axis=1)
    return found


def _dimensions(numbers: Sequence[int] | Ints) -> str:
    listed = ", ".join(str(number) for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
    return f"dimension{'s' if len(numbers) > 1 else ''} {listed}"
