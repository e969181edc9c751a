"""The paper's tables and figures as experiments: what is missing is trained, the rest read, and our numbers set beside the paper's.

`reproduce(names)` is what `ractd reproduce` calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path

from rich.console import Console
from rich.progress import track

from ractd.data import OfflineDataset, load_dataset
from ractd.data.dataset import describe
from ractd.data.origin import published_recipe
from ractd.errors import RactdError
from ractd.reproduce.aggregates import Aggregate, aggregates
from ractd.reproduce.catalog import EXPERIMENTS, Experiment
from ractd.reproduce.claims import Verdict, require_scipy, verdict
from ractd.reproduce.experiments import Wanted
from ractd.reproduce.lines import Line, Measured, Source
from ractd.reproduce.paper import dataset_key
from ractd.reproduce.runs import Place, Preset
from ractd.reproduce.tables import Table, write_table
from ractd.sweeps.trials import Outcome, Trial, check_resources, run_trials


@dataclass(frozen=True)
class Workers:
    """Where trainings run; see `ractd.sweeps.run_trials`."""

    jobs: int = 1
    cpus: float = 1
    gpus: float = 0
    ray_address: str | None = None


@dataclass(frozen=True)
class Reproduction:
    """What became of a command."""

    tables: list[Written]
    failed: list[str]
    """Trainings and evaluations that failed, or that needed one of these, a sentence each."""


@dataclass(frozen=True)
class Written:
    """A table and its files."""

    table: Table
    paths: list[Path]
    runs: list[Path]
    """Directories of the runs that it was read from."""


def reproduce(
    names: Sequence[str],
    *,
    datasets: Sequence[str] = (),
    preset: Preset = "cpu",
    seeds: int = 1,
    runs: str | Path = "runs",
    out: str | Path = "results",
    train: bool = True,
    options: Sequence[str] = (),
    workers: Workers | None = None,
    console: Console | None = None,
) -> Reproduction:
    """Make tables and figures of the paper, by their names in `EXPERIMENTS`, and write them into `out`.

    `datasets` take the place of the paper's own, of which those that can't be used are skipped, and the table says why. Runs
    below `runs` that are there with the same settings and data are reused; `train=False` only reads these. `options` are
    further ones of every `ractd train`. Raises `RactdError` without scipy, for an unknown name, no seed, unusable `workers` or
    `options`, one of `datasets` that can't be used, and two of one name.
    """
    console = console or Console(quiet=True)
    experiments = {name: _experiment(name) for name in names}
    if not names:
        raise RactdError(f"name at least one table or figure of {', '.join(EXPERIMENTS)}")
    if seeds < 1:
        raise RactdError(f"--seeds is {seeds}, expected at least 1")
    require_scipy()
    workers = workers or Workers()
    check_resources(workers.jobs, workers.cpus, workers.gpus, workers.ray_address)
    specs = {name: tuple(datasets) or experiment.datasets for name, experiment in experiments.items()}
    env_id = _env(options)
    loaded = {spec: _load(spec, env_id, spec in datasets) for spec in dict.fromkeys(chain(*specs.values()))}
    places = {
        spec: Place(spec, dataset, Path(runs), preset, tuple(range(seeds)), tuple(options))
        for spec, dataset in loaded.items()
        if isinstance(dataset, OfflineDataset)
    }
    _check_names(places)
    wanted = {
        name: [
            (places[spec], each)
            for spec in specs[name]
            if spec in places
            for each in experiments[name].rows(places[spec])
        ]
        for name in experiments
    }
    trials = _trials(wanted)
    _check_options(trials, options)
    ended: list[Outcome] = []
    if train:
        ended = run_trials(list(trials.values()), Path(runs) / "logs", **asdict(workers), console=console)
    outcomes = {outcome.trial.name: outcome for outcome in ended}
    written = []
    settings = {"preset": preset, "seeds": list(range(seeds)), "options": list(options)}
    for name, experiment in experiments.items():
        lines = _read(wanted[name], outcomes, console)
        sources = [_source(places[spec]) for spec in specs[name] if spec in places]
        skipped = {spec: why for spec in specs[name] if isinstance(why := loaded[spec], str)}
        verdicts, means = judge(experiment, lines, sources)
        table = Table(name, experiment, lines, verdicts, sources, skipped, settings, means)
        used = sorted({measured.run for line in lines for measured in line.seeds.values() if measured.run})
        written.append(Written(table, write_table(table, Path(out), console), [Path(runs) / run for run in used]))
    return Reproduction(written, [f"{end.trial.name}: {end.reason}" for end in ended if end.reason])


def _experiment(name: str) -> Experiment:
    if name not in EXPERIMENTS:
        raise RactdError(f"table or figure {name!r} is not known, expected one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def _env(options: Sequence[str]) -> str | None:
    """Return the environment that trainings are told to be scored in, None for their data's own."""
    for word, following in pairwise([*options, ""]):
        name, _, value = word.partition("=")
        if name == "--env":
            return value or following
    return None


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


