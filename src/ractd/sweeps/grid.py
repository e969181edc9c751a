"""Every combination of datasets, settings and seeds as trials of `ractd train`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ractd.errors import RactdError
from ractd.sweeps.trials import Trial

Setting = tuple[tuple[str, str], ...]
"""An option and its value, for each option that is varied."""
NOT_VARIED = {"seed": "use --seeds", "out": "use the sweep's own", "only": "a run without all stages has no score"}
"""Options of 'ractd train' that a sweep doesn't take, and why."""


@dataclass(frozen=True)
class SweepRun:
    """One training of a sweep."""

    dataset: str
    """As the user names it."""
    dataset_name: str
    """Its short name."""
    setting: Setting
    seed: int
    title: str = ""
    """What the setting is called, where it has a name."""

    @property
    def name(self) -> str:
        """Name of the trial, and of its run directory."""
        called = [self.title] if self.title else [f"{option}={value}" for option, value in self.setting]
        parts = [self.dataset_name, *called, f"s{self.seed}"]
        return "-".join(re.sub(r"[^\w.+=-]+", "_", part) for part in parts)

    def options(self, train_options: Sequence[str]) -> tuple[str, ...]:
        """Return the arguments of `ractd`, all but where it writes."""
        varied = [word for option, value in self.setting for word in (f"--{option}", *value.split())]
        return ("train", self.dataset, "--no-report", *train_options, *varied, "--seed", str(self.seed))


def label(setting: Setting) -> str:
    """Return a setting as tables call it."""
    return ", ".join(f"{option} {value}" for option, value in setting) or "as given"


def runs_of(
    datasets: Sequence[str], vary: Sequence[Sequence[str]], seeds: int, train_options: Sequence[str]
) -> list[SweepRun]:
    """Return every combination, seeds last; raises `RactdError` for one that makes no sense."""
    options = [words[0].removeprefix("--").replace("_", "-") if words else "" for words in vary]
    for option, words in zip(options, vary, strict=True):
        if len(words) < 2:
            raise RactdError(
                f"--vary {' '.join(words)}: expected an option and its values, e.g. student.reward-weight 0.1 1"
            )
        check_option(f"--vary {option}", option)
        if options.count(option) > 1 or len(set(words)) < len(words):
            raise RactdError(f"--vary {option}: an option and each of its values can be given once")
    settings = itertools.product(
        *([(option, v) for v in words[1:]] for option, words in zip(options, vary, strict=True))
    )
    return runs_with(datasets, [("", setting) for setting in settings], seeds, train_options)


def runs_with(
    datasets: Sequence[str], settings: Sequence[tuple[str, Setting]], seeds: int, train_options: Sequence[str]
) -> list[SweepRun]:
    """Return every dataset with every setting, which may have a name, and every seed.

    Raises `RactdError` for what makes no sense, such as two of one name, or an option of all that a setting has too.
    """
    if not datasets:
        raise RactdError("no dataset is named; 'ractd data list' shows those that can be")
    if seeds < 1:
        raise RactdError(f"--seeds is {seeds}, expected 1 or more")
    varied = {option for _, setting in settings for option, _ in setting}
    for word in train_options:
        option = word.partition("=")[0].removeprefix("--").replace("_", "-")
        if word.startswith("--"):
            check_option(f"{word} after '--'", option)
            if any(same_option(option, each) for each in varied):
                raise RactdError(f"{word} after '--': this option is varied")
    short = [_short_name(dataset) for dataset in datasets]
    if name := repeated(short):
        raise RactdError(f"two of the datasets are called {name!r}; name each once, or rename one of the files")
    runs = [
        SweepRun(dataset, name, setting, seed, title)
        for dataset, name in zip(datasets, short, strict=True)
        for title, setting in settings
        for seed in range(seeds)
    ]
    if name := repeated([run.name for run in runs]):
        raise RactdError(f"two runs would be called {name!r}; use values that differ in letters and digits")
    return runs


SHORT = {"reward-weight": "student.reward-weight", "student-network": "student.network"}
"""Options of 'ractd train' with a second name, which is a place in the settings."""


def same_option(one: str, other: str) -> bool:
    """Tell whether two options, without their dashes, set the same, by whichever name, or one of them a part of the other."""
    one, other = (SHORT.get(option, option) for option in (one, other))
    return one == other or any(
        whole in SHORT.values() and part.startswith(f"{whole}.") for whole, part in ((one, other), (other, one))
    )


def repeated(names: Sequence[str]) -> str | None:
    """Return the first name that stands there twice."""
    return next((name for index, name in enumerate(names) if name in names[:index]), None)


def trial(run: SweepRun, out: Path, train_options: Sequence[str]) -> Trial:
    """Return a run as a trial that is done when its result is complete."""
    from ractd.runs.rows import complete_result

    directory = out / run.name
    command = (*run.options(train_options), "--out", str(directory))
    return Trial(run.name, command, lambda: complete_result(directory) is not None)


def note_commands(trials: Sequence[Trial], out: Path) -> None:
    """Note in `out/commands.json` which command makes which run, so that no run of other settings passes for a finished one.

    Raises `RactdError` for a run that was begun with another command.
    """
    from ractd.files import read_json, refuse_foreign, write_json

    path = out / "commands.json"
    refuse_foreign(out, "sweep", path.name)
    known = read_json(path) if path.exists() else {}
    for trial in trials:
        # Without its --out, which may be spelt otherwise.
        command, before = list(trial.command[:-2]), known.get(trial.name)
        if before is None and (out / trial.name).exists():
            raise RactdError(f"{out / trial.name}: was not made by this sweep; use another --out")
        if before not in (None, command, [*command, *trial.command[-2:]]):
            raise RactdError(
                f"{out / trial.name}: {_difference(before, command)}; use the same options, or another --out"
            )
        known[trial.name] = command
    write_json(path, known)


def _difference(before: list[str], now: list[str]) -> str:
    """Say in which option two commands differ first."""
    old, new = _options(before), _options(now)
    for option in [*new, *old]:
        if old.get(option) != new.get(option):
            was, became = (repr(each[option]) if option in each else "not given" for each in (old, new))
            return f"{option or 'the dataset'} was {was} when it was begun, and is {became} now"
    return "its options came in another order when it was begun"


def _options(command: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    last = ""
    for word in command:
        if word.startswith("--"):
            last, _, value = word.partition("=")
            options[last] = value
        else:
            options[last] = f"{options.get(last, '')} {word}".strip()
    return options


def check_option(where: str, option: str) -> None:
    """Raise `RactdError` for an option that a sweep sets itself."""
    if option in NOT_VARIED:
        raise RactdError(f"{where}: not for a sweep; {NOT_VARIED[option]}")


def _short_name(dataset: str) -> str:
    path = Path(dataset)
    name = path.stem if path.suffix in (".hdf5", ".h5", ".npz") else dataset.replace("/", "-")
    return name.lstrip(".")
