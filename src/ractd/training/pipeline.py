"""From a dataset to a policy: return model -> teacher -> students -> evaluation, in one run directory."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.markup import escape

from ractd.data import OfflineDataset
from ractd.data.dataset import describe
from ractd.data.ends import describe_ends
from ractd.data.environment import REGISTERED
from ractd.data.findings import stop_at_errors
from ractd.data.origin import d4rl_name
from ractd.data.range_checks import check_action_range
from ractd.data.returns import resolved_penalty
from ractd.data.scores import family
from ractd.envs.maze import maze_of
from ractd.envs.validation import NO_ENVIRONMENT, examine
from ractd.errors import RactdError
from ractd.methods.ractd_settings import DEFAULT_GAMMA, GAMMA, PRESETS, TABLE_9, Config, penalty_of
from ractd.models import build_network
from ractd.planner import Planner
from ractd.policy import WEIGHTS, Policy
from ractd.runs.rows import Result, read_result
from ractd.runs.scoring import evaluate_run
from ractd.settings import TerminalsMean, check, to_json
from ractd.stopping import Interrupted, stop_requests
from ractd.threads import threads_for
from ractd.training.log import Log
from ractd.training.metrics import Metrics
from ractd.training.presets import preset_for
from ractd.training.run import Models, Run, prepare
from ractd.training.rundir import locked, open_run
from ractd.training.stages import (
    copy_policies,
    finished_steps,
    train_dynamics,
    train_return,
    train_student,
    train_teacher,
)
from ractd.training.tracking import TrackerName, require, tracking

StageName = Literal["return", "dynamics", "teacher", "student"]
NO_STUDENT = "a student is distilled along the PF-ODE of an EDM teacher, and this one is a DDPM"


def train(
    dataset: str | OfflineDataset,
    *,
    out: str | Path | None = None,
    config: Config | None = None,
    env_id: str | None = None,
    env_steps: int | None = None,
    simulate: bool = True,
    ends: TerminalsMean | None = None,
    accept: Collection[str] = (),
    only: StageName | None = None,
    teacher: str | Path | None = None,
    plain: bool = True,
    checkpoint_seconds: float = 30.0,
    track: TrackerName | None = None,
    console: Console | None = None,
) -> Result:
    """Train return model, teacher and students on a dataset and score them; continue or show the run if it exists.

    `out` is the run directory, `runs/<dataset>-s<seed>` by default; `config` is that of the preset that the data's environment
    asks for: the planner's of a maze, else `cpu`. `env_id` is the environment that policies are scored in,
    by default the data's, and `env_steps` its step limit; without `simulate` nothing is scored and no environment made.
    `ends` says what the data's terminals are, where nothing in it does; `accept` has names of errors about the data that are to
    be warnings, see `ractd.data.findings.ACCEPTABLE`. `only` trains one stage, with what the run has. `teacher` takes
    teacher and return model from another run, with their horizon, history, noise levels and networks. `plain` also distils a
    student without reward, to compare. `track` shows metrics and scores in a service as well. Raises `RactdError` for
    unusable data or options, and `ractd.stopping.Interrupted` after a saved Ctrl-C.
    """
    console = console or Console(quiet=True)
    if track is not None:
        require(track)
    penalty = None if config is None else config.return_model.termination_penalty
    named, findings = examine(dataset, env_id, env_steps, ends, simulate, penalty)
    findings = stop_at_errors(findings, accept)
    assert named is not None
    if config is None:
        config = PRESETS[preset_for(named.env_id, named.maze, named.where)]
    if not simulate:
        _check_nothing_to_simulate(config, env_id, env_steps)
    data = named
    if not simulate or any(finding.key == NO_ENVIRONMENT for finding in findings):
        data = replace(named, env_id=None, env_settings=REGISTERED, known_ends=named.ends)
    _check_plan(config, data, only)
    if teacher is not None and only not in (None, "student"):
        raise RactdError(f"--only {only}: the run trains a student alone, the rest comes from --teacher {teacher}")
    source = None if teacher is None else _teacher_of(Path(teacher))
    if source is not None:
        config = _with_teacher(config, source, data, Path(teacher or ""))
    learns_returns = config.plan is not None or (named.has_rewards if source is None else source.return_network.exists)
    if not learns_returns:
        config = _without_returns(config, only)
    config = resolve(config, named)
    check(config)
    if only == "student" and config.teacher.parametrization == "ddpm":
        raise RactdError(f"--only student: {NO_STUDENT}; train one with --teacher.parametrization edm")
    _check_networks(config, data)
    findings += check_action_range(data, config.action_range)
    directory = Path(out) if out is not None else Path("runs") / f"{data.name}-s{config.seed}"
    accelerator = Accelerator(
        mixed_precision="bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    )
    description = {
        "config": to_json(config),
        "dataset": describe(data),
        "teacher_from": None if teacher is None else _identity(Path(teacher)),
        "plain": plain,
    }
    main = accelerator.is_main_process
    threads = threads_for(config.teacher.network, config.student.network)
    with locked(directory) if main else nullcontext(), threads:
        if main:
            open_run(directory, description)
        log = Log(console, directory if main else None)
        for finding in findings:
            log.say(f"[yellow]warning:[/] {escape(finding.message)}")
        if config.plan is None:
            log.say(escape(describe_ends(data, penalty_of(config))))
        accelerator.wait_for_everyone()
        finished = read_result(directory)
        if finished is not None and finished.complete:
            log.say(f"{escape(str(directory))} is finished; this is its result")
            return finished
        with tracking(track, directory) if main and track is not None else nullcontext() as tracked:
            with stop_requests(console, "stopping at the next checkpoint; once more stops at once") as should_stop:
                metrics = Metrics(directory if main else None, console if main else None, tracked)
                run = prepare(
                    directory, config, data, accelerator, metrics, log, checkpoint_seconds, should_stop, source
                )
                try:
                    _train_stages(run, only, source, teacher, plain)
                except (RactdError, Interrupted) as error:
                    log.write(f"stopped: {error}")
                    raise
                finally:
                    metrics.close()
            accelerator.wait_for_everyone()
            if only is None and main:
                result = evaluate_run(directory, data, config, console, log)
                if tracked is not None:
                    tracked.scores(result.scores())
                return result
    return Result(directory, {})


def _train_stages(
    run: Run, only: StageName | None, source: Policy | None, teacher: str | Path | None, plain: bool
) -> None:
    if source is None:
        config = run.config
        returns = {"return": config.return_model.optimization.steps} if config.return_model.members else {}
        steps = {**returns, "teacher": config.teacher.optimization.steps}
        if config.plan is not None:
            steps["dynamics"] = config.plan.optimization.steps
        reward_aware = config.teacher.reward_weight != 0
        before = {"student": list(steps), "teacher": ["return"] if reward_aware else []}
        for name in before.get(only or "", []):
            if finished_steps(run.directory, name) < steps[name]:
                raise RactdError(
                    f"{run.directory}: its {name} is not trained; run with --only {name} first, or without --only"
                )
        trained = {name for name, count in steps.items() if finished_steps(run.directory, name) >= count}
        here = set(steps) if only in (None, "student") else trained | {only}
        plan = config.plan if "dynamics" in here else None
        return_network = train_return(run) if "return" in here else run.no_return_network()
        dynamics = None if plan is None else train_dynamics(run, plan)
        teacher_network = train_teacher(run, return_network) if "teacher" in here else None
        if teacher_network is None or len(here) < len(steps):
            return
        models = Models(return_network, dynamics)
    else:
        teacher_network = source.network
        models = Models(source.return_network, source.dynamics if isinstance(source, Planner) else None)
    if source is None:
        origin = {"selection": "last", "reward_weight": run.config.teacher.reward_weight}
        run.save_policy("teacher", teacher_network, models, False, origin)
    elif run.accelerator.is_main_process:
        copy_policies(Path(teacher or ""), run.directory)
    if only not in (None, "student"):
        return
    if run.config.teacher.parametrization == "ddpm":
        run.log.say(f"the run ends with its teacher: {NO_STUDENT}")
        return
    if plain and source is None and run.config.student.reward_weight != 0:
        train_student(run, "plain", replace(run.config.student, reward_weight=0.0), teacher_network, models)
    train_student(run, "student", run.config.student, teacher_network, models)


def _without_returns(config: Config, only: StageName | None) -> Config:
    """Return the settings of a run without a return model; raises `RactdError` for those that ask for one."""
    weights = {"student": config.student.reward_weight, "teacher": config.teacher.reward_weight}
    for stage, weight in weights.items():
        if weight not in (None, "auto", 0):
            raise RactdError(f"--{stage}.reward-weight is {weight}, and there are no rewards to weigh; leave it out")
    if only == "return":
        raise RactdError("--only return: there are no rewards, so there are no returns to learn")
    return replace(
        config,
        return_model=replace(config.return_model, members=0),
        teacher=replace(config.teacher, reward_weight=0.0),
        student=replace(config.student, reward_weight=0.0, pessimism=0.0),
    )


def resolve(config: Config, data: OfflineDataset) -> Config:
    """Fill in what depends on something else: the paper's discount of the data's environment, its reward weight where the data
    is one of D4RL's datasets or rebuilds it (`d4rl_name`), and whether it is executed closed or open loop."""
    gamma = config.return_model.gamma
    if gamma is None:
        gamma = GAMMA.get(family(data.env_id or "") or "", DEFAULT_GAMMA)
    penalty = resolved_penalty(data, config.return_model.termination_penalty)
    student = config.student
    if student.reward_weight is None:
        student = replace(student, reward_weight=TABLE_9.get(d4rl_name(data) or "", "auto"))
    execute = config.evaluation.execute
    if execute is None:
        execute = 1 if config.plan is None else config.horizon
    evaluation = replace(config.evaluation, execute=execute)
    return replace(
        config,
        return_model=replace(config.return_model, gamma=gamma, termination_penalty=penalty),
        student=student,
        evaluation=evaluation,
    )


