"""Everything that is wrong or suspicious about a dataset, each in one sentence."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ractd.data.dataset import Bools, Floats, Ints, OfflineDataset
from ractd.data.end_checks import check_ends, check_returns
from ractd.data.end_fields import SUCCESSES
from ractd.data.fields import FORMS, GOALS, Finding, Source, field_of, rows_told, stop_at_errors
from ractd.data.range_checks import check_ranges
from ractd.data.ranges import BLOCK_ROWS
from ractd.data.reading import read
from ractd.data.registry import find_source
from ractd.data.rewards import settle_rewards
from ractd.envs.settings import settings_for
from ractd.errors import RactdError
from ractd.settings import TerminalsMean

__all__ = ["ACCEPTABLE", "Finding", "constant_dimensions", "examined", "validate"]

ACCEPTABLE = ("one-episode", "equal-returns")
"""Errors that a user may know better about: `--accept` makes warnings of them."""

NO_ENVIRONMENT = "no environment"
"""Key of the finding that the data's environment can't be used."""
BOUND_TOLERANCE = 1e-4
"""Share of an action's range that float32 rounding may put it outside its bounds."""


def validate(
    dataset: str | Path | OfflineDataset, env_id: str | None = None, ends: TerminalsMean | None = None
) -> list[Finding]:
    """Return everything found about a dataset given as what `load_dataset` takes or loaded; empty means sound.

    Errors are what training stops at: what `load_dataset` stops at, an environment that doesn't fit (`env_id`, else the
    data's), and data that can't teach what they seem to; the rest are warnings. `ends` says what terminals are. Raises
    nothing: a dataset that can't be found or opened is one error.
    """
    return examine(dataset, env_id, ends=ends)[1]


def examine(
    dataset: str | Path | OfflineDataset,
    env_id: str | None = None,
    env_steps: int | None = None,
    ends: TerminalsMean | None = None,
    simulate: bool = True,
    termination_penalty: float | None = None,
) -> tuple[OfflineDataset | None, list[Finding]]:
    """Return a dataset as training takes it, None where there is an error in its layout or values, and all that is found.

    The environment is `env_id` with the step limit `env_steps`, else the data's own; without `simulate` it is not made.
    `termination_penalty` is what a failure is to cost, where that is not the default.
    """
    given = dataset if isinstance(dataset, OfflineDataset) else None
    try:
        source = find_source(dataset) if given is None else _source_of(given)  # type: ignore[arg-type]
    except RactdError as error:
        return None, [Finding("error", str(error))]
    source = replace(
        source,
        env_id=env_id or source.env_id,
        env_settings=settings_for(source.env_id, source.env_settings, env_id, env_steps),
        terminals_mean=ends or source.terminals_mean,
    )
    data, findings = read(source)
    if data is None or any(finding.level == "error" for finding in findings):
        return None, findings
    # A dataset in memory is taken as it is, but where rows were left out.
    if given is not None and given.num_transitions == data.num_transitions:
        told = ("env_id", "env_settings", "terminals_mean")
        same = all(getattr(given, name) == getattr(source, name) for name in told)
        data, _ = settle_rewards(given if same else replace(given, **{name: getattr(source, name) for name in told}))
    where = source.where
    findings += check_episodes(data, where)
    findings += check_ends(data, where)
    findings += check_returns(data, where, termination_penalty)
    findings += check_spread(data, where)
    findings += check_ranges(data, where)
    asked = "--env" if env_id else "--env-steps" if env_steps else ""
    if data.env_id is not None and simulate:
        findings += check_environment(data, data.env_id, where, bool(asked))
    else:
        findings += check_unit_actions(data, where)
        if asked and simulate:
            message = f"{where}: {asked} is of an environment, and the data names none; give one with --env"
            findings.append(Finding("error", message))
    return data, findings


def examined(
    dataset: str | Path | OfflineDataset,
    env_id: str | None = None,
    env_steps: int | None = None,
    ends: TerminalsMean | None = None,
    simulate: bool = True,
    termination_penalty: float | None = None,
    accept: Collection[str] = (),
) -> tuple[OfflineDataset, list[Finding]]:
    """Return what `examine` does, with the errors named in `accept`, of `ACCEPTABLE`, as warnings.

    Raises `RactdError` with the first error that is left and the number of others.
    """
    unknown = [name for name in accept if name not in ACCEPTABLE]
    if unknown:
        raise RactdError(f"accept has {unknown[0]!r}, expected some of {', '.join(ACCEPTABLE)}")
    data, findings = examine(dataset, env_id, env_steps, ends, simulate, termination_penalty)
    left = [replace(finding, level="warning") if finding.key in accept else finding for finding in findings]
    stop_at_errors(left)
    assert data is not None
    return data, left


def _source_of(dataset: OfflineDataset) -> Source:
    names = [name for name in (*FORMS, SUCCESSES) if getattr(dataset, name) is not None]
    fields = {name: field_of(getattr(dataset, name)) for name in names if name != "rewards" or dataset.has_rewards}
    if dataset.goals is not None:
        fields[GOALS] = field_of(dataset.goals)
    return Source(
        where=f"dataset {dataset.name!r}",
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
    outside = _outside(data, np.float32(-1), np.float32(1))
    if outside.any():
        yield Finding(
            "warning",
            f"{where}: {rows_told(np.flatnonzero(outside))} actions outside [-1, 1]; fine if those are their units, "
            "name the environment (--env) to check them against its bounds",
        )


def check_environment(data: OfflineDataset, env_id: str, where: str, asked: bool) -> Iterator[Finding]:
    """Yield why an environment can't be used, or doesn't fit the data, and actions outside its bounds.

    It is reset once and takes a few steps. That it can't be used is an error only where it was `asked` for.
    """
    from ractd.envs.evaluate import MAX_STEPS
    from ractd.envs.probe import probe
    from ractd.envs.vector import environments_of

    try:
        environment = environments_of(data, data.source)(env_id, 1, 0)
        try:
            limit = environment.max_episode_steps
            observation_dim, low, high = environment.observation_dim, environment.action_low, environment.action_high
            probe(environment, env_id)
        finally:
            environment.close()
    except RactdError as error:
        scored = "" if asked else ", so nothing is scored in it"
        message = f"{where}: environment {env_id!r} can't be used{scored}: {error}"
        yield Finding("error" if asked else "warning", message, NO_ENVIRONMENT)
        return
    if limit is None:
        yield Finding(
            "warning",
            f"{env_id} has no step limit: an episode that doesn't end by itself stops the run after {MAX_STEPS:,} steps; "
            "--env-steps N cuts it after N",
        )
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
                f"{where}: {rows_told(rows)} actions outside the bounds of {env_id!r}, which executes them clipped",
            )


def _outside(data: OfflineDataset, low: Floats | np.float32, high: Floats | np.float32) -> Bools:
    slack = BOUND_TOLERANCE * np.minimum(high - low, np.float32(1e6))
    outside = np.zeros(data.num_transitions, np.bool_)
    for start in range(0, data.num_transitions, BLOCK_ROWS):
        block = data.actions[start : start + BLOCK_ROWS]
        outside[start : start + BLOCK_ROWS] = ((block < low - slack) | (block > high + slack)).any(axis=1)
    return outside


def _dimensions(numbers: Sequence[int] | Ints) -> str:
    listed = ", ".join(str(number) for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
    return f"dimension{'s' if len(numbers) > 1 else ''} {listed}"
