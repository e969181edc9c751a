"""Everything that is wrong or suspicious about a dataset and the environment that it names, each in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from ractd.data.dataset import OfflineDataset
from ractd.data.findings import Finding, error, has_errors, located, rows_have, warning
from ractd.data.reading import read, source_of_dataset
from ractd.data.registry import find_source
from ractd.data.rewards import settle_rewards
from ractd.data.validation import check_rows, check_unit_actions, outside
from ractd.envs.environments import environments_of
from ractd.envs.evaluate import MAX_STEPS, probe
from ractd.errors import RactdError
from ractd.settings import TerminalsMean

NO_ENVIRONMENT = "no environment"
"""Key of the finding that the data's environment can't be used."""


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
    termination_penalty: float | None = 0.0,
) -> tuple[OfflineDataset | None, list[Finding]]:
    """Return a dataset as training takes it, None where there is an error in its layout or values, and everything found.

    The environment is `env_id` with the step limit `env_steps`, else the data's own; without `simulate` it is not made. `ends`
    is what the user says that terminals are, `termination_penalty` what a failure is to cost: nothing,
    as the default preset has it, or for None the paper's.
    """
    try:
        found = source_of_dataset(dataset) if isinstance(dataset, OfflineDataset) else find_source(dataset)
    except RactdError as unusable:
        return None, [error(str(unusable))]
    source = found.with_options(env_id, env_steps, ends)
    data, findings = read(source)
    if data is None or has_errors(findings):
        return None, findings
    # A dataset in memory is taken as it is, but where rows were left out.
    if isinstance(dataset, OfflineDataset) and dataset.num_transitions == data.num_transitions:
        options = {name: getattr(source, name) for name in ("env_id", "env_settings", "terminals_mean")}
        same = all(getattr(dataset, name) == value for name, value in options.items())
        data, _ = settle_rewards(dataset if same else replace(dataset, **options))
    findings += located(check_rows(data, termination_penalty), data.where)
    asked = "--env" if env_id else "--env-steps" if env_steps else ""
    if data.env_id is not None and simulate:
        shown = list(check_environment(data, data.env_id, bool(asked)))
    else:
        shown = list(check_unit_actions(data))
        if asked and simulate:
            shown.append(error(f"{asked} is of an environment, and the data names none; give one with --env"))
    return data, findings + located(shown, data.where)


def check_environment(data: OfflineDataset, env_id: str, asked: bool) -> Iterator[Finding]:
    """Yield why an environment can't be used, or doesn't fit the data, and actions outside its bounds.

    It is reset once and takes a few steps. That it can't be used is an error only where it was `asked` for.
    """
    try:
        with closing(environments_of(data, data.where)(env_id, 1, 0)) as environment:
            limit = environment.max_episode_steps
            observation_dim, low, high = environment.observation_dim, environment.action_low, environment.action_high
            probe(environment, env_id)
    except RactdError as fault:
        scored = "" if asked else ", so nothing is scored in it"
        message = f"environment {env_id!r} can't be used{scored}: {fault}"
        yield error(message, NO_ENVIRONMENT) if asked else warning(message, NO_ENVIRONMENT)
        return
    if limit is None:
        yield warning(
            f"{env_id} has no step limit: an episode that doesn't end by itself stops the run after {MAX_STEPS:,} steps; "
            "--env-steps N cuts it after N"
        )
    pairs = (("observations", data.observation_dim, observation_dim), ("actions", data.action_dim, len(low)))
    for name, found, expected in pairs:
        if found != expected:
            yield error(
                f"{name} have {found} dimensions, environment {env_id!r} has {expected}; name the environment of this data "
                "(--env)"
            )
    if all(found == expected for _, found, expected in pairs):
        rows = np.flatnonzero(outside(data, low, high))
        if len(rows):
            yield warning(f"{rows_have(rows)} actions outside the bounds of {env_id!r}, which executes them clipped")