def _check_networks(config: Config, data: OfflineDataset) -> None:
    """Raise `RactdError` for networks that can't be built, before the hours that come before they are."""
    shape = config.horizon, data.action_dim, config.history * data.observation_dim
    if config.plan is not None:
        shape = config.plan.points or config.horizon, data.observation_dim, 2 * data.observation_dim
    with torch.device("meta"):
        for network in (config.teacher.network, config.student.network or config.teacher.network):
            build_network(network, *shape, jumps=True)


def _check_plan(config: Config, data: OfflineDataset, only: StageName | None) -> None:
    """Raise `RactdError` where a planner has no maze to plan in, or a setting makes no sense for it."""
    if config.plan is None:
        if only == "dynamics":
            raise RactdError("--only dynamics: only a planner has inverse dynamics; its presets are named maze2d-...")
        return
    if maze_of(data) is None:
        raise RactdError(
            f"dataset {data.name!r} is of {data.env_id or 'no environment'}, and a planner needs a maze to plan in: "
            "leave out --preset, or use a dataset that 'ractd data make maze2d-umaze' or '--maze FILE' made"
        )
    if config.history != 1:
        raise RactdError(f"--history is {config.history}, expected 1 for a planner: its states have their velocities")


def _check_nothing_to_simulate(config: Config, env_id: str | None, env_steps: int | None) -> None:
    """Raise `RactdError` where something asks for the environment that is not to be."""
    asked = [option for option, value in (("--env", env_id), ("--env-steps", env_steps)) if value is not None]
    if asked:
        raise RactdError(f"--no-env scores nothing: leave it out, or {' and '.join(asked)}")
    if config.plan is not None:
        raise RactdError(
            "--no-env: a planner plans in the maze of its data, whose walls and goal it knows; leave it out"
        )


