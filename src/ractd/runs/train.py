"""From a dataset to policies: a method's stages, then their scores, in one run directory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from rich.markup import escape

from ractd.data import OfflineDataset
from ractd.data.dataset import describe
from ractd.data.environment import REGISTERED
from ractd.data.findings import stop_at_errors
from ractd.data.ranges import within
from ractd.data.returns import describe_ends
from ractd.data.validation import check_action_range
from ractd.envs.validation import NO_ENVIRONMENT, examine
from ractd.errors import RactdError
from ractd.methods import Method, method_named
from ractd.methods.places import changed
from ractd.methods.presets import default_preset, preset_named
from ractd.networks.threads import threads_for
from ractd.policies import Policy
from ractd.policies.files import WEIGHTS
from ractd.runs.directory import locked, open_run, read_run, versions
from ractd.runs.rows import Result, read_result
from ractd.runs.scoring import evaluate_run
from ractd.sequences import sequence_class
from ractd.settings import TerminalsMean, check, to_json
from ractd.stopping import Interrupted, stop_requests
from ractd.training.log import Log
from ractd.training.metrics import Metrics
from ractd.training.numbers import computed_by
from ractd.training.run import Asked, Run
from ractd.training.tracking import TrackerName, require, tracking


def train(
    dataset: str | OfflineDataset,
    *,
    method: str = "ractd",
    preset: str | None = None,
    out: str | Path | None = None,
    config: Any = None,
    env_id: str | None = None,
    env_steps: int | None = None,
    simulate: bool = True,
    ends: TerminalsMean | None = None,
    accept: Collection[str] = (),
    only: str | None = None,
    teacher: str | Path | None = None,
    plain: bool = True,
    checkpoint_seconds: float = 30.0,
    track: TrackerName | None = None,
    quiet: bool = False,
    console: Console | None = None,
    **settings: Any,
) -> Result:
    """Train a method on a dataset and score its policies; continue or show the run if it exists.

    Args:
        dataset: Name, file, or data in memory.
        method: A name in `ractd.methods.METHODS`.
        preset: One of the method's presets; by default what suits the data, see `ractd.methods.presets.default_preset`.
        out: The run directory, `runs/<dataset>-s<seed>` by default.
        config: The method's settings, as `ractd.settings_of` returns them, instead of those of a preset.
        env_id: The environment that policies are scored in, by default the data's.
        env_steps: Its step limit.
        simulate: Without it nothing is scored and no environment made.
        ends: What the data's terminals are, where nothing in it does say so.
        accept: Names of errors about the data that are to be warnings, see `ractd.data.findings.ACCEPTABLE`.
        only: One stage to train, with what the run has.
        teacher: Another run, of which teacher and critic are taken, with their horizon, history, noise levels and networks.
        plain: Also distil a student without reward, to compare.
        checkpoint_seconds: Time between checkpoints.
        track: A service that shows metrics and scores as well.
        quiet: Show no progress.
        console: Where progress is shown instead of on standard output, or in the notebook.
        settings: Settings of the method by their places, which replace those of the preset: `seed=3`,
            `**{"student.optimization.steps": 500}`.

    Raises:
        RactdError: For unusable data or options.
        ractd.stopping.Interrupted: After a Ctrl-C, once everything is saved.
    """
    console = console or console_for(quiet)
    chosen = method_named(method)
    if config is not None and preset is not None:
        raise RactdError(f"preset is {preset!r}, and config is given too: expected one of them")
    if config is None:
        preset = preset or default_preset(chosen, dataset, env_id, teacher is not None)
        config = preset_named(chosen, preset)
    elif not isinstance(config, chosen.settings):
        kind = f"{chosen.settings.__name__}, as ractd.settings_of({method!r}) returns it"
        raise RactdError(f"config is a {type(config).__name__}, and method {method!r} has a {kind}")
    config = changed(chosen, preset or "", config, settings, train.__kwdefaults__ or ())
    if track is not None:
        require(track)
    named, findings = examine(dataset, env_id, env_steps, ends, simulate, chosen.termination_penalty(config))
    findings = stop_at_errors(findings, accept)
    assert named is not None
    if not simulate:
        _check_nothing_to_simulate(chosen, config, env_id, env_steps)
    data = named
    if not simulate or any(finding.key == NO_ENVIRONMENT for finding in findings):
        data = replace(named, env_id=None, env_settings=REGISTERED, known_ends=named.ends)
    asked = _asked(chosen, only, teacher, plain)
    config = fitted(chosen, config, named, asked)
    findings += check_action_range(data, config.action_range)
    directory = Path(out) if out is not None else Path("runs") / f"{data.name}-s{config.seed}"
    accelerator = Accelerator()
    description = {
        "method": method,
        "policy": chosen.variants(config)[0].policy,
        "config": to_json(config),
        "dataset": describe(data),
        "teacher_from": None if teacher is None else _identity(Path(teacher)),
        "plain": plain,
    }
    main = accelerator.is_main_process
    with locked(directory) if main else nullcontext(), threads_for(*chosen.networks(config)):
        if main:
            changes = open_run(directory, description, computed_by(config.precision, accelerator.device))
        log = Log(console, directory if main else None)
        for finding in findings:
            log.say(f"[yellow]warning:[/] {escape(finding.message)}")
        if not sequence_class(chosen.sequence(config)).Settings.open_loop:
            log.say(escape(describe_ends(data, chosen.termination_penalty(config))))
        accelerator.wait_for_everyone()
        finished = read_result(directory)
        if finished is not None and finished.complete:
            log.say(f"{escape(str(directory))} is finished; this is its result")
            return finished
        if main and changes:
            log.say(
                f"[yellow]warning:[/] this run began elsewhere ({escape('; '.join(changes))}): from here on its numbers are "
                "not exactly those of a run that stays in one place"
            )
        with (
            tracking(track, directory, read_run(directory)) if main and track is not None else nullcontext() as tracked
        ):
            with stop_requests(console, "stopping at the next checkpoint; once more stops at once") as should_stop:
                metrics = Metrics(directory if main else None, console if main else None, tracked)
                run = prepare(
                    chosen, config, data, directory, accelerator, metrics, log, checkpoint_seconds, should_stop, asked
                )
                try:
                    chosen.train(run)
                except (RactdError, Interrupted) as error:
                    log.write(f"stopped: {error}")
                    raise
                finally:
                    metrics.close()
            accelerator.wait_for_everyone()
            if only is None and main:
                result = evaluate_run(directory, data, method, config, console, log)
                if tracked is not None:
                    tracked.scores(result.scores())
                return result
    return Result(directory, {})


def fitted(method: Method, config: Any, data: OfflineDataset, asked: Asked = Asked()) -> Any:  # noqa: B008
    """Return a method's settings for data; raises `RactdError` where they don't go together, or the data lacks what it needs."""
    if "rewards" in method.needs and not data.has_rewards:
        raise RactdError(
            f"dataset {data.name!r} has no rewards, and method {method.name!r} learns from them; use --method bc"
        )
    config = method.resolve(config, data, asked)
    check(config)
    return config


def console_for(quiet: bool) -> Console:
    """Return where Python's users see progress: their terminal, or a notebook, as lines: rich's bars need ipywidgets there."""
    console = Console(quiet=quiet)
    return Console(quiet=quiet, force_jupyter=False, force_terminal=False) if console.is_jupyter else console


def prepare(
    method: Method,
    config: Any,
    data: OfflineDataset,
    directory: Path,
    accelerator: Accelerator,
    metrics: Metrics,
    log: Log,
    checkpoint_seconds: float = 30.0,
    should_stop: Callable[[], bool] = lambda: False,
    asked: Asked = Asked(),  # noqa: B008
) -> Run:
    """Bring a dataset to the device; scales come from it, or from the policy whose teacher is used."""
    if asked.teacher is None:
        sequence = sequence_class(method.sequence(config)).fit(config, data, accelerator.device)
        outliers = within(data.statistics(), config.action_range).action_outliers
        scaling = {"action_range": config.action_range, "action_outliers": int(outliers.sum())}
    else:
        sequence = asked.teacher.sequence.to(accelerator.device)
        scaling = asked.teacher.provenance.get("scaling") or {}
    samples = sequence.samples(data)
    log.say(f"{escape(data.name)}: {samples.summary}")
    provenance = {
        "dataset": describe(data),
        "scaling": scaling,
        "ends": describe_ends(data, method.termination_penalty(config)),
        "seed": config.seed,
        "versions": versions(),
    }
    return Run(
        directory,
        method.name,
        config,
        asked,
        data,
        sequence,
        samples,
        provenance,
        accelerator,
        metrics,
        log,
        checkpoint_seconds,
        should_stop,
    )


def _asked(method: Method, only: str | None, teacher: str | Path | None, plain: bool) -> Asked:
    """Check what a user asks of a training besides its settings, and open the teacher of another run."""
    if only is not None and only not in method.stages:
        stages = f"expected one of {', '.join(method.stages)}" if method.stages else "its stages train together"
        raise RactdError(f"--only {only}: method {method.name!r} has no such stage; {stages}")
    if teacher is None:
        return Asked(only, plain=plain)
    if not method.reuses_teacher:
        raise RactdError(f"--teacher {teacher}: method {method.name!r} has no teacher; leave it out")
    if only not in (None, "student"):
        raise RactdError(f"--only {only}: the run trains a student alone, the rest comes from --teacher {teacher}")
    return Asked(only, _teacher_of(Path(teacher)), str(teacher), plain)


def _check_nothing_to_simulate(method: Method, config: Any, env_id: str | None, env_steps: int | None) -> None:
    """Raise `RactdError` where something asks for the environment that is not to be."""
    asked = [option for option, value in (("--env", env_id), ("--env-steps", env_steps)) if value is not None]
    if asked:
        raise RactdError(f"--no-env scores nothing: leave it out, or {' and '.join(asked)}")
    if sequence_class(method.sequence(config)).Settings.open_loop:
        raise RactdError(
            "--no-env: a planner plans in the maze of its data, whose walls and goal it knows; leave it out"
        )


def _teacher_of(run: Path) -> Policy:
    if run.is_dir() and not (run / "policy" / "teacher").exists():
        raise RactdError(
            f"{run}: it has no policy/teacher, which a run writes once its return model and its teacher are trained"
        )
    return Policy.load(run / "policy" / "teacher")


def _identity(run: Path) -> dict[str, str]:
    """Name a run's teacher by its weights, however the run's path is written."""
    with open(run / "policy" / "teacher" / WEIGHTS, "rb") as file:
        return {"run": run.resolve().name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
