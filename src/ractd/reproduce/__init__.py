"""The paper's tables and figures as experiments: what is missing is trained, the rest read, and our numbers set beside the paper's.

`reproduce(names)` is what `ractd reproduce` calls.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from ractd.data import OfflineDataset, load_dataset
from ractd.data.dataset import describe
from ractd.data.scores import published_recipe
from ractd.errors import RactdError
from ractd.registry import unknown
from ractd.reproduce.catalog import EXPERIMENTS, Experiment
from ractd.reproduce.claims import Comparison, compare
from ractd.reproduce.lines import Line, Measured, TableSource
from ractd.reproduce.paper import dataset_key, published
from ractd.reproduce.runs import DATA, PROTOCOL, DatasetRuns, Preset, TableRun
from ractd.reproduce.tables import PaperTable, write_table
from ractd.sweeps.grid import same_option
from ractd.sweeps.trials import Outcome, check_resources, run_trials


@dataclass(frozen=True)
class Resources:
    """Where trainings run; see `ractd.sweeps.run_trials`."""

    jobs: int = 1
    cpus: float = 1
    gpus: float = 0
    ray_address: str | None = None


@dataclass(frozen=True)
class Reproduction:
    """What became of a command."""

    tables: list[tuple[PaperTable, list[Path]]]
    """Each with its files."""
    runs: list[Path]
    """Directories of the runs that they were read from."""
    failed: list[str]
    """Trainings and evaluations that failed, or that needed one of these, a sentence each."""


def reproduce(
    names: Sequence[str],
    *,
    settings_of: Callable[[Sequence[str]], Any],
    datasets: Sequence[str] = (),
    preset: Preset = "cpu",
    seeds: int = 1,
    runs: str | Path = "runs",
    out: str | Path = "results",
    train: bool = True,
    options: Sequence[str] = (),
    env_id: str | None = None,
    workers: Resources | None = None,
    console: Console | None = None,
) -> Reproduction:
    """Make tables and figures of the paper, by their names in `EXPERIMENTS`, and write them into `out`.

    `datasets` take the place of the paper's own, of which those that can't be used are skipped, and the table says why. Runs
    below `runs` that are there with the same settings and data are reused; `train=False` only reads these. `options` are
    further ones of every `ractd train`, `env_id` is the environment that they name if they do, and `settings_of` reads the words
    of such a command. Raises `RactdError` without the extra `reproduce`, for an unknown name, no seed, unusable `workers` or
    `options`, one of `datasets` that can't be used, and two of one name.
    """
    console = console or Console(quiet=True)
    for name in names:
        if name not in EXPERIMENTS:
            raise unknown("table or figure", name, EXPERIMENTS)
    experiments = {name: EXPERIMENTS[name] for name in names}
    if not names:
        raise RactdError(f"name at least one table or figure of {', '.join(EXPERIMENTS)}")
    if seeds < 1:
        raise RactdError(f"--seeds is {seeds}, expected at least 1")
    _check_extra()
    workers = workers or Resources()
    check_resources(workers.jobs, workers.cpus, workers.gpus, workers.ray_address)
    specs = {name: tuple(dict.fromkeys(datasets)) or experiment.datasets for name, experiment in experiments.items()}
    loaded = {spec: _load(spec, env_id, spec in datasets) for spec in dict.fromkeys(chain(*specs.values()))}
    usable = {
        spec: DatasetRuns(spec, dataset, Path(runs), preset, tuple(range(seeds)), tuple(options), settings_of)
        for spec, dataset in loaded.items()
        if isinstance(dataset, OfflineDataset)
    }
    _check_names(usable)
    sources = [
        (usable[spec], ours)
        for name, experiment in experiments.items()
        for spec in specs[name]
        if spec in usable
        for ours in experiment.ours.values()
    ]
    _check_options([TableRun(data, 0, ours.run) for data, ours in sources if ours.run != DATA], options)
    trials = {trial.name: trial for data, ours in sources for seed in data.seeds for trial in ours.trials(data, seed)}
    ended: list[Outcome] = []
    if train:
        ended = run_trials(list(trials.values()), Path(runs) / "logs", **asdict(workers), console=console)
    outcomes = {outcome.trial.name: outcome for outcome in ended}
    settings = {"preset": preset, "seeds": list(range(seeds)), "options": list(options)}
    written, read = [], dict[str, None]()
    for name, experiment in experiments.items():
        used = [usable[spec] for spec in specs[name] if spec in usable]
        pairs = [(data, method) for data in used for method in _methods(name, experiment, data)]
        # Diversity is measured here, which takes a while.
        shown = track(pairs, "reading", console=console, transient=True, disable=not console.is_terminal)
        lines = [_line(data, method, experiment, outcomes) for data, method in shown]
        described = [_source(data) for data in used]
        skipped = {spec: why for spec in specs[name] if isinstance(why := loaded[spec], str)}
        table = PaperTable(
            name, experiment, lines, comparisons(experiment, lines, described), described, skipped, settings
        )
        read |= dict.fromkeys(sorted({each.run for line in lines for each in line.seeds.values() if each.run}))
        written.append((table, write_table(table, Path(out))))
    failed = [f"{end.trial.name}: {end.reason}" for end in ended if end.reason]
    return Reproduction(written, [Path(runs) / run for run in read], failed)


def _check_extra() -> None:
    for module in ("scipy", "rliable", "matplotlib"):
        if importlib.util.find_spec(module) is None:
            raise RactdError(f'the paper\'s tables need {module}: pip install "ractd[reproduce]"')


def _load(spec: str, env_id: str | None, required: bool) -> OfflineDataset | str:
    """Load a dataset; one that can't be used is the reason why, unless it is required."""
    try:
        dataset = load_dataset(spec, env_id)
        if dataset.env_id is None:
            raise RactdError(f"{spec}: its data names no environment to score policies in; give one with '-- --env ID'")
        return dataset
    except RactdError as error:
        if required:
            raise
        return str(error)


