"""`ractd train`. Heavy imports wait until it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import AvoidSubcommands, FlagCreatePairsOff, Positional, arg

from ractd.config import NETWORKS, Config, TerminalsMean
from ractd.consoles import out
from ractd.errors import RactdError

_PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}

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
        from ractd.envs.modules import import_environment
        from ractd.memory import keep_freed_memory
        from ractd.training.pipeline import NO_STUDENT, train
        from ractd.training.result_tables import result_table

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
            out.print(f"run: {result.directory}   policy: {policy}", highlight=False, markup=False, soft_wrap=True)
            if self.report:
                from ractd.report import report_of_run

                out.print(report_of_run(result.directory, out), **_PLAIN)
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