def _teacher_of(run: Path) -> Policy:
    if run.is_dir() and not (run / "policy" / "teacher").exists():
        raise RactdError(
            f"{run}: it has no policy/teacher, which a run writes once its return model and its teacher are trained"
        )
    return Policy.load(run / "policy" / "teacher")


def _with_teacher(config: Config, teacher: Policy, data: OfflineDataset, path: Path) -> Config:
    spec = teacher.spec
    if spec.plans != (config.plan is not None):
        kind, others = ("a planner", "action sequences") if spec.plans else ("no planner", "plans")
        raise RactdError(f"{path}: its teacher is {kind}, and the settings are those of {others}; see --preset")
    observation_dim = spec.state_dim or spec.observation_dim
    if (observation_dim, spec.action_dim) != (data.observation_dim, data.action_dim):
        raise RactdError(
            f"{path}: its teacher maps {observation_dim} observations to {spec.action_dim} actions, "
            f"the dataset has {data.observation_dim} and {data.action_dim}"
        )
    if spec.kind != "teacher":
        raise RactdError(f"{path}: {NO_STUDENT}; name a run that was trained with --teacher.parametrization edm")
    given = (spec.provenance.get("scaling") or {}).get("action_range")
    action_range = None if given is None else tuple(given)
    if config.action_range not in (None, action_range):
        raise RactdError(
            f"--action-range can't be given with --teacher {path}: the range is the teacher's; leave it out"
        )
    return replace(
        config,
        action_range=action_range,
        horizon=spec.horizon,
        history=spec.history,
        plan=config.plan and replace(config.plan, points=spec.points, dynamics_layers=spec.dynamics_layers),
        diffusion=spec.diffusion,
        teacher=replace(config.teacher, network=spec.network, parametrization="edm"),
        return_model=replace(config.return_model, layers=spec.return_layers, members=spec.return_members),
    )


def _identity(run: Path) -> dict[str, str]:
    """Name a run's teacher by its weights, however the run's path is written."""
    with open(run / "policy" / "teacher" / WEIGHTS, "rb") as file:
        return {"run": run.resolve().name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
