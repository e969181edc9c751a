"""The runs that tables are made of: each one's command, whether it is there, and what it gave.

Runs lie below one folder. `DATASET-sSEED` has teacher, plain student and RACTD; `-wWEIGHT` behind it a student alone, of that
run's teacher; `-rt` a reward-aware teacher and its students; `-ddpm` a DDPM teacher.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ractd.data import OfflineDataset
from ractd.data.scores import normalized_score, reference
from ractd.envs.maze import maze_of
from ractd.errors import RactdError
from ractd.methods.ractd_resolve import resolve
from ractd.methods.ractd_settings import Config
from ractd.policies import Policy
from ractd.policies.files import DESCRIPTION
from ractd.report.contents import read_curves
from ractd.reproduce.lines import NOT_RUN, Floats, Measured
from ractd.runs.directory import differences, read_run
from ractd.runs.evaluation import evaluation_path, executed, policy_directory
from ractd.runs.rows import Row, read_file, read_result, select
from ractd.settings import to_json
from ractd.sweeps.trials import Trial
from ractd.training.presets import planner_preset_of
from ractd.training.run import Asked

Preset = Literal["cpu", "paper"]


@dataclass(frozen=True)
class Place:
    """A dataset and where its runs are."""

    spec: str
    """What `ractd train` calls it."""
    dataset: OfflineDataset
    runs: Path
    """Folder of the run directories."""
    preset: Preset
    seeds: tuple[int, ...]
    options: tuple[str, ...] = ()
    """Further options of every `ractd train`."""

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.dataset.name

    @property
    def unit(self) -> str:
        """What policies are compared in."""
        env_id = self.dataset.env_id
        return "score" if env_id is not None and reference(env_id) is not None else "return"

    def score(self, returns: Any) -> Floats:
        """Return episode returns in `unit`."""
        values = np.asarray(returns, np.float64)
        scores = None if self.dataset.env_id is None else normalized_score(self.dataset.env_id, values)
        return values if scores is None else scores

    def preset_name(self) -> str:
        """Return the preset of `ractd train` that fits the dataset."""
        maze = maze_of(self.dataset)
        planner = None if maze is None else planner_preset_of(maze)
        if self.preset == "cpu":
            return planner or "cpu"
        return planner.removesuffix("-cpu") if planner else "mujoco"


@dataclass(frozen=True)
class Run:
    """One run directory and the command that makes it."""

    place: Place
    seed: int
    directory: Path
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()

    def trial(self) -> Trial:
        """Return what trains it, unless it is there with these settings."""
        return Trial(self.directory.name, self.command, lambda: self.lack() is None, self.needs)

    def settings(self) -> Config:
        """Return what its command trains with."""
        return _settings(self.command, self.place.dataset)

    def plain(self) -> str:
        """Return which policy is its plain student: where its reward weight is 0, the student, which is not trained twice."""
        return "student" if self.settings().student.reward_weight == 0 else "plain"

    def lack(self) -> str | None:
        """Say why it can't be used as it is, None where it can."""
        path = self.directory / "config.json"
        if not path.exists():
            return NOT_RUN
        on_disk = read_run(self.directory)
        on_disk["fingerprint"] = on_disk.get("dataset", {}).get("fingerprint")
        expected = {"config": to_json(self.settings()), "fingerprint": self.place.dataset.fingerprint}
        for where, old, new in differences(path, on_disk, expected):
            return f"{self.directory.name} is another run, with {where} {old!r} instead of {new!r}"
        if "--only" in self.command:
            finished = (self.directory / "policy" / "student" / DESCRIPTION).exists()
        else:
            result = read_result(self.directory)
            finished = result is not None and result.complete
        return None if finished else f"{self.directory.name} is not finished"

    def check(self) -> None:
        """Raise `RactdError` where it can't be used as it is."""
        why = self.lack()
        if why is not None:
            raise RactdError(why)

    def measured(self, row: Row, load: dict[str, Any] | None) -> Measured:
        """Return a row as samples; `load` is the machine's when it was timed."""
        if row.protocol is None:
            raise RactdError(f"{self.directory.name} has no environment to be scored in")
        returns = np.asarray(row.returns, np.float64)
        samples = {
            "score": self.place.score(returns),
            "return": returns,
            "nfe": np.array([row.nfe], np.float64),
            "ms": np.array([row.ms_per_action], np.float64),
        }
        return Measured(samples, self.directory.name, busy=bool(load and load["busy"]))


@dataclass(frozen=True)
class Reading:
    """How one seed of a line comes about."""

    trials: tuple[Trial, ...]
    """What has to be done before."""
    read: Callable[[], Measured]
    """Reads what they left; raises `RactdError` that says why there is nothing."""


