"""`ractd sweep`. Heavy imports wait until it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Fixed, Positional, Suppress, UseAppendAction, arg

from ractd.commands.consoles import out, say
from ractd.commands.parsing import read_with_training
from ractd.commands.train import settings_of

if TYPE_CHECKING:
    from rich.console import Console

    from ractd.sweeps.grid import SweepRun


@dataclass
class Trainings:
    """What commands share that train many runs: an option of 'ractd train' for all of them goes to the end, after '--'."""

    datasets: Annotated[Positional[tuple[str, ...]], arg(metavar="DATASET...")]
    """Datasets, as for 'ractd train'."""
    seeds: int = 3
    """Seeds of each, 0 to SEEDS-1."""
    jobs: int = 1
    """Trainings at a time on this machine."""
    cpus: float = 1
    """CPUs of each, and so the threads that it computes with; less than 1 shares one."""
    gpus: float = 0
    """GPUs set aside for each; 0.5 puts two on one. With 0 they are not assigned: each sees what 'ractd train' would."""
    ray_address: str | None = None
    """Cluster to train on, HOST:PORT or auto; this machine has to be part of it, and the working directory shared."""
    out: Path = Path("runs/sweep")
    """Directory of runs, logs and table."""
    train_options: Suppress[Fixed[tuple[str, ...]]] = ()
    """What comes after '--'."""

    @property
    def options(self) -> tuple[str, ...]:
        """Options of every training."""
        return self.train_options

    def train(self, runs: Sequence[SweepRun], console: Console) -> list[str]:
        """Train what is missing of runs that were checked; return a sentence for each that failed."""
        from ractd.sweeps.grid import note_commands, trial
        from ractd.sweeps.trials import run_trials

        trials = [trial(run, self.out, self.options) for run in runs]
        note_commands(trials, self.out)
        outcomes = run_trials(
            trials,
            self.out / "logs",
            jobs=self.jobs,
            cpus=self.cpus,
            gpus=self.gpus,
            ray_address=self.ray_address,
            console=console,
        )
        return [f"{o.trial.name}: {o.reason} (logs/{o.trial.name}.log)" for o in outcomes if o.reason]


def end(failed: Sequence[str], of: str = "") -> None:
    """Say what failed, of how many; raises `SystemExit` with 1 where anything did."""
    for sentence in failed:
        say(sentence, label="[red]failed:[/]")
    if failed:
        say(f"{len(failed)}{of} failed; the same command tries them again")
        raise SystemExit(1)


@dataclass
class Sweep(Trainings):
    """Train every combination of datasets, settings and seeds, and compare them in one table.

    Options of 'ractd train' for all of them go to the end, after '--'. The same command goes on where a stopped sweep ended.
    Several at a time need the extra 'sweeps': pip install "ractd[sweeps]".

    Example: ractd sweep hopper-mixed --vary student.reward-weight 0.1 0.3 1 --seeds 3 --jobs 2 -- --preset demo
    """

    vary: Annotated[UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="OPTION VALUE...")] = ()
    """An option of 'ractd train', without its dashes, and the values that it takes; several times for every combination. A
    value of several words is quoted."""

    def run(self) -> None:
        from ractd.sweeps.grid import runs_of
        from ractd.sweeps.summary import main_table, summarize, write_summary
        from ractd.sweeps.trials import check_resources

        check_resources(self.jobs, self.cpus, self.gpus, self.ray_address)
        runs = runs_of(self.datasets, self.vary, self.seeds, self.train_options)
        _check(runs, self.train_options)
        missing = self.train(runs, out)
        summary = summarize(runs, self.out)
        if summary is not None:
            written = write_summary(summary, self.out, missing)
            out.print(main_table(summary))
            say(f"wrote {', '.join(map(str, written))}")
        end(missing, f" of {len(runs)} runs")


def _check(runs: Sequence[SweepRun], train_options: Sequence[str]) -> None:
    """Read every setting as 'ractd train' will, and find or download every dataset, before hours are spent on others."""
    from ractd.data.registry import find_source

    for dataset in dict.fromkeys(run.dataset for run in runs):
        find_source(dataset)
    for run in runs:
        settings_of(run.options(train_options))


parse = partial(read_with_training, Sweep, "sweep")
