"""`ractd compare`, and `ractd.compare`. Heavy imports wait until it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from tyro.conf import arg

from ractd.commands.consoles import out, say
from ractd.commands.parsing import read_with_training
from ractd.commands.sweep import Trainings, end
from ractd.commands.train import parse as parse_train
from ractd.commands.train_options import spelt
from ractd.errors import RactdError
from ractd.methods import method_named
from ractd.methods.places import KIND, meant, places, with_other_kind
from ractd.methods.presets import preset_named
from ractd.registry import unknown
from ractd.settings import check

if TYPE_CHECKING:
    import pandas as pd

    from ractd.results.comparison import MethodRows
    from ractd.sweeps.grid import Setting, SweepRun

METHODS = ("ractd", "bc:preset=best-tenth")
"""What is compared where nothing is named: RACTD, and what anyone would try first."""
PLAYED = ("--evaluation.select", "online")
"""Each training plays checkpoints, so that the table has the best one beside the last; options of the user's win."""
SWITCH = {"true": "", "false": "no_"}
"""What an option of a switch begins with, for its values."""


@dataclass
class Compare(Trainings):
    """Train methods on the same data, and set them side by side in one table and one report.

    A method may be named with settings, METHOD:NAME=VALUE,NAME=VALUE: preset, one of the method's own section, or any by its
    place, as student.reward_weight; 'ractd methods' lists the methods. Every training plays checkpoints (--evaluation.select
    online), so that the table has the best beside the last. Options of 'ractd train' for all of them go to the end, after
    '--'. The same command goes on where a stopped one ended. Several trainings at a time need the extra 'sweeps':
    pip install "ractd[sweeps]".

    Example: ractd compare hopper-mixed --methods ractd bc:share=0.1 iql --seeds 3 --jobs 2
    """

    methods: Annotated[tuple[str, ...], arg(metavar="METHOD...")] = METHODS
    """What is compared, as 'bc:share=0.1,optimization.steps=5000'."""
    also: Annotated[tuple[str, ...], arg(metavar="POLICY...")] = ()
    """Other policies of the runs that get rows, as teacher and plain of ractd:preset=cpu."""
    out: Path = Path("runs/compare")
    """Directory of runs, logs, table and report."""
    report: bool = True
    """Write OUT/report.html at the end, where the extra 'report' is installed."""

    @property
    def options(self) -> tuple[str, ...]:
        """Options of every training."""
        return *PLAYED, *self.train_options

    def run(self) -> None:
        runs = self.runs()
        missing, found = self.compared(runs, out)
        if found is not None:
            told = [*found.verdicts(), f"wrote {', '.join(map(str, found.write(self.out, missing)))}"]
            if self.report:
                from ractd.report import report_of_methods

                told.append(report_of_methods(found, missing, self.out / "report.html"))
            out.print(found.table())
            for sentence in told:
                say(sentence)
        end(missing, f" of {len(runs)} runs")

    def runs(self) -> list[SweepRun]:
        """Return every training, its settings read and its data fit for it; raises `RactdError` for what can't be compared."""
        from ractd.sweeps.grid import repeated, runs_with
        from ractd.sweeps.trials import check_resources

        check_resources(self.jobs, self.cpus, self.gpus, self.ray_address)
        if not self.methods:
            raise RactdError("--methods: no method is named; 'ractd methods' lists them")
        settings = [setting_of(text) for text in self.methods]
        if title := repeated([title for title, _ in settings]):
            raise RactdError(f"--methods: {title} is named twice")
        runs = runs_with(self.datasets, settings, self.seeds, self.train_options)
        _check([run for run in runs if run.seed == 0], self.options, self.also)
        return runs

    def compared(self, runs: Sequence[SweepRun], console: Console) -> tuple[list[str], MethodRows | None]:
        """Train what is missing; return a sentence for each run that failed, and what those that didn't have brought."""
        from ractd.results.comparison import MethodRun, read_methods

        missing = self.train(runs, console)
        members = [MethodRun(run.dataset_name, run.title, run.seed, self.out / run.name) for run in runs]
        return missing, read_methods(members, self.also, self.out / "times.json", max(1, int(self.cpus)))