def _check_names(places: Mapping[str, Place]) -> None:
    by_name: dict[str, str] = {}
    for spec, place in places.items():
        other = by_name.setdefault(place.name, spec)
        if other != spec:
            raise RactdError(
                f"--datasets: {other} and {spec} are both named {place.name!r}, and so would their runs be"
            )


def _trials(wanted: Mapping[str, list[tuple[Place, Wanted]]]) -> dict[str, Trial]:
    """Return what has to be done before tables can be read, by name; tables share trials."""
    trials: dict[str, Trial] = {}
    for pairs in wanted.values():
        for _, each in pairs:
            for reading in each.readings.values():
                trials |= {trial.name: trial for trial in reading.trials if trial.name not in trials}
    return trials


SHORT = {"--student.reward-weight": "--reward-weight"}
"""Options of 'ractd train' with two names."""


def _check_options(trials: Mapping[str, Trial], options: Sequence[str]) -> None:
    """Raise `RactdError` for an option after '--' that a training has already, or that is out of its range."""
    from ractd.commands.train import settings_of

    names = [word.partition("=")[0].replace("_", "-") for word in options if word.startswith("--")]
    for trial in trials.values():
        if trial.command[0] != "train":
            continue
        own = trial.command[: len(trial.command) - len(options)]
        for name in names:
            if SHORT.get(name, name) in own:
                raise RactdError(f"{name} after '--': 'ractd reproduce' sets it itself, for {trial.name}; leave it out")
        settings_of(trial.command)


def _read(pairs: list[tuple[Place, Wanted]], outcomes: Mapping[str, Outcome], console: Console) -> list[Line]:
    """Read what there is; diversity is measured here, which takes a while."""
    lines = []
    for place, each in track(pairs, "reading", console=console, transient=True, disable=not console.is_terminal):
        found: dict[int, Measured] = {}
        missing: dict[int, str] = {}
        for seed, reading in each.readings.items():
            try:
                found[seed] = reading.read()
            except RactdError as error:
                failed = [outcomes[trial.name] for trial in reading.trials if trial.name in outcomes]
                reasons = [f"{end.trial.name} {end.state}: {end.reason}" for end in failed if end.reason]
                missing[seed] = reasons[0] if reasons else str(error)
        lines.append(Line(place.name, each.method, each.published, found, missing))
    return lines


def _source(place: Place) -> Source:
    description = describe(place.dataset)
    del description["source"]
    # What the reader of D4RL's names calls a file that doesn't say itself what it is, as rebuilt ones do.
    published = description["recipe"] == published_recipe(place.spec)
    return Source(place.name, description, published, place.unit)


def judge(
    experiment: Experiment, lines: Sequence[Line], sources: Sequence[Source]
) -> tuple[list[Verdict], list[Aggregate]]:
    """Return what lines say of the claims that the paper makes for their datasets, and the methods' interquartile means.

    Both need nothing of a line but the mean of each of its seeds.
    """
    verdicts = [
        verdict(claim, lines, source.name)
        for source in sources
        for claim in experiment.claims
        if not claim.datasets or dataset_key(source.name) in claim.datasets
    ]
    return verdicts, aggregates(lines, {source.unit for source in sources} == {"score"})


__all__ = ["EXPERIMENTS", "Reproduction", "Workers", "Written", "judge", "reproduce"]
