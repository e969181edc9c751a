"""`ractd train`. Heavy imports wait until it runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro
from tyro.conf import AvoidSubcommands, FlagCreatePairsOff, Positional, arg

from ractd.commands.consoles import out, say
from ractd.commands.parsing import read
from ractd.errors import RactdError
from ractd.methods import METHODS, Method, method_named
from ractd.registry import unknown
from ractd.settings import TerminalsMean, check, with_kind

S = TypeVar("S")
PresetName = TypeVar("PresetName", bound=str)
StageName = TypeVar("StageName", bound=str)


@dataclass
class Train(Generic[S, PresetName, StageName]):
    """`ractd train` with a method's settings, and the names of its presets and stages."""

    dataset: Positional[str]
    """A path (.hdf5 in D4RL's layout, .npz), a Minari id, a D4RL name, or a dataset that 'ractd data make' built."""
    config: Annotated[AvoidSubcommands[S], arg(name="")]
    method: Annotated[str, arg(metavar=f"{{{','.join(METHODS)}}}")] = "ractd"
    """What is trained; its options are shown with 'ractd train --method NAME --help'."""
    preset: PresetName | None = None
    """Where every setting below starts from. By default cpu, and for data from a maze the planner's of its size; those
    without 'cpu' in their names are the paper's networks, for GPUs."""
    out: Path | None = None
    """Run directory; by default runs/DATASET-sSEED."""
    env: str | None = None
    """Gymnasium environment to score in, where the data doesn't name one; module:Id-v0 imports a module of yours, from
    the working directory first."""
    env_steps: int | None = None
    """Steps after which its episodes are cut, where it has no limit or another."""
    no_env: Annotated[bool, FlagCreatePairsOff] = False
    """Score nothing, make no environment: estimates only."""
    ends: TerminalsMean | None = None
    """What the data's terminals are, where no success flags say it: failures, which cost a penalty, or successes. By default the
    environment says it, or the data are judged."""
    accept: tuple[Literal["one-episode", "equal-returns"], ...] = ()
    """Train in spite of these errors about the data: one episode without an end, returns that are all equal."""
    only: StageName | None = None
    """Train one stage only, with what the run already has."""
    teacher_from: Annotated[Path | None, arg(name="teacher")] = None
    """Run whose teacher and return model are used instead of training new ones, with their horizon, history, noise levels
    and networks."""
    reward_weight: float | Literal["auto"] | None = None
    """Short for --student.reward-weight."""
    student_network: Annotated[str | None, arg(metavar="NAME")] = None
    """Network of the student, where it is not to be its teacher's: that of a preset, or cpu-small, a smaller MLP."""
    plain: bool = True
    """Also distil a student without reward, to compare with."""
    checkpoint_seconds: float = 30.0
    """Seconds between checkpoints; they don't change the result."""
    track: Literal["trackio", "wandb"] | None = None
    """Show metrics and scores in trackio or Weights & Biases as well, in the project 'ractd'; whichever it is has to be
    installed."""
    report: bool = True
    """Write RUN/report.html at the end, where the extra 'report' is installed."""

    def run(self) -> None:
        from ractd.commands.memory import keep_freed_memory
        from ractd.envs.modules import import_environment
        from ractd.results.tables import result_table
        from ractd.runs.train import train

        import_environment(self.env)
        keep_freed_memory()
        result = train(
            self.dataset,
            method=self.method,
            out=self.out,
            config=self.settled(),
            env_id=self.env,
            env_steps=self.env_steps,
            simulate=not self.no_env,
            ends=self.ends,
            accept=self.accept,
            only=self.only,
            teacher=self.teacher_from,
            plain=self.plain,
            checkpoint_seconds=self.checkpoint_seconds,
            track=self.track,
            console=out,
        )
        if result.content:
            out.print(result_table(result))
            say(f"run: {result.directory}   policy: {result.directory / 'policy' / result.rows[0].policy}")
            if self.report:
                from ractd.report import report_of_run

                say(report_of_run(result.directory, out))
        elif self.only:
            out.print(f"the {self.only} is trained; 'ractd train' without --only does the rest", highlight=False)

    def settled(self) -> S:
        """Return the settings, with what the short options say."""
        asked: dict[str, Any] = {"reward_weight": self.reward_weight, "network": self.student_network}
        asked = {name: value for name, value in asked.items() if value is not None}
        if not asked:
            return self.config
        from ractd.methods.ractd_resolve import NO_STUDENT
        from ractd.methods.ractd_settings import NAMED_NETWORKS, Config

        option = "--reward-weight" if "reward_weight" in asked else "--student-network"
        settings: Any = self.config
        if not isinstance(settings, Config):
            raise RactdError(f"{option}: method {self.method!r} distils no student; leave it out")
        if settings.teacher.parametrization == "ddpm":
            raise RactdError(f"{option}: {NO_STUDENT}")
        if self.student_network is not None:
            if self.student_network not in NAMED_NETWORKS:
                raise unknown("network of the student", self.student_network, NAMED_NETWORKS)
            asked["network"] = NAMED_NETWORKS[self.student_network]
        settled: Any = replace(settings, student=replace(settings.student, **asked))
        return settled  # type: ignore[no-any-return]


AnyTrain = Train[Any, str, str]
HELP = {"-h", "--help"}
KIND = ".kind"
ONE_DIRECTORY = """All goes to one run directory. The same command goes on where a stopped run ended, and shows the result of a
finished one."""
DEFAULT = "cpu"
"""The preset that each method has."""


