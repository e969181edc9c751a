"""`ractd data`: list, inspect, validate, make, collect. Heavy imports wait until one needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.progress import Progress, TaskID
from tyro.conf import FlagCreatePairsOff, Positional, arg

from ractd.commands import Command, choose
from ractd.commands.consoles import err, out, say
from ractd.commands.parsing import read
from ractd.errors import RactdError
from ractd.settings import TerminalsMean


@dataclass
class List:
    """List the datasets that have a name: those that are here first."""

    all: Annotated[bool, FlagCreatePairsOff] = False
    """A line each for those that can be downloaded, too."""

    def run(self) -> None:
        from ractd.data.tables import datasets_table

        out.print(datasets_table(self.all))


@dataclass
class Inspect:
    """Show what a dataset holds: sizes, returns, lengths, ranges."""

    dataset: Annotated[Positional[str], arg(metavar="DATASET")]
    """A dataset, as for 'ractd train'."""
    env: str | None = None
    """Gymnasium environment, where the data doesn't name one."""

    def run(self) -> None:
        from ractd.data import load_dataset
        from ractd.data.tables import summary_table

        out.print(summary_table(load_dataset(self.dataset, env_id=self.env)))


@dataclass
class Validate:
    """Find what would spoil training; exit code 2 for an error."""

    dataset: Annotated[Positional[str], arg(metavar="DATASET")]
    """A dataset, as for 'ractd train'."""
    env: str | None = None
    """Gymnasium environment whose spaces the data has to fit, where the data doesn't name one."""
    env_steps: int | None = None
    """Steps after which its episodes are cut, where it has no limit or another."""
    ends: TerminalsMean | None = None
    """What the data's terminals are: failures or successes."""

    def run(self) -> None:
        from ractd.data.returns import describe_ends
        from ractd.envs.modules import import_environment
        from ractd.envs.validation import examine

        import_environment(self.env)
        data, findings = examine(self.dataset, self.env, self.env_steps, self.ends)
        for finding in findings:
            color = "red" if finding.level == "error" else "yellow"
            say(finding.message, label=f"[{color}]{finding.level}:[/]")
        if data is not None:
            say(f"ends: {describe_ends(data, 0.0)}")
        errors = sum(finding.level == "error" for finding in findings)
        say(f"{self.dataset}: {errors} errors, {len(findings) - errors} warnings")
        if errors:
            raise SystemExit(2)


@dataclass
class Make:
    """Make a dataset with behaviour policies that ship with ractd."""

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Which one, e.g. hopper-mixed or maze2d-umaze ('ractd data list' shows all); with --maze, the name it gets."""
    maze: Path | None = None
    """Text file with a maze of your own: # wall, . or space empty, one G the goal, any number of S to start in."""
    steps: int | None = None
    """Transitions; by default the recipe's own number."""
    seed: int = 0
    """Same seed, same dataset, bit for bit."""
    directory: Path | None = None
    """Where it is written; by default the folder that 'ractd data list' shows."""
    overwrite: bool = False
    """Build it again where it exists."""

    def run(self) -> None:
        from ractd.data.formats.made import dataset_file
        from ractd.envs.maze import read_maze
        from ractd.recipes import make_dataset
        from ractd.recipes.mazes import check_name

        what = self.name if self.maze is None else check_name(read_maze(self.maze, self.name))
        path = dataset_file(self.name, self.directory)
        if path.exists() and not self.overwrite:
            return say(f"{path} is there already; --overwrite builds it again")
        for option, value, least in (("--steps", self.steps, 1), ("--seed", self.seed, 0)):
            if value is not None and value < least:
                raise RactdError(f"{option} is {value}, expected at least {least}")
        with Progress(console=out, transient=True, disable=not out.is_terminal) as progress:
            task = progress.add_task(f"making {self.name}", total=None)
            path = make_dataset(
                what,
                transitions=self.steps,
                seed=self.seed,
                directory=self.directory,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        say(f"wrote {path}")


@dataclass
class Collect:
    """Train SAC and write datasets of what it did (D4RL's recipe).

    They are called medium, medium-replay, medium-expert and expert. Needs the extra 'collect': pip install "ractd[collect]".
    """

    env: Annotated[Positional[str], arg(metavar="ENVIRONMENT")]
    """A Gymnasium environment with continuous actions."""
    steps: int = 1_000_000
    """Environment steps of SAC's training."""
    transitions: int = 1_000_000
    """Transitions of the medium and of the expert dataset."""
    seed: int = 0
    """Seeds everything."""
    directory: Path | None = None
    """Where the datasets are written."""

    def run(self) -> None:
        from ractd.envs.modules import import_environment
        from ractd.recipes.collect import collect

        import_environment(self.env)
        with Progress(console=err, transient=True, disable=not err.is_terminal) as bars:
            tasks: dict[str, TaskID] = {}

            def show(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total)
                bars.update(tasks[stage], completed=done)

            paths = collect(
                self.env,
                steps=self.steps,
                transitions=self.transitions,
                seed=self.seed,
                directory=self.directory,
                progress=show,
            )
        for path in paths:
            say(f"wrote {path}")


SUBCOMMANDS: dict[str, type[Command]] = {
    "list": List,
    "inspect": Inspect,
    "validate": Validate,
    "make": Make,
    "collect": Collect,
}


def parse(words: Sequence[str]) -> Command:
    """Parse the words after `ractd data`."""
    summaries = {name: (kind.__doc__ or "").splitlines()[0] for name, kind in SUBCOMMANDS.items()}
    name, rest = choose(
        words, "ractd data", "Datasets: what is here, what is in them, and what can be made.", summaries
    )
    return read(SUBCOMMANDS[name], f"data {name}", rest)