@functools.cache
def _settings(command: tuple[str, ...], dataset: OfflineDataset) -> Config:
    from ractd.commands.train import settings_of  # what a command's settings are, the command line knows

    return resolve(settings_of(command), dataset, Asked())


def _train(place: Place, seed: int, suffix: str, *options: str, needs: tuple[str, ...] = ()) -> Run:
    directory = place.runs / f"{place.name}-s{seed}{suffix}"
    command = ("train", place.spec, "--out", str(directory), "--seed", str(seed), "--preset", place.preset_name())
    return Run(place, seed, directory, (*command, "--no-report", *options, *place.options), needs)


def _reward_weight(place: Place) -> tuple[str, ...]:
    """Ours balances itself; the paper's preset takes Table 9's where it knows the dataset."""
    return ("--reward-weight", "auto") if place.preset == "cpu" else ()


def base(place: Place, seed: int) -> Run:
    """Teacher, plain student and RACTD."""
    return _train(place, seed, "", *_reward_weight(place))


def weighted(place: Place, seed: int, weight: float) -> Run:
    """A student alone with a reward weight of its own, of `base`'s teacher."""
    teacher = base(place, seed).directory
    student = ("--teacher", str(teacher), "--reward-weight", f"{weight:g}", "--only", "student", "--no-plain")
    return _train(place, seed, f"-w{weight:g}", *student, needs=(teacher.name,))


def reward_aware(place: Place, seed: int) -> Run:
    """A reward-aware teacher with both of its students."""
    return _train(place, seed, "-rt", *_reward_weight(place), "--teacher.reward-weight", "auto")


def ddpm(place: Place, seed: int) -> Run:
    """A DDPM teacher."""
    return _train(place, seed, "-ddpm", "--teacher.parametrization", "ddpm")


def row(run: Run, policy: str, **sampling: Any) -> Reading:
    """Read the row of a policy in a run's result, with one candidate and its own steps where `sampling` says nothing else."""

    def read() -> Measured:
        run.check()
        result = read_result(run.directory)
        name = run.plain() if policy == "plain" else policy
        found = [] if result is None else select(result.rows, policy=name, **{"candidates": 1, **sampling})
        if result is None or not found:
            how = "".join(f", {key} {value}" for key, value in sampling.items())
            raise RactdError(f"{run.directory.name} has no row of its {name}{how}")
        return run.measured(min(found, key=lambda row: row.nfe), result.content.get("load"))

    return Reading((run.trial(),), read)


def evaluation(run: Run, policy: str = "student", sampler: str | None = None, steps: int | None = None) -> Reading:
    """Read what `ractd eval` measures of a policy of a run, sampled as it is said; its episodes are the run's."""
    episodes = run.settings().evaluation.episodes
    how: tuple[str, ...] = (*(("--sampler", sampler) if sampler else ()), *(("--steps", str(steps)) if steps else ()))
    env_id = run.place.dataset.env_id or ""
    if ":" in env_id:  # a module, which only a command line may name
        how = (*how, "--env", env_id)
    command = ("eval", str(run.directory), "--policy", policy, "--episodes", str(episodes), "--seed", str(run.seed))
    name = "-".join([run.directory.name, policy, *filter(None, [sampler, str(steps or "")])])

    def path() -> Path:
        configured = Policy.load(policy_directory(run.directory, policy)).configured(sampler=sampler, steps=steps)
        return evaluation_path(run.directory, policy, configured, episodes, executed(configured), run.seed)

    def done() -> bool:
        return run.lack() is None and path().exists()

    def read() -> Measured:
        run.check()
        if not path().exists():
            raise RactdError(NOT_RUN)
        result = read_file(path(), run.directory)
        return run.measured(result.rows[0], result.content.get("load"))

    return Reading((run.trial(), Trial(name, (*command, *how), done, (run.directory.name,))), read)


def with_curve(reading: Reading, run: Run, stage: str) -> Reading:
    """Add the evaluations during a student's training to what is read of it."""

    def read() -> Measured:
        measured = reading.read()
        steps, values, errors = _curve(run, stage)
        late = values[steps > steps.max(initial=0) / 2]
        samples = {"late": late, "swing": abs(late - late.mean())} if len(late) > 1 else {}
        return replace(measured, samples=measured.samples | samples, curve=(steps, values, errors))

    return Reading(reading.trials, read)


def _curve(run: Run, stage: str) -> tuple[Floats, Floats, Floats]:
    """Return steps, values in the place's unit, and their standard errors, [N] each."""
    metrics = read_curves(run.directory / "metrics.jsonl", []).get(stage, {})
    if "episode_return" not in metrics:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    steps, returns = metrics["episode_return"].steps, metrics["episode_return"].values
    errors = metrics["episode_return_se"].values
    # A standard error scales as a difference of returns does.
    return steps, run.place.score(returns), run.place.score(returns + errors) - run.place.score(returns)
