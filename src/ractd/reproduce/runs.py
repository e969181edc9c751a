"""The runs that tables are read from: each one's command, whether it is there, and what it gave.

Runs lie below one folder. `DATASET-sSEED` has teacher, plain student and RACTD; `-wWEIGHT` behind it a student alone, of that
run's teacher; `-rt` a reward-aware teacher and its students; `-ddpm` a DDPM teacher.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ractd.data import OfflineDataset
from ractd.data.scores import normalized_score, reference
from ractd.envs.maze import maze_of
from ractd.errors import RactdError
from ractd.methods.presets import planner_preset_of
from ractd.methods.ractd_resolve import resolve
from ractd.policies.files import DESCRIPTION
from ractd.reproduce.lines import NOT_RUN, Measured
from ractd.reproduce.paper import FIGURE_4_WEIGHTS
from ractd.results.statistics import Array
from ractd.runs.directory import differences, read_run
from ractd.runs.evaluation import evaluation_path
from ractd.runs.rows import Result, Row, read_file, read_result, select
from ractd.settings import to_json
from ractd.sweeps.trials import Trial
from ractd.training.run import Asked

Preset = Literal["cpu", "paper"]
BASE, REWARD_AWARE, DDPM = "", "-rt", "-ddpm"
DATA = "data"
"""Not a run: the dataset's own episodes."""
OPTIONS: dict[str, tuple[str, ...]] = {
    BASE: (),
    REWARD_AWARE: ("--teacher.reward-weight", "auto"),
    DDPM: ("--teacher.parametrization", "ddpm"),
    **{
        f"-w{weight:g}": ("--reward-weight", f"{weight:g}", "--only", "student", "--no-plain")
        for weight in FIGURE_4_WEIGHTS
    },
}
"""What is behind a run's name, and its own options of `ractd train`."""
PROTOCOL = ("--evaluation.select", "online")
"""How the paper chooses checkpoints, in every `ractd train`; further options of the user's win."""


@dataclass(frozen=True)
class DatasetRuns:
    """A dataset and the runs on it."""

    spec: str
    """What `ractd train` calls it."""
    dataset: OfflineDataset
    folder: Path
    """Of the run directories."""
    preset: Preset
    seeds: tuple[int, ...]
    options: tuple[str, ...]
    """Further options of every `ractd train`."""
    settings_of: Callable[[Sequence[str]], Any]
    """From the words of a training's command to its settings."""

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.dataset.name

    @property
    def unit(self) -> str:
        """What policies are compared in."""
        env_id = self.dataset.env_id
        return "score" if env_id is not None and reference(env_id) is not None else "return"

    def score(self, returns: Any) -> Array:
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
class TableRun:
    """One run directory and the command that makes it."""

    of: DatasetRuns
    seed: int
    kind: str
    """A key of `OPTIONS`."""

    @property
    def name(self) -> str:
        """The directory's name."""
        return f"{self.of.name}-s{self.seed}{self.kind}"

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self.of.folder / self.name

    @property
    def command(self) -> tuple[str, ...]:
        """The arguments of `ractd`."""
        options = OPTIONS[self.kind]
        if "--only" in options:
            options = ("--teacher", str(self.of.folder / self.needs[0]), *options)
        elif self.kind != DDPM and self.of.preset == "cpu":
            # Ours balances itself; the paper's preset takes Table 9's where it knows the dataset.
            options = ("--reward-weight", "auto", *options)
        where = ("--out", str(self.directory), "--seed", str(self.seed), "--preset", self.of.preset_name())
        return ("train", self.of.spec, *where, "--no-report", *options, *PROTOCOL, *self.of.options)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the runs that it needs."""
        return (TableRun(self.of, self.seed, BASE).name,) if "--only" in OPTIONS[self.kind] else ()

    def trial(self) -> Trial:
        """Return what trains it, unless it is there with these settings."""
        return Trial(self.name, self.command, lambda: self.fault() is None, self.needs)

    def settings(self) -> Any:
        """Return what its command trains with."""
        return _settings(self.of.settings_of, self.command, self.of.dataset)

    def fault(self) -> str | None:
        """Say why it can't be used as it is, None where it can."""
        path = self.directory / "config.json"
        if not path.exists():
            return NOT_RUN
        on_disk = read_run(self.directory)
        on_disk["fingerprint"] = on_disk.get("dataset", {}).get("fingerprint")
        expected = {"config": to_json(self.settings()), "fingerprint": self.of.dataset.fingerprint}
        for where, old, new in differences(path, on_disk, expected):
            return f"{self.name} is another run, with {where} {old!r} instead of {new!r}"
        if "--only" in self.command:
            finished = (self.directory / "policy" / "student" / DESCRIPTION).exists()
        else:
            result = read_result(self.directory)
            finished = result is not None and result.complete
        return None if finished else f"{self.name} is not finished"

    def check(self) -> None:
        """Raise `RactdError` where it can't be used as it is."""
        fault = self.fault()
        if fault is not None:
            raise RactdError(fault)


