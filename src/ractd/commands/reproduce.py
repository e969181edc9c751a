"""`ractd reproduce`. Heavy imports wait until it runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, Suppress, arg

from ractd.commands.consoles import out, say
from ractd.commands.parsing import read_with_training
from ractd.commands.sweep import end
from ractd.commands.train import settings_of
from ractd.commands.train_options import value_in


@dataclass
class Reproduce:
    """Make the paper's tables and figures: train what is missing, reuse what is there, set our numbers beside the paper's.

    Names: table1, table2, table3, table4, table5, table10, table11, table12, figure3, figure4. Stop it and go on at will.
    Each becomes OUT/NAME.md, .csv and .json. Options of 'ractd train' for all of them go to the end, after '--'.

    Example: ractd reproduce table4 figure3 --datasets hopper-mixed --seeds 3 --jobs 2
    """

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="NAME...")]
    """Tables and figures of the paper."""
    preset: Literal["cpu", "paper"] = "cpu"
    """Small networks and the automatic reward weight, or the paper's networks and Table 9's weights, for GPUs."""
    datasets: tuple[str, ...] = ()
    """Datasets as for 'ractd train'; by default the paper's, from D4RL, of which those that can't be used are skipped."""
    seeds: int = 1
    """Trainings of each kind, with the seeds 0, 1, ..."""
    runs: Path = Path("runs")
    """Folder of the run directories."""
    out: Annotated[Path, arg(aliases=["-o"])] = Path("results")
    """Folder of the tables."""
    train: bool = True
    """Train and evaluate what is missing; without, only what is there is read."""
    jobs: int = 1
    """Trainings at a time on this machine; more than one need the extra 'sweeps'."""
    cpus: float = 1
    """CPU cores of each."""
    gpus: float = 0
    """GPUs of each."""
    ray_address: str | None = None
    """Ray cluster to train on: HOST:PORT, or auto."""
    report: bool = True
    """Write OUT/report.html about the runs, where the extra 'report' is installed."""
    train_options: Annotated[Suppress[tuple[str, ...]], arg(name="train-options")] = ()
    """What comes after '--'."""

    def run(self) -> None:
        from ractd.report import report_of_runs
        from ractd.reproduce import Resources, reproduce
        from ractd.reproduce.tables import show

        done = reproduce(
            self.names,
            settings_of=settings_of,
            datasets=self.datasets,
            preset=self.preset,
            seeds=self.seeds,
            runs=self.runs,
            out=self.out,
            train=self.train,
            options=self.train_options,
            env_id=value_in(self.train_options, "--env"),
            workers=Resources(self.jobs, self.cpus, self.gpus, self.ray_address),
            console=out,
        )
        for table, paths in done.tables:
            show(table, out)
            say("wrote " + " ".join(map(str, paths)))
        if self.report:
            say(report_of_runs(done.runs, self.out / "report.html", out))
        end(done.failed)


parse = partial(read_with_training, Reproduce, "reproduce")
