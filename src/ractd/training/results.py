"""What a run is worth: every policy scored under one protocol, in one `result.json`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from ractd.data import OfflineDataset
from ractd.data.dataset import describe
from ractd.data.end_checks import told_of_ends
from ractd.data.environment import EnvironmentSettings, settings_for
from ractd.data.scores import normalized_score
from ractd.data.windows import Windows
from ractd.diffusion.ctm import sequence_return
from ractd.envs.evaluate import evaluate
from ractd.envs.maze import maze_of
from ractd.envs.probe import probe
from ractd.envs.seeds import environment_seed
from ractd.envs.vector import MakeVector, environments_of
from ractd.errors import RactdError
from ractd.files import read_json, write_json
from ractd.methods.ractd_settings import Config, penalty_of
from ractd.planner import Planner
from ractd.policy import Policy
from ractd.threads import threads_for
from ractd.training.checkpoint import read_header
from ractd.training.latency import time_policies
from ractd.training.log import Log
from ractd.training.pictures import draw_plans
from ractd.training.rundir import versions
from ractd.training.samples import ActionSequences, Plans, Samples

FORMAT_VERSION = 1
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "teacher": ("teacher", {}),
    "plain student": ("plain", {}),
    "plain student, 32 candidates": ("plain", {"candidates": 32}),
    "RACTD": ("student", {}),
    "RACTD, 32 candidates": ("student", {"candidates": 32}),
    "RACTD, 2 steps": ("student", {"steps": 2}),
    "RACTD, 4 steps": ("student", {"steps": 4}),
}
"""The rows of the result: label, policy of the run, how it samples."""
WITHOUT_RETURNS: dict[str, tuple[str, dict[str, Any]]] = {"teacher": ("teacher", {}), "plain student": ("student", {})}
"""The rows of a run without a return model: its student is plain, and there is nothing to choose candidates by."""
QUICK_FIRST = (
    "RACTD",
    "plain student",
    "RACTD, 32 candidates",
    "RACTD, 2 steps",
    "RACTD, 4 steps",
    "plain student, 32 candidates",
    "teacher",
)
"""The order in which rows are measured: the teacher takes a hundred times as long as the rest."""
STATES = 1024
"""Logged states at which policies are compared without a simulator."""


@dataclass(frozen=True)
class Result:
    """The result of a run: `content` is `result.json`."""

    directory: Path
    content: dict[str, Any]

    @property
    def complete(self) -> bool:
        """True once every row is measured."""
        return bool(self.content.get("complete"))

    def row(self, label: str) -> dict[str, Any]:
        """Return one row by its label (a key of `VARIANTS`); raises `KeyError`."""
        return self.content["rows"][label]  # type: ignore[no-any-return]

    def policy(self, name: str = "student") -> Policy:
        """Load a policy of the run."""
        return Policy.load(self.directory / "policy" / name)


def read_result(directory: Path) -> Result | None:
    """Read a run's result, None where it has none yet."""
    path = directory / "result.json"
    return Result(directory, read_json(path)) if path.exists() else None


def samples_of(policy: Policy, dataset: OfflineDataset) -> Samples:
    """Return a dataset's sequences as a policy is to make them."""
    if isinstance(policy, Planner):
        return Plans(dataset, policy.spec.horizon, policy.normalizer)
    return ActionSequences(Windows(dataset, policy.spec.horizon, policy.spec.history), policy.normalizer)


@torch.inference_mode()
def offline_estimate(policy: Policy, samples: Samples, seed: int) -> dict[str, float]:
    """Compare a policy with the data at logged states, without a simulator.

    Returns the mean distance between the policy's and the logged sequences, of what the return model looks at, in the scaled
    space, and the return model's mean estimate for both (raw units), where there is a return model.
    """
    spec = policy.spec
    condition, x0 = samples.gather(samples.draw(STATES, torch.Generator().manual_seed(seed)))
    x = policy.sequence(condition, policy.reset(seed).draw_noise(STATES))
    chosen, logged = policy.decode(x, condition), policy.decode(x0, condition)
    distance = float((chosen.clamp(-1, 1) - logged)[:, : spec.rewarded].norm(dim=2).mean())
    if not policy.return_network.exists:
        return {"distance_to_data": distance}
    given = policy.return_network.given(condition)
    estimates = [
        float(sequence_return(policy.return_network, given, each, spec.rewarded).mean()) * spec.return_std
        + spec.return_mean
        for each in (chosen, logged)
    ]
    return {
        "estimated_return": estimates[0],
        "estimated_return_of_data": estimates[1],
        "distance_to_data": distance,
    }