@functools.cache
def _settings(settings_of: Callable[[Sequence[str]], Any], command: tuple[str, ...], dataset: OfflineDataset) -> Any:
    return resolve(settings_of(command), dataset, Asked())


@dataclass(frozen=True)
class Ours:
    """Where our numbers of one method of a table come from: a row of a run's result, or `ractd eval` of one of its policies."""

    run: str
    """A key of `OPTIONS`, or `DATA`."""
    variant: str = ""
    """The row; its best checkpoint where it has one, as the paper's are, else its last."""
    policy: str = ""
    """What is evaluated, sampled in its own way."""
    sampler: str = ""
    steps: int = 0

    def trials(self, data: DatasetRuns, seed: int) -> list[Trial]:
        """Return what has to be done before it can be read."""
        if self.run == DATA:
            return []
        run = TableRun(data, seed, self.run)
        if not self.policy:
            return [run.trial()]
        how = self._protocol(run)
        env_id = data.dataset.env_id or ""
        if ":" in env_id:  # a module, which only a command line may name
            how["env"] = env_id
        words = [word for option, value in how.items() for word in (f"--{option}", str(value))]
        name = f"{run.name}-{self.policy}-{self.sampler}-{self.steps}"
        trial = Trial(
            name,
            ("eval", str(run.directory), "--policy", self.policy, *words),
            lambda: run.fault() is None and self._path(run).exists(),
            (run.name,),
        )
        return [run.trial(), trial]

    def measured(self, data: DatasetRuns, seed: int) -> Measured:
        """Read what was measured; raises `RactdError` that says why there is nothing."""
        if self.run == DATA:
            returns = data.dataset.episode_returns().astype(np.float64)
            return Measured({"score": data.score(returns), "return": returns}, "")
        run = TableRun(data, seed, self.run)
        run.check()
        result, row = self._row(run)
        if row.protocol is None:
            raise RactdError(f"{run.name} has no environment to be scored in")
        returns = np.array(row.returns, np.float64)
        samples = {"score": data.score(returns), "return": returns, "nfe": np.array([row.nfe], np.float64)}
        last = select(result.rows, variant=row.variant, checkpoint="last")
        if row.checkpoint == "best" and last:
            samples["last"] = data.score(last[0].returns)
        for name, value in (("ms", row.ms_per_action), ("processor_seconds", row.processor_seconds)):
            if value is not None:
                samples[name] = np.array([value], np.float64)
        busy = bool((result.content.get("load") or {}).get("busy"))
        return Measured(samples, run.name, row.policy, busy)

    def _row(self, run: TableRun) -> tuple[Result, Row]:
        if self.policy:
            if not self._path(run).exists():
                raise RactdError(NOT_RUN)
            result = read_file(self._path(run), run.directory)
            return result, result.rows[0]
        result = read_result(run.directory) or Result(run.directory, {})
        found = select(result.rows, variant=self.variant)
        if not found and self.variant == "plain student" and run.settings().student.reward_weight == 0:
            found = select(result.rows, variant="RACTD")  # which is not trained twice
        if not found:
            raise RactdError(f"{run.name} has no row {self.variant!r}")
        return result, next((row for row in found if row.checkpoint == "best"), found[0])

    def _protocol(self, run: TableRun) -> dict[str, Any]:
        """Return how it is evaluated: as the run's own variants, but for how it samples."""
        e = run.settings().evaluation
        episodes = {"episodes": e.episodes, "execute": e.execute, "seed": run.seed}
        return {"sampler": self.sampler, "steps": self.steps, **episodes}

    def _path(self, run: TableRun) -> Path:
        return evaluation_path(run.directory, self.policy, **self._protocol(run))