def compare(
    *datasets: str | Path,
    methods: Sequence[str] = METHODS,
    seeds: int = 3,
    jobs: int = 1,
    out: str | Path = "runs/compare",
    also: Sequence[str] = (),
    options: Sequence[str] = (),
    quiet: bool = False,
) -> pd.DataFrame:
    """Train methods on the same data, or read what is trained, and return a row for each seed's checkpoints.

    Args:
        datasets: Names or files, of one environment.
        methods: Names, which may have settings, as `bc:share=0.1,optimization.steps=5000`.
        seeds: Seeds of each, 0 to seeds - 1.
        jobs: Trainings at a time, through Ray if there are more than one.
        out: Directory of the runs.
        also: Other policies of the runs that get rows, as `teacher`.
        options: Options of every training, as they are typed: `["--evaluation.episodes", "20"]`.
        quiet: Show no progress.

    Returns:
        The columns of `ractd.runs.rows.frame`; `method` is as it was named, and all of `ms_per_action` were measured in turns.

    Raises:
        RactdError: For data or methods that can't be compared, before anything trains, and for a training that failed.
    """
    for dataset in datasets:
        if not isinstance(dataset, str | Path):
            raise RactdError(
                f"dataset is of type {type(dataset).__name__}, expected a name or a file, since trainings are "
                "processes of their own; ractd.data.write_hdf5 writes one"
            )
    from ractd.runs.train import console_for

    words = tuple(map(str, options))
    asked = Compare(tuple(map(str, datasets)), seeds, jobs, out=Path(out), train_options=words, methods=tuple(methods))
    asked = replace(asked, also=tuple(also))
    runs = asked.runs()
    missing, found = asked.compared(runs, console_for(quiet))
    if missing or found is None:
        raise RactdError(f"{len(missing)} of {len(runs)} trainings failed, the first is {asked.out / missing[0]}")
    return found.rows


def setting_of(text: str) -> tuple[str, Setting]:
    """Return a method with settings as tables call it, and as options of `ractd train`; raises `RactdError` for an unknown one."""
    name, colon, rest = text.partition(":")
    method, where = method_named(name), f"--methods {text}"
    split = (word.partition("=") for word in rest.split(",")) if colon else ()
    pairs = [(option.strip(), value.strip()) for option, _, value in split]
    if not all(option and value for option, value in pairs):
        raise RactdError(f"{where}: expected METHOD:NAME=VALUE,NAME=VALUE, as bc:share=0.1,optimization.steps=5000")
    settings = preset_named(method, dict(pairs).get("preset", method.default))
    words = [("method", name)]
    for option, value in pairs:
        place = option.replace("-", "_")
        if place != "preset":
            known = [*places(settings)]
            found = [each for each in (f"{name}.{place}", place) if each in known and each != "seed"]
            if not found:
                near = meant(place, [each.removeprefix(f"{name}.") for each in known])
                raise RactdError(f"{where}: method {name!r} has no setting {option!r}{near}")
            place = found[0]
        if place.endswith(KIND):
            settings = with_other_kind(settings, place, value, where)
        elif value in SWITCH and isinstance(attrgetter(place)(settings), bool):
            within, dot, last = place.rpartition(".")
            place, value = f"{within}{dot}{SWITCH[value]}{last}", ""
        words.append((spelt(place).removeprefix("--"), value))
    return f"{name}{colon}{','.join(map('='.join, pairs))}", tuple(words)


def _check(runs: Sequence[SweepRun], train_options: Sequence[str], also: Sequence[str]) -> None:
    """Read all settings as 'ractd train' will, open all data, and raise `RactdError` for what can't be trained or compared."""
    from ractd.data.findings import stop_at_errors
    from ractd.envs.modules import import_environment
    from ractd.envs.validation import examine
    from ractd.runs.train import fitted

    data: dict[str, Any] = {}
    policies: dict[str, None] = {}
    for run in runs:
        asked = parse_train(run.options(train_options)[1:])
        method, settings = method_named(asked.method), asked.settled()
        check(settings)
        if run.dataset not in data:
            import_environment(asked.env)
            found, findings = examine(run.dataset, asked.env, asked.env_steps, asked.ends, not asked.no_env)
            stop_at_errors(findings, asked.accept)
            data[run.dataset] = found
        settings = fitted(method, settings, data[run.dataset])
        policies |= dict.fromkeys(each.policy.removesuffix("-last") for each in method.variants(settings))
    environments = {each.env_id or "no environment": dataset for dataset, each in data.items()}
    if len(environments) > 1:
        told = ", ".join(f"{dataset} of {env_id}" for env_id, dataset in environments.items())
        raise RactdError(f"datasets of different environments can't be compared: {told}; name those of one")
    for name in also:
        if name not in policies:
            raise unknown("policy of --also", name, policies)


parse = partial(read_with_training, Compare, "compare")