def facts(policy: Policy) -> dict[str, Any]:
    """Return how a policy samples and where it comes from."""
    spec = policy.spec
    return {
        "nfe": policy.evaluations,
        "sampler": spec.sampler,
        "steps": spec.steps,
        "candidates": spec.candidates,
        "selection": spec.provenance.get("selection", "last"),
        "selected_step": spec.provenance.get("step"),
        "reward_weight": spec.provenance.get("reward_weight"),
        "threads": torch.get_num_threads(),
    }


def score(
    policy: Policy,
    env_id: str,
    episodes: int,
    execute: int,
    seed: int,
    console: Console,
    label: str,
    make: MakeVector,
) -> dict[str, Any]:
    """Measure a policy in an environment; its seeds are those of `seed`, which training never uses."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"evaluating {label}", total=episodes)
        result = evaluate(
            policy.reset(seed).acting(),
            env_id,
            episodes=episodes,
            execute=execute,
            history=policy.spec.history,
            seed=environment_seed(seed),
            progress=lambda done, total, step: progress.update(task, completed=done),
            make=make,
        )
    row = facts(policy) | {"evaluation": result.to_dict()}
    if policy.spec.plans:
        row["success_rate"] = float((result.returns > 0).mean())  # a maze pays for nothing but being at the goal
    return row


def timed(row: dict[str, Any], times: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its times (`time_policies`), of a planner with what its plans cost in an episode as well."""
    row = row | times
    if "success_rate" in row:
        e = row["evaluation"]
        row["plan_ms_per_episode"] = row["ms_per_action"] * float(np.ceil(np.array(e["lengths"]) / e["execute"]).mean())
    return row


def evaluate_run(directory: Path, dataset: OfflineDataset, config: Config, console: Console, log: Log) -> Result:
    """Measure every policy of a run that isn't measured yet; each row is on disk as soon as it is known.

    Times come last, of all policies in turns.
    """
    found = read_result(directory)
    returns = dataset.episode_returns()
    content: dict[str, Any] = (
        found.content if found else {"format": "ractd-result", "format_version": FORMAT_VERSION, "rows": {}}
    )
    content |= {
        "complete": False,
        "dataset": describe(dataset),
        "behavior": {"episodes": len(returns)} | (_returns(dataset, returns) if dataset.has_rewards else {}),
        "ends": told_of_ends(dataset, penalty_of(config)),
        "stages": _stages(directory),
        "versions": versions(),
    }
    variants = VARIANTS if config.return_model.members else WITHOUT_RETURNS
    names = dict.fromkeys(name for name, _ in variants.values() if (directory / "policy" / name).is_dir())
    loaded = {name: Policy.load(directory / "policy" / name) for name in names}
    policies = {
        label: loaded[name].configured(**settings)
        for label, (name, settings) in ((label, variants[label]) for label in QUICK_FIRST if label in variants)
        if name in loaded
    }
    for label, policy in policies.items():
        if label in content["rows"]:
            continue
        log.say(f"evaluating {label}")
        row = facts(policy)
        if dataset.env_id is not None:
            evaluation = config.evaluation
            row = score(
                policy,
                dataset.env_id,
                evaluation.episodes,
                evaluation.execute or 1,
                config.seed,
                console,
                label,
                environments_of(dataset, dataset.source),
            )
        content["rows"][label] = row | {"offline": offline_estimate(policy, samples_of(policy, dataset), config.seed)}
        write_json(directory / "result.json", content)
    times, content["load"] = time_policies(policies)
    content["rows"] |= {label: timed(content["rows"][label], each) for label, each in times.items()}
    _draw(directory, dataset, config, log)
    content["complete"] = True
    write_json(directory / "result.json", content)
    return Result(directory, content)


def _returns(dataset: OfflineDataset, returns: NDArray[np.float64]) -> dict[str, Any]:
    """Return what the data's episodes returned, and their mean score."""
    scores = None if dataset.env_id is None else normalized_score(dataset.env_id, returns)
    return {
        "mean_return": float(returns.mean()),
        "max_return": float(returns.max()),
        "mean_score": None if scores is None else float(scores.mean()),
        "returns": [float(f"{value:.6g}") for value in returns],
    }


