"""Everything that is wrong or suspicious about a dataset, each in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ractd.data.dataset import Bools, Floats, Ints, OfflineDataset
from ractd.data.fields import DAMAGE, FORMS, GOALS, Finding, Source, field_of, load, read
from ractd.data.range_checks import check_ranges
from ractd.data.ranges import BLOCK_ROWS
from ractd.data.registry import find_source
from ractd.envs.settings import settings_for
from ractd.errors import RactdError

__all__ = ["Finding", "constant_dimensions", "sound", "validate"]

BOUND_TOLERANCE = 1e-4
"""Share of an action's range that float32 rounding may put it outside its bounds."""


def validate(dataset: str | Path | OfflineDataset, env_id: str | None = None) -> list[Finding]:
    """Return everything found about a dataset given as what `load_dataset` takes or loaded; empty means sound.

    Errors are what `load_dataset` would stop at, and spaces of the environment (`env_id`, else the data's) that don't
    fit; the rest are warnings. Raises nothing: a dataset that can't be found or opened is one error.
    """
    try:
        source = _source_of(dataset) if isinstance(dataset, OfflineDataset) else find_source(dataset)
    except RactdError as error:
        return [Finding("error", str(error))]
    data, findings = read(source)
    if data is None:
        return findings
    where = source.where
    findings += check_episodes(data, where)
    findings += check_spread(data, where)
    findings += check_ranges(data, where)
    findings += check_successors(data, source)
    environment = env_id or data.env_id
    if environment is None:
        findings += check_unit_actions(data, where)
    else:
        findings += check_environment(data, environment, where)
    return findings


def _source_of(dataset: OfflineDataset) -> Source:
    fields = {name: field_of(getattr(dataset, name)) for name in FORMS}
    if dataset.goals is not None:
        fields[GOALS] = field_of(dataset.goals)
    where = f"dataset {dataset.name!r}"
    return Source(
        where=where,
        name=dataset.name,
        fields=fields,
        env_id=dataset.env_id,
        env_settings=dataset.env_settings,
        recipe=dataset.recipe,
        maze=dataset.maze,
    )


def sound(dataset: OfflineDataset) -> OfflineDataset:
    """Return a dataset that is in memory as it is; raises RactdError for what `load_dataset` would stop at in a file."""
    load(_source_of(dataset))
    return dataset


def check_episodes(data: OfflineDataset, where: str) -> Iterator[Finding]:
    """Yield what is suspicious about where episodes end."""
    last, rows = int(data.episode_starts[-1]), data.num_transitions
    if not (data.terminals.any() or data.timeouts.any()):
        yield Finding(
            "warning",
            f"{where}: no row has a terminal or a timeout, so all {rows:,} rows are one episode without an end; "
            "mark the ends in 'terminals' and 'timeouts'",
        )
        return
    if not (data.terminals[-1] or data.timeouts[-1]):
        yield Finding(
            "warning",
            f"{where}: the last episode (rows {last:,} to {rows - 1:,}) has no end, it is taken as cut off there",
        )
    if data.num_episodes == 1:
        yield Finding("warning", f"{where}: one episode only, so nothing can be held out to measure the return model")


def check_spread(data: OfflineDataset, where: str) -> Iterator[Finding]:
    """Yield the dimensions that never change."""
    for name, values in (("observations", data.observations), ("actions", data.actions)):
        constant = constant_dimensions(values)
        if len(constant):
            yield Finding(
                "warning", f"{where}: {name} never change in {_dimensions(constant)}, which can teach nothing"
            )
    if len(data.rewards) > 1 and data.rewards.min() == data.rewards.max():
        yield Finding("warning", f"{where}: every reward is {data.rewards[0]:g}, so no action is better than another")


def constant_dimensions(values: Floats) -> Ints:
    """Return which columns of [N, D] hold one value in every row, rising; none for N = 1."""
    if len(values) < 2:
        return np.zeros(0, np.int64)
    return np.flatnonzero(values.min(axis=0) == values.max(axis=0))


