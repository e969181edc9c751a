"""`ractd train`. Heavy imports wait until it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import tyro
from tyro.conf import AvoidSubcommands, FlagCreatePairsOff, Positional, arg

from ractd.commands.consoles import out, say
from ractd.commands.parsing import Shows, read
from ractd.commands.train_options import (
    check_options,
    dataset_in,
    method_in,
    places_in,
    preset_in,
    spelt,
    value_in,
    with_kinds,
)
from ractd.errors import RactdError
from ractd.methods import METHODS, Method
from ractd.methods.places import KIND, check_read, has, places, unread
from ractd.registry import unknown
from ractd.settings import TerminalsMean, check

S = TypeVar("S")
PresetName = TypeVar("PresetName", bound=str)
StageName = TypeVar("StageName", bound=str)


@dataclass
class Train(Generic[S, PresetName, StageName]):
    """`ractd train` with a method's settings, and the names of its presets and stages."""

    dataset: Annotated[Positional[str], arg(metavar="DATASET")]
    """A path (.hdf5 in D4RL's layout, .npz), a Minari id, a D4RL name, or a dataset that 'ractd data make' built."""
    config: Annotated[AvoidSubcommands[S], arg(name="")]
    method: Annotated[str, arg(metavar=f"{{{','.join(METHODS)}}}")] = "ractd"
    """What is trained. Each has options of its own: 'ractd train --method bc --help'."""
    preset: PresetName | None = None
    """Where every setting below starts from; by default the method's own. RACTD's is following; it is cpu for data without rewards
    or with a given teacher, and for a maze the planner of its size. mujoco and maze2d-... without 'cpu' are the paper's networks,
    for GPUs."""
    out: Path | None = None
    """Run directory; by default runs/DATASET-sSEED."""
    env: str | None = None
    """Gymnasium environment to score in, where the data doesn't name one; module:Id-v0 imports a module of yours, from
    the working directory first."""
    env_steps: int | None = None
    """Cut episodes after so many steps, where the environment has no limit or another."""
    no_env: Annotated[bool, FlagCreatePairsOff] = False
    """Score nothing, make no environment: estimates only."""
    ends: TerminalsMean | None = None
    """What the data's terminals are, where no success flags say it: failures or successes. By default the environment
    says it, or the data are judged."""
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
    """Where there is a teacher, also distil a student without reward, to compare with."""
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
        from ractd.runs.tables import table_of
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
            out.print(table_of(result))
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
OWN = {field.name for field in fields(Train)} | {"teacher"}
"""Options that are no settings."""
RARE = {"env_steps", "accept", "only", "student_network", "plain", "checkpoint_seconds"}
"""Those of them that help leaves out at first."""
OF_STUDENTS = {"teacher_from", "reward_weight", "student_network", "plain"}
"""Those of them that a method without a teacher hasn't."""
MAIN_SETTINGS = {"horizon", "history", "action_range", "seed", "evaluation.episodes", "evaluation.select"}
"""Places of settings of every method that help shows at first."""
ABOUT = """All goes to one run directory. The same command goes on where a stopped run ended, and shows the result of a
finished one."""


def parse(words: Sequence[str]) -> AnyTrain:
    """Parse the words after `ractd train`: which method, preset and dataset they name decides about the options.

    Raises:
        RactdError: for an unknown method or preset, an option of another one, and a method that can't plan where data is a maze's.
    """
    dataset = dataset_in(words, method_in(words))
    train = _parse(words, dataset)
    # What looked like the dataset may have been the value of an option.
    return train if train.dataset == dataset else _parse(words, train.dataset)


def _parse(words: Sequence[str], dataset: str | None) -> AnyTrain:
    method = method_in(words)
    preset = preset_in(words, method, dataset)
    left, settings = with_kinds(words, method.presets[preset])
    check_options(left, dataset, method, preset, settings, OWN)
    about = f"Train {method.name}: {method.summary}. Source: {method.source}.\n\n{ABOUT}"
    if "--help-all" in words:
        kinds = ", ".join(
            spelt(place) for place in places(settings) if place.endswith(KIND) and not has(settings, place)
        )
        about += f"\n\nAnother kind of a part, which brings its own options: {kinds}."
        refused: dict[str, list[str]] = {}
        for place, why in settings.idle(spelt):
            refused.setdefault(why, []).append(spelt(place))
        about += "".join(f"\n\nRefused here: {', '.join(of)} ({why})." for why, of in refused.items())
    kind, default = of_method(method, settings, value_in(words, "--preset"))
    command: AnyTrain = read(kind, "train", left, default=default, about=about, shows=_shows(method, settings))
    check_read(places_in(left), command.config, spelt)
    return command


def of_method(method: Method, settings: Any, preset: str | None = None) -> tuple[Any, AnyTrain]:
    """Return the class of the commands that train a method, and the one that words are read over."""
    kind: Any = Train[type(settings), _one_of(method.presets), _one_of(method.stages)]  # type: ignore[misc]
    return kind, Train(tyro.MISSING, settings, method.name, preset)


def _shows(method: Method, settings: Any) -> Shows:
    """Return which options the help of a method shows: at first none that nothing reads."""
    mine = {place for place in (*MAIN_SETTINGS, *method.main_settings) if not unread(place, settings, spelt)}

    def shows(place: str) -> bool | None:
        if (place in OF_STUDENTS and not method.reuses_teacher) or (place == "only" and not method.stages):
            return None
        if place in OWN:
            return place not in RARE
        return place in mine or not method.main_settings

    return shows


def _one_of(names: Iterable[str]) -> Any:
    return Literal[tuple(names)] if names else None  # type: ignore[valid-type]


def settings_of(words: Sequence[str]) -> Any:
    """Return what `ractd` trains with, given the words of a 'train' command; raises `RactdError` for a setting out of its range."""
    settings = parse(words[1:]).settled()
    check(settings)
    return settings
