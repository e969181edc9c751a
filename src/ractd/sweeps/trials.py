"""The engine of sweeps: trials that need each other, each retried once, whatever becomes of the others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from rich.console import Console
from rich.live import Live

from ractd.errors import RactdError
from ractd.processors import cores
from ractd.stopping import stop_requests
from ractd.sweeps.attempt import Attempt
from ractd.sweeps.progress import Progress, Running, last_error, last_line
from ractd.sweeps.workers import Workers, one_worker, ray_cluster, ray_installed, ray_on_this_machine

ATTEMPTS = 2
"""Whatever the cause of a failure: a wrong option fails again at once, everything else deserves it."""
POLL_SECONDS = 0.5
STOPPING = "stopping: trials save first; once more ends them at once"

State = Literal["done", "was done", "failed", "not run"]


@dataclass(frozen=True)
class Trial:
    """One `ractd` command of a sweep, e.g. ("train", "hopper-mixed", "--seed", "1", "--out", "runs/x/hopper-mixed-s1")."""

    name: str
    """Unique, and a file's name: what tables and logs call it."""
    command: tuple[str, ...]
    """Arguments of `ractd`, as a user types them."""
    done: Callable[[], bool]
    """Whether there is nothing left to do; only the process that runs the sweep asks."""
    needs: tuple[str, ...] = ()
    """Names of the trials that have to be done before."""


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    trial: Trial
    state: State
    """`was done`: before the sweep began; `not run`: something that it needs failed."""
    attempts: int
    seconds: float
    """Wall time of all attempts."""
    reason: str
    """Why it failed or was not run; empty where it is done."""


@dataclass
class _Begun:
    """An attempt under way."""

    trial: Trial
    number: int
    log: Path
    offset: int
    """Size of the log when it was submitted."""
    seconds_before: float
    """Of the attempts before it."""
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None
    """When the first line was seen in its log; a cluster may have no room for it yet."""

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - (self.started or self.submitted)


def run_trials(
    trials: Sequence[Trial],
    logs: Path,
    *,
    jobs: int = 1,
    cpus: float = 1,
    gpus: float = 0,
    ray_address: str | None = None,
    console: Console | None = None,
) -> list[Outcome]:
    """Run every trial that isn't done, each as a process of its own, and return what became of them, in their order.

    `jobs` run at a time on this machine, or as many as the cluster at `ray_address` has room for; `cpus` is what each is
    given, in threads, and `gpus` what Ray sets aside for it. Output goes to `logs/NAME.log`. A trial that fails is
    tried once more. Called again after a kill, it goes on: `done()` says what is left.
    Raises `RactdError` for unusable options, a cluster that doesn't answer and a sweep that is running already, and
    `KeyboardInterrupt` after Ctrl-C or SIGTERM, once all trials have saved and stopped.
    """
    console = console or Console(quiet=True)
    check_resources(jobs, cpus, gpus, ray_address)
    _check_names(trials)
    logs.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(logs / ".lock", timeout=0):
            outcomes = {trial.name: Outcome(trial, "was done", 0, 0.0, "") for trial in trials if _is_done(trial)}
            if outcomes:
                console.print(f"{len(outcomes)} of {len(trials)} trials are done already", highlight=False)
            if len(outcomes) < len(trials):
                with (
                    _workers(jobs, cpus, gpus, ray_address, console) as workers,
                    stop_requests(console, STOPPING) as should_stop,
                    Live(console=console, transient=True, auto_refresh=False) as live,
                ):
                    progress = Progress(live, len(trials), len(outcomes))
                    _Sweep(trials, logs.resolve(), workers, max(1, int(cpus)), outcomes, progress).run(should_stop)
    except Timeout:
        raise RactdError(f"{logs.parent}: another process is running this sweep; wait for it or stop it") from None
    return [outcomes[trial.name] for trial in trials]


def _workers(
    jobs: int, cpus: float, gpus: float, ray_address: str | None, console: Console
) -> AbstractContextManager[Workers]:
    if jobs == 1 and ray_address is None:
        return one_worker()
    if not ray_installed():
        if ray_address is not None:
            raise RactdError('--ray-address needs ray: pip install "ractd[sweeps]"')
        console.print(f"Ray is not installed: one trial at a time instead of {jobs} ", end="", highlight=False)
        console.print('(pip install "ractd[sweeps]")', markup=False, highlight=False)
        return one_worker()
    if ray_address is not None:
        return ray_cluster(ray_address, cpus, gpus)
    if jobs * cpus > cores():
        console.print(
            f"[yellow]warning:[/] {jobs} trials of {cpus:g} CPUs each share {cores()} cores, and will wait for each other",
            highlight=False,
        )
    return ray_on_this_machine(jobs, cpus, gpus)