def check_successors(data: OfflineDataset, source: Source) -> Iterator[Finding]:
    """Yield rows whose `next_observations`, where the file has them, show that an episode ended there unmarked."""
    stored = source.fields.get("next_observations")
    if stored is None or stored.shape != data.observations.shape or stored.dtype.kind not in "fiu":
        return
    inside = ~(data.terminals | data.timeouts)
    inside[-1] = False
    broken: list[Ints] = []
    at = 0
    try:
        for block in stored.blocks():
            rows = at + np.flatnonzero(inside[at : at + len(block)])
            after, said = data.observations[rows + 1], block[rows - at]
            gap = np.abs(after - said) > 1e-3 * (1 + np.abs(after))
            broken.append(rows[gap.any(axis=1)])
            at += len(block)
    except (*DAMAGE, RactdError):
        yield Finding(
            "warning", f"{source.where}: field 'next_observations' can't be read from row {at} on; it isn't used"
        )
        return
    found = np.concatenate(broken)
    if len(found):
        yield Finding(
            "warning",
            f"{source.where}: {_rows(found)} no end, yet the next row's observation isn't their 'next_observations'; "
            "an episode ends there unmarked, set 'timeouts' (or 'terminals')",
        )


def check_unit_actions(data: OfflineDataset, where: str) -> Iterator[Finding]:
    """Yield actions outside [-1, 1], the bounds of most environments, where none is named."""
    outside = _outside(data, np.float32(-1), np.float32(1))
    if outside.any():
        yield Finding(
            "warning",
            f"{where}: {_rows(np.flatnonzero(outside))} actions outside [-1, 1]; fine if those are their units, "
            "name the environment (--env) to check them against its bounds",
        )


def check_environment(data: OfflineDataset, env_id: str, where: str) -> Iterator[Finding]:
    """Yield where an environment's spaces don't fit the data, and actions outside its bounds."""
    try:
        from ractd.data.maze import make_for

        settings = settings_for(data.env_id, data.env_settings, env_id, None)
        environment = make_for(replace(data, env_id=env_id, env_settings=settings))(env_id, 1, 0)
    except (RactdError, ImportError) as error:
        yield Finding("warning", f"{where}: not checked against environment {env_id!r}: {error}")
        return
    try:
        observation_dim, low, high = environment.observation_dim, environment.action_low, environment.action_high
    finally:
        environment.close()
    fits = True
    pairs = (("observations", data.observation_dim, observation_dim), ("actions", data.action_dim, len(low)))
    for name, found, expected in pairs:
        if found != expected:
            fits = False
            yield Finding(
                "error",
                f"{where}: {name} have {found} dimensions, environment {env_id!r} has {expected}; "
                "name the environment of this data (--env)",
            )
    if fits:
        outside = _outside(data, low, high)
        if outside.any():
            rows = np.flatnonzero(outside)
            yield Finding(
                "warning",
                f"{where}: {_rows(rows)} actions outside the bounds of {env_id!r}, which executes them clipped",
            )


def _outside(data: OfflineDataset, low: Floats | np.float32, high: Floats | np.float32) -> Bools:
    slack = BOUND_TOLERANCE * np.minimum(high - low, np.float32(1e6))
    outside = np.zeros(data.num_transitions, np.bool_)
    for start in range(0, data.num_transitions, BLOCK_ROWS):
        block = data.actions[start : start + BLOCK_ROWS]
        outside[start : start + BLOCK_ROWS] = ((block < low - slack) | (block > high + slack)).any(axis=1)
    return outside


def _rows(rows: Ints) -> str:
    return f"row {rows[0]:,} has" if len(rows) == 1 else f"{len(rows):,} rows, the first {rows[0]:,}, have"


def _dimensions(numbers: Sequence[int] | Ints) -> str:
    listed = ", ".join(str(number) for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
    return f"dimension{'s' if len(numbers) > 1 else ''} {listed}"