def _check_names(usable: Mapping[str, DatasetRuns]) -> None:
    by_name: dict[str, str] = {}
    for spec, data in usable.items():
        other = by_name.setdefault(data.name, spec)
        if other != spec:
            raise RactdError(f"--datasets: {other} and {spec} are both named {data.name!r}, and so would their runs be")


def _check_options(runs: Sequence[TableRun], options: Sequence[str]) -> None:
    """Raise `RactdError` for an option after '--' that a training has already, or that is out of its range."""
    names = [word.partition("=")[0].replace("_", "-") for word in options if word.startswith("--")]
    for run in dict.fromkeys(runs):
        own = run.command[: len(run.command) - len(PROTOCOL) - len(options)]
        for name in names:
            if any(
                same_option(name.removeprefix("--"), word.removeprefix("--")) for word in own if word.startswith("--")
            ):
                raise RactdError(f"{name} after '--': 'ractd reproduce' sets it itself, for {run.name}; leave it out")
        run.of.settings_of(run.command)


def _methods(name: str, experiment: Experiment, data: DatasetRuns) -> list[str]:
    """Return the methods of a dataset's lines: those of the paper's table, in its order, and ours that it doesn't have."""
    numbers = published(name)
    methods = dict.fromkeys([*numbers.index.get_level_values("method"), *experiment.ours])
    return [
        method for method in methods if method in experiment.ours or (dataset_key(data.name), method) in numbers.index
    ]


def _line(data: DatasetRuns, method: str, experiment: Experiment, outcomes: Mapping[str, Outcome]) -> Line:
    """Read what there is of a method, and say why where there is nothing."""
    seeds: dict[int, Measured] = {}
    missing: dict[int, str] = {}
    ours = experiment.ours.get(method)
    for seed in data.seeds:
        if ours is None:
            break
        try:
            measured = ours.measured(data, seed)
            seeds[seed] = experiment.add(measured, data, seed) if experiment.add else measured
        except RactdError as error:
            ended = [outcomes[trial.name] for trial in ours.trials(data, seed) if trial.name in outcomes]
            reasons = [f"{end.trial.name} {end.state}: {end.reason}" for end in ended if end.reason]
            missing[seed] = reasons[0] if reasons else str(error)
    return Line(data.name, method, seeds, missing)


def _source(data: DatasetRuns) -> TableSource:
    description = describe(data.dataset)
    del description["source"]
    # What the reader of D4RL's names calls a file that doesn't say itself what it is, as rebuilt ones do.
    own = description["recipe"] == published_recipe(data.spec)
    return TableSource(data.name, description, own, data.unit)


def comparisons(experiment: Experiment, lines: Sequence[Line], sources: Sequence[TableSource]) -> list[Comparison]:
    """Return what lines say of the claims that the paper makes for their datasets; all that it needs are the means by seed."""
    return [
        compare(claim, lines, source.name)
        for source in sources
        for claim in experiment.claims
        if not claim.datasets or dataset_key(source.name) in claim.datasets
    ]


__all__ = ["EXPERIMENTS", "Reproduction", "Resources", "comparisons", "reproduce"]