def _draw(directory: Path, dataset: OfflineDataset, config: Config, log: Log) -> None:
    maze = maze_of(dataset)
    if config.plan is None or maze is None:
        return
    try:
        log.say(f"drew {draw_plans(directory, dataset, maze, config.seed)}")
    except RactdError as error:
        log.say(f"no picture of the plans: {escape(str(error))}")


def _stages(directory: Path) -> dict[str, Any]:
    """Collect what each stage's checkpoint says about it: steps, both kinds of seconds, best and collapse."""
    stages = {}
    for path in sorted((directory / "checkpoints").glob("*/last.safetensors")):
        header = read_header(path)
        told = ("seconds", "processor_seconds", "best", "collapse")
        record = {key: header["record"][key] for key in told if key in header["record"]}
        stages[path.parent.name] = {"steps": header["step"], **record}
    return stages


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
    name: str,
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
) -> dict[str, Any]:
    """Score one policy of a run and write `evaluations/<what>.json`; raises `RactdError` for an unknown policy or setting.

    It is timed in turns with the run's student, where that is another: `student_ms_per_action` is what to compare with.
    """
    path = policy_directory(directory, name)
    policy = Policy.load(path).configured(sampler=sampler, steps=steps, candidates=candidates)
    env_id = env_id or policy.spec.env_id
    if env_id is None:
        raise RactdError(f"{directory}: its data names no environment; give one with --env")
    spec = policy.spec
    if spec.plans and env_id != spec.env_id:
        raise RactdError(f"{path}: plans in {spec.env_id!r}, whose goal and walls it knows, and not in {env_id!r}")
    settings = settings_for(spec.env_id, spec.env_settings, env_id, env_steps)
    make = environments_of(replace(spec, env_id=env_id, env_settings=settings), path)
    _check_spaces(policy, env_id, path, make)
    execute = executed(policy) if execute is None else execute
    if not 1 <= execute <= spec.horizon:
        raise RactdError(
            f"--execute is {execute}, expected 1 to {spec.horizon}: the policy predicts {spec.horizon} actions"
        )
    if not 0 <= seed < 2**31:
        raise RactdError(f"--seed is {seed}, expected 0 to {2**31 - 1}")
    console.print(f"evaluating {name} for {episodes} episodes in {env_id} ...", highlight=False)
    timing = {"measured": policy}
    student = directory / "policy" / "student"
    if student.is_dir():
        beside = Policy.load(student)
        if name != "student" or beside.spec != spec:
            timing["student"] = beside
    with threads_for(*(each.spec.network for each in timing.values())):
        row = score(policy, env_id, episodes, execute, seed, console, name, make)
        times, load = time_policies(timing)
    row = timed(row, times["measured"]) | {"load": load}
    if "student" in times:
        row["student_ms_per_action"] = times["student"]["ms_per_action"]
    write_json(evaluation_path(directory, name, policy, episodes, execute, seed, env_id, settings), row)
    return row | {"label": name}


def executed(policy: Policy) -> int:
    """Return how many actions of each sequence are executed by default: the first, or all of a plan's (paper, 4.1 and 4.2)."""
    return policy.spec.horizon if policy.spec.plans else 1


def evaluation_path(
    directory: Path,
    name: str,
    policy: Policy,
    episodes: int,
    execute: int,
    seed: int,
    env_id: str | None = None,
    settings: EnvironmentSettings | None = None,
) -> Path:
    """Return where a run keeps what `evaluate_policy` measured of one of its policies, configured as it is.

    `env_id` and `settings` are where it was measured, by default the policy's own environment.
    """
    spec = policy.spec
    key = f"{name}-e{episodes}-x{execute}-n{spec.candidates}-{spec.sampler}-k{spec.steps}-s{seed}"
    if env_id not in (None, spec.env_id):
        key += f"-{str(env_id).replace('/', '-').replace(':', '-')}"
    if settings not in (None, spec.env_settings) and settings.max_episode_steps is not None:
        key += f"-l{settings.max_episode_steps}"
    return directory / "evaluations" / f"{key}.json"


def _check_spaces(policy: Policy, env_id: str, path: Path, make: MakeVector) -> None:
    env, spec = make(env_id, 1, 0), policy.spec
    try:
        dims = env.observation_dim, len(env.action_low)
        probe(env, env_id)
    finally:
        env.close()
    observation_dim = spec.state_dim or spec.observation_dim
    if dims != (observation_dim, spec.action_dim):
        raise RactdError(
            f"{path}: maps {observation_dim} observations to {spec.action_dim} actions, "
            f"environment {env_id!r} has {dims[0]} and {dims[1]}"
        )
