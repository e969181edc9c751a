"""One policy of a run, scored again or in another way: `ractd eval`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ractd.data.environment import settings_for
from ractd.envs.environments import Environment, environments_of
from ractd.envs.evaluate import probe
from ractd.envs.vector import MakeVector
from ractd.errors import RactdError
from ractd.networks.threads import threads_for
from ractd.policies import Policy
from ractd.policies.files import describe_policy, main_policy
from ractd.runs.directory import read_run
from ractd.runs.latency import time_policies
from ractd.runs.rows import Result
from ractd.runs.scoring import row_of, score


def policy_directory(directory: Path, name: str) -> Path:
    """Return where a run keeps one of its policies; raises `RactdError` naming those it has."""
    path = directory / "policy" / name
    if not path.is_dir():
        there = sorted(item.name for item in (directory / "policy").glob("*") if not item.name.startswith("."))
        found = f"it has {', '.join(there)}" if there else "it has no policy yet: 'ractd train' makes them"
        raise RactdError(f"{directory}: no policy {name!r}; {found}")
    return path


def evaluate_policy(
    directory: Path,
    name: str | None,
    *,
    episodes: int,
    execute: int | None,
    candidates: int | None,
    sampler: str | None,
    steps: int | None,
    env_id: str | None,
    env_steps: int | None = None,
    seed: int,
    console: Console,
) -> Result:
    """Score one policy of a run, by default its main one, and write `evaluations/<what>.json`.

    Raises `RactdError` for an unknown policy or setting.
    It is timed in turns with the run's main policy, where that is another: `beside` is what to compare with.
    """
    name = name or main_policy(directory)
    path = policy_directory(directory, name)
    policy = Policy.load(path).configured(sampler=sampler, steps=steps, candidates=candidates)
    own, sequence = policy.environment, policy.sequence
    env_id = env_id or (None if own is None else own.env_id)
    if env_id is None:
        raise RactdError(f"{directory}: its data names no environment; give one with --env")
    own = own or Environment(env_id)
    if sequence.open_loop and env_id != own.env_id:
        raise RactdError(f"{path}: plans in {own.env_id!r}, whose goal and walls it knows, and not in {env_id!r}")
    settings = settings_for(own.env_id, own.env_settings, env_id, env_steps)
    make = environments_of(replace(own, env_id=env_id, env_settings=settings), path)
    _check_spaces(policy, env_id, path, make)
    if execute is None:  # the first action, or all of a plan's (paper, 4.1 and 4.2)
        execute = sequence.horizon if sequence.open_loop else 1
    if not 1 <= execute <= sequence.horizon:
        raise RactdError(
            f"--execute is {execute}, expected 1 to {sequence.horizon}: the policy predicts {sequence.horizon} actions"
        )
    if not 0 <= seed < 2**31:
        raise RactdError(f"--seed is {seed}, expected 0 to {2**31 - 1}")
    console.print(f"evaluating {name} for {episodes} episodes in {env_id} ...", highlight=False)
    timing = {"measured": policy}
    main = directory / "policy" / main_policy(directory)
    if main.is_dir():
        beside = Policy.load(main)
        if main != path or describe_policy(beside) != describe_policy(policy):
            timing["beside"] = beside
    with threads_for(*(each.network_settings for each in timing.values())):
        trained = read_run(directory)["config"]["seed"] if (directory / "config.json").exists() else None
        row = row_of(policy, name, name, trained)
        row = score(row, policy, env_id, episodes, execute, seed, console, make)
        times, load = time_policies(timing)
    content: dict[str, Any] = {"complete": True, "load": load}
    if "beside" in times:
        content["beside"] = {"policy": main.name, "ms_per_action": times["beside"]["ms_per_action"]}
    result = Result(directory, content, (replace(row, **times["measured"]),))
    known = policy.environment
    elsewhere = "" if known and env_id == known.env_id else f"-{env_id.replace('/', '-').replace(':', '-')}"
    if settings != (known and known.env_settings) and settings.max_episode_steps is not None:
        elsewhere += f"-l{settings.max_episode_steps}"
    path = evaluation_path(
        directory,
        name,
        sampler=policy.sampling.sampler,
        steps=policy.sampling.steps,
        candidates=policy.sampling.candidates,
        episodes=episodes,
        execute=execute,
        seed=seed,
        elsewhere=elsewhere,
    )
    result.write(path)
    return result


def evaluation_path(
    directory: Path,
    name: str,
    *,
    sampler: str,
    steps: int,
    candidates: int = 1,
    episodes: int,
    execute: int,
    seed: int,
    elsewhere: str = "",
) -> Path:
    """Return where a run keeps what `evaluate_policy` measured of one of its policies.

    `elsewhere` says in what the environment is not the policy's own.
    """
    key = f"{name}-e{episodes}-x{execute}-n{candidates}-{sampler}-k{steps}-s{seed}{elsewhere}"
    return directory / "evaluations" / f"{key}.json"


def _check_spaces(policy: Policy, env_id: str, path: Path, make: MakeVector) -> None:
    sequence = policy.sequence
    with closing(make(env_id, 1, 0)) as env:
        dims = env.observation_dim, len(env.action_low)
        probe(env, env_id)
    if dims != (sequence.environment_dim, sequence.action_dim):
        raise RactdError(
            f"{path}: maps {sequence.environment_dim} observations to {sequence.action_dim} actions, "
            f"environment {env_id!r} has {dims[0]} and {dims[1]}"
        )
