"""`ractd train`. Heavy imports wait until it runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro
from tyro.conf import AvoidSubcommands, FlagCreatePairsOff, Positional, arg

from ractd.commands.consoles import out, say
from ractd.commands.parsing import read
from ractd.errors import RactdError
from ractd.methods.ractd_settings import NETWORKS, PRESETS, Config
from ractd.registry import unknown
from ractd.settings import TerminalsMean, check

PresetName = Literal[
    "cpu",
    "demo",
    "mujoco",
    "maze2d-umaze",
    "maze2d-medium",
    "maze2d-large",
    "maze2d-umaze-cpu",
    "maze2d-medium-cpu",
    "maze2d-large-cpu",
]


@dataclass
class Train:
    """Train a policy: return model -> teacher -> student -> evaluation, in one run directory.

    The same command goes on where a stopped run ended, and shows the result of a finished one.
    """

    dataset: Positional[str]
    """A path (.hdf5 in D4RL's layout, .npz), a Minari id, a D4RL name, or a dataset that 'ractd data make' built."""
    config: Annotated[AvoidSubcommands[Config], arg(name="")]
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
    only: Literal["return", "dynamics", "teacher", "student"] | None = None
    """Train one stage only, with what the run already has; dynamics is a planner's."""
    teacher_from: Annotated[Path | None, arg(name="teacher")] = None
    """Run whose teacher and return model are used instead of training new ones, with their horizon, history, noise levels
    and networks."""
    reward_weight: float | Literal["auto"] | None = None
    """Short for --student.reward-weight."""
    student_network: Literal["cpu", "cpu-small", "mujoco", "maze2d-umaze", "maze2d-medium", "maze2d-large"] | None = (
        None
    )
    """Network of the student, where it is not to be its teacher's: those of the presets, or a smaller MLP."""
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
        from ractd.methods.ractd_resolve import NO_STUDENT
        from ractd.results.tables import result_table
        from ractd.runs.train import train

        student_options = {"--reward-weight": self.reward_weight, "--student-network": self.student_network}
        asked = [name for name, value in student_options.items() if value is not None]
        if asked and self.config.teacher.parametrization == "ddpm":
            raise RactdError(f"{asked[0]}: {NO_STUDENT}")
        import_environment(self.env)
        keep_freed_memory()
        result = train(
            self.dataset,
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
            kept = result.directory / "policy"
            policy = kept / ("student" if (kept / "student").is_dir() else "teacher")
            say(f"run: {result.directory}   policy: {policy}")
            if self.report:
                from ractd.report import report_of_run

                say(report_of_run(result.directory, out))
        elif self.only:
            out.print(f"the {self.only} is trained; 'ractd train' without --only does the rest", highlight=False)

    def settled(self) -> Config:
        """Return the configuration, with what the short options say."""
        student = self.config.student
        if self.reward_weight is not None:
            student = replace(student, reward_weight=self.reward_weight)
        if self.student_network is not None:
            student = replace(student, network=NETWORKS[self.student_network])
        return replace(self.config, student=student)


HELP = {"-h", "--help"}


def parse(words: Sequence[str]) -> Train:
    """Parse the words after `ractd train`; the options are those of the preset that is named, or that the dataset asks for."""
    named, dataset = _value("--preset", words), _dataset(words)
    if named is not None and named not in PRESETS:
        raise unknown("preset", named, PRESETS)
    # Help opens no dataset.
    no_dataset = dataset is None or HELP & set(words)
    preset = named or ("cpu" if no_dataset else _preset_of(str(dataset), _value("--env", words)))
    _check_options(words, preset, None if named else dataset)
    train = _read(words, preset, named)
    if named is None and train.dataset != dataset:  # what looked like the dataset was the value of an option
        train = _read(words, _preset_of(train.dataset, train.env), named)
    return train


def _read(words: Sequence[str], preset: str, named: str | None) -> Train:
    return read(Train, "train", words, default=Train(tyro.MISSING, PRESETS[preset], cast(PresetName | None, named)))


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


def _check_options(words: Sequence[str], preset: str, dataset: str | None) -> None:
    """Raise `RactdError` for an option that other presets have, and this one hasn't; `dataset` asked for it, if no word did."""
    for option in (word.partition("=")[0] for word in words if word.startswith("--") and "." in word):
        having = [name for name, config in PRESETS.items() if _has(config, option)]
        if preset in having or not having:
            continue
        if dataset is not None:
            from ractd.data.registry import find_source

            find_source(dataset, download=False)
        whose = "" if dataset is None else f", which is the default for dataset {dataset!r},"
        raise RactdError(
            f"{option}: the preset {preset!r}{whose} has no such option; leave it out, or name a preset that has it, "
            f"as {', '.join(having)}"
        )


def _has(config: Any, option: str) -> bool:
    """Tell whether a configuration has what an option names."""
    for name in option.removeprefix("--").replace("-", "_").split("."):
        name = name if hasattr(config, name) else name.removeprefix("no_")
        if not hasattr(config, name):
            return False
        config = getattr(config, name)
    return True


def _preset_of(dataset: str, env_id: str | None) -> str:
    from ractd.data.registry import find_source
    from ractd.training.presets import preset_for

    try:
        source = find_source(dataset, download=False)
        return preset_for(env_id or source.env_id, source.maze, source.where)
    except RactdError:
        # Training opens it again, and says what is wrong.
        return "cpu"


def settings_of(words: Sequence[str]) -> Config:
    """Return what `ractd` trains with, given the words of a 'train' command; raises `RactdError` for a setting out of its range."""
    settings = parse(words[1:]).settled()
    check(settings)
    return settings