@dataclass
class _Sweep:
    """The trials of a sweep, those under way and what became of the others."""

    trials: Sequence[Trial]
    logs: Path
    workers: Workers
    threads: int
    outcomes: dict[str, Outcome]
    progress: Progress
    running: dict[Future[int], _Begun] = field(default_factory=dict)
    directory: str = field(default_factory=os.getcwd)

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Go on until every trial has an outcome; raises `KeyboardInterrupt` once all have stopped that are to."""
        asked = False
        while len(self.outcomes) < len(self.trials):
            if not should_stop():
                self._begin_ready()
            elif not asked:
                self.workers.stop()
                asked = True
            if asked and not self.running:
                raise KeyboardInterrupt
            finished, _ = wait(self.running, POLL_SECONDS, FIRST_COMPLETED)
            for future in finished:
                self._end(future, should_stop)
            self._show()

    def _begin_ready(self) -> None:
        under_way = {begun.trial.name for begun in self.running.values()}
        for trial in self.trials:
            if trial.name in self.outcomes or trial.name in under_way:
                continue
            needed = [self.outcomes.get(name) for name in trial.needs]
            lost = next((outcome for outcome in needed if outcome and outcome.state in ("failed", "not run")), None)
            if lost:
                became = "failed" if lost.state == "failed" else "was not run"
                reason = f"it needs {lost.trial.name}, which {became}"
                self.outcomes[trial.name] = Outcome(trial, "not run", 0, 0.0, reason)
                self.progress.ended(trial.name, "not run", 0.0, reason)
            elif all(needed) and (self.workers.slots is None or len(self.running) < self.workers.slots):
                self._begin(trial, 1, 0.0)

    def _begin(self, trial: Trial, number: int, seconds_before: float) -> None:
        log = self.logs / f"{trial.name}.log"
        begun = _Begun(trial, number, log, log.stat().st_size if log.exists() else 0, seconds_before)
        self.running[self.workers.submit(Attempt(trial.command, str(log), self.directory, self.threads))] = begun

    def _end(self, future: Future[int], should_stop: Callable[[], bool]) -> None:
        begun = self.running.pop(future)
        trial, seconds, reason = begun.trial, begun.seconds, _failure(begun, future)
        if not reason:
            self.outcomes[trial.name] = Outcome(trial, "done", begun.number, seconds, "")
            self.progress.ended(trial.name, "done", seconds, "")
        elif should_stop():
            self.progress.ended(trial.name, "stopped", seconds, "")
        elif begun.number < ATTEMPTS:
            self.progress.ended(trial.name, "trying once more", seconds, reason)
            self._begin(trial, begun.number + 1, seconds)
        else:
            self.outcomes[trial.name] = Outcome(trial, "failed", begun.number, seconds, reason)
            self.progress.ended(trial.name, "failed", seconds, f"{reason}; log: {begun.log}")

    def _show(self) -> None:
        for begun in self.running.values():
            if begun.started is None and begun.log.exists() and begun.log.stat().st_size > begun.offset:
                begun.started = time.monotonic()
                self.progress.started(begun.trial.name, begun.number)
        self.progress.show(
            [
                Running(begun.trial.name, begun.number, begun.started, last_line(begun.log, begun.offset))
                for begun in self.running.values()
            ]
        )


def _failure(begun: _Begun, future: Future[int]) -> str:
    """Say why an attempt failed; empty where it did not."""
    error = future.exception()
    if error is not None:
        return next(reversed(str(error).strip().splitlines()), type(error).__name__)
    code = future.result()
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    if code > 0:
        return last_error(begun.log, begun.offset) or f"exit code {code}"
    return "" if _is_done(begun.trial) else "it ended without an error, and yet isn't done"


def _is_done(trial: Trial) -> bool:
    try:
        return trial.done()
    except RactdError:  # of a damaged file, say, which the trial itself tells about
        return False


def check_resources(jobs: int, cpus: float, gpus: float, ray_address: str | None) -> None:
    """Raise `RactdError` naming the first option of `run_trials` that makes no sense."""
    if jobs < 1:
        raise RactdError(f"--jobs is {jobs}, expected 1 or more: trials at a time on this machine")
    if jobs > 1 and ray_address is not None:
        raise RactdError(
            "--jobs is for this machine; on a cluster --cpus and --gpus decide how many trials run at a time"
        )
    for option, value, low in (("--cpus", cpus, "more than 0"), ("--gpus", gpus, "0 or more")):
        if not 0 <= value < 1e6 or (value == 0 and option == "--cpus"):
            raise RactdError(f"{option} is {value:g}, expected {low}")
        if value > 1 and value != int(value):
            raise RactdError(f"{option} is {value:g}, expected a whole number or less than 1")


def _check_names(trials: Sequence[Trial]) -> None:
    names = [trial.name for trial in trials]
    for name in names:
        if names.count(name) > 1 or Path(name).name != name or name.startswith("."):
            raise ValueError(f"trial {name!r}: its name has to be unique and a file's")
    graph = {trial.name: trial.needs for trial in trials}
    unknown = sorted({need for needs in graph.values() for need in needs} - graph.keys())
    if unknown:
        raise ValueError(f"trial {unknown[0]!r} is needed, and not in the sweep")
    TopologicalSorter(graph).prepare()  # raises CycleError, a ValueError