def parse(words: Sequence[str]) -> AnyTrain:
    """Parse the words after `ractd train`: which method, preset and dataset they name decides about the options.

    Raises:
        RactdError: for an unknown method or preset, an option of another one, and a method that can't plan where data is a maze's.
    """
    method = method_named(_value("--method", words) or "ractd")
    named, dataset, env_id = _value("--preset", words), _dataset(words), _value("--env", words)
    if named is not None and named not in method.presets:
        raise unknown(f"preset of {method.name}", named, method.presets)
    # Help opens no dataset.
    no_dataset = dataset is None or HELP & set(words)
    preset = named or (DEFAULT if no_dataset else _preset_of(method, str(dataset), env_id))
    left, settings = _with_kinds(words, method.presets[preset])
    _check_options(left, method, preset, settings, None if named else dataset)
    train = _read(left, settings, method, named)
    if named is None and train.dataset != dataset:  # what looked like the dataset was the value of an option
        preset = _preset_of(method, train.dataset, train.env)
        train = _read(*_with_kinds(words, method.presets[preset]), method, named)
    return train


def _with_kinds(words: Sequence[str], settings: Any) -> tuple[list[str], Any]:
    """Take the kinds that words name into settings, as `--teacher.network.kind unet`, and return the other words."""
    others = []
    left = iter(words)
    for word in left:
        option, equals, value = word.partition("=")
        place = option.removeprefix("--").removesuffix(KIND).replace("-", "_")
        if not (option.startswith("--") and option.endswith(KIND)) or _has_field(settings, place, "kind"):
            others.append(word)
            continue
        try:
            settings = with_kind(settings, place, value if equals else next(left, ""))
        except RactdError as error:
            raise RactdError(f"{option}: {error}") from None
    return others, settings


def _has_field(settings: Any, place: str, name: str) -> bool:
    """Tell whether the settings at a place have a field of this name."""
    for part in place.split("."):
        settings = getattr(settings, part, None)
    return is_dataclass(settings) and name in {f.name for f in fields(settings)}


def _read(words: Sequence[str], settings: Any, method: Method, named: str | None) -> AnyTrain:
    kind: Any = Train[type(settings), _one_of(method.presets), _one_of(method.stages)]  # type: ignore[misc]
    description = f"Train {method.name}: {method.summary}. Source: {method.source}.\n\n{ONE_DIRECTORY}"
    default: AnyTrain = Train(tyro.MISSING, settings, method.name, named)
    command: AnyTrain = read(kind, "train", words, default=default, description=description)
    return command


def _one_of(names: Iterable[str]) -> Any:
    return Literal[tuple(names)] if names else None  # type: ignore[valid-type]


def _value(option: str, words: Sequence[str]) -> str | None:
    """Return the last value that an option of one word is given."""
    for before, word in reversed(list(pairwise(["", *words]))):
        if before == option or word.startswith(f"{option}="):
            return word.removeprefix(f"{option}=")
    return None


SWITCHES = re.compile(r"--plain|--report|.*(--|\.)no-.*|.*=.*|[^-].*|")
"""What no value follows, among words."""


def _dataset(words: Sequence[str]) -> str | None:
    """Return the first word that is neither an option nor the value of one."""
    pairs = pairwise(["", *words])
    return next((word for before, word in pairs if not word.startswith("-") and SWITCHES.fullmatch(before)), None)


OWN = {field.name for field in fields(Train)} | {"teacher", "no_plain", "no_report"}
"""Options that are no settings."""


def _check_options(words: Sequence[str], method: Method, preset: str, own: Any, dataset: str | None) -> None:
    """Raise `RactdError` for an option that other presets or methods have, and `own` settings, of a preset, haven't.

    `dataset` is what asked for the preset, if no word did.
    """
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        name = option.removeprefix("--").replace("-", "_")
        if name in OWN or _has(own, name):
            continue
        having = [other for other, settings in method.presets.items() if _has(settings, name)]
        if having:
            if dataset is not None:
                from ractd.data.registry import find_source

                find_source(dataset, download=False)
            whose = "" if dataset is None else f", which is the default for dataset {dataset!r},"
            raise RactdError(
                f"{option}: the preset {preset!r}{whose} has no such option; leave it out, or name a preset that has it, "
                f"as {', '.join(having)}"
            )
        having = [m for m in METHODS if any(_has(settings, name) for settings in method_named(m).presets.values())]
        if having:
            raise RactdError(
                f"{option} is no option of method {method.name!r}, but of {', '.join(having)}; leave it out"
            )


def _has(settings: Any, names: str) -> bool:
    """Tell whether settings have what an option names."""
    for name in names.split("."):
        name = name if hasattr(settings, name) else name.removeprefix("no_")
        if not hasattr(settings, name):
            return False
        settings = getattr(settings, name)
    return True


def _preset_of(method: Method, dataset: str, env_id: str | None) -> str:
    from ractd.data.registry import find_source
    from ractd.methods.presets import preset_for

    try:
        source = find_source(dataset, download=False)
    except RactdError:
        # Training looks for it again, and says what is wrong.
        return DEFAULT
    return preset_for(method, dataset, env_id or source.env_id, source.maze, source.where)


def settings_of(words: Sequence[str]) -> Any:
    """Return what `ractd` trains with, given the words of a 'train' command; raises `RactdError` for a setting out of its range."""
    settings = parse(words[1:]).settled()
    check(settings)
    return settings
