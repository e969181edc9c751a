"""The command line: what a user types, and how it is answered. Heavy imports wait until a command needs them."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro
from tyro.conf import AvoidSubcommands, FlagCreatePairsOff, Positional, arg

from ractd.config import NETWORKS, PRESETS, Config, check
from ractd.consoles import err, out
from ractd.data_commands import DataCommand
from ractd.errors import RactdError
from ractd.reproduce_command import Reproduce
from ractd.sweep_command import Sweep

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
    preset: PresetName = "cpu"
    """Where every setting below starts from. By default cpu, and for a maze the planner's of its size; those without 'cpu'
    in their names are the paper's networks, for GPUs."""
    out: Path | None = None
    """Run directory; by default runs/DATASET-sSEED."""
    env: str | None = None
    """Gymnasium environment to score in, where the data doesn't name one; module:Id-v0 imports a module of yours, from
    the working directory first."""
    env_steps: int | None = None
    """Steps after which its episodes are cut, where it has no limit or another."""
    no_env: Annotated[bool, FlagCreatePairsOff] = False
    """Score nothing, make no environment: estimates only."""
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
        from ractd.training.pipeline import NO_STUDENT, train
        from ractd.training.result_tables import result_table

        student_options = {"--reward-weight": self.reward_weight, "--student-network": self.student_network}
        asked = [name for name, value in student_options.items() if value is not None]
        if asked and self.config.teacher.parametrization == "ddpm":
            raise RactdError(f"{asked[0]}: {NO_STUDENT}")
        import_environment(self.env)
        result = train(
            self.dataset,
            out=self.out,
            config=self.settled(),
            env_id=self.env,
            env_steps=self.env_steps,
            simulate=not self.no_env,
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


@dataclass
class Eval:
    """Score a policy of a run in its environment, and keep the numbers in RUN/evaluations."""

    run_directory: Annotated[Positional[Path], arg(name="run", metavar="RUN")]
    """A run directory."""
    policy: str = "student"
    """Which of the run's policies: student, teacher, plain, ..."""
    episodes: int = 100
    """Episodes."""
    execute: Annotated[int | None, arg(aliases=["--replan"])] = None
    """Actions of each sequence that are executed before the next is sampled: by default 1, closed loop, and for a planner
    its whole plan, open loop."""
    candidates: int | None = None
    """Sequences drawn for each action, of which the return model's favourite is executed."""
    sampler: str | None = None
    """How it samples. A student: consistency (its default), jumps. A teacher: heun (its default), euler, euler-ancestral,
    dpmpp-2m, ddim. A DDPM teacher: ddpm (its default), ddim."""
    steps: int | None = None
    """Sampling steps: network evaluations of a student or a DDPM teacher; bins of a teacher's schedule."""
    env: str | None = None
    """Gymnasium environment, where the policy doesn't name one; module:Id-v0 imports a module of yours, which a policy's
    file alone never does."""
    env_steps: int | None = None
    """Steps after which its episodes are cut, where that is not the policy's own limit."""
    seed: int = 0
    """Seeds environments and noise."""

    def run(self) -> None:
        from ractd.envs.modules import import_environment
        from ractd.training.result_tables import evaluation_table
        from ractd.training.results import evaluate_policy

        import_environment(self.env)
        row = evaluate_policy(
            self.run_directory,
            self.policy,
            episodes=self.episodes,
            execute=self.execute,
            candidates=self.candidates,
            sampler=self.sampler,
            steps=self.steps,
            env_id=self.env,
            env_steps=self.env_steps,
            seed=self.seed,
            console=out,
        )
        out.print(evaluation_table(row))


@dataclass
class Report:
    """Show a run, or several side by side, as one HTML file that works offline; the plots also become PNG files.

    An unfinished or broken run is shown as far as it goes. Needs the extra 'report': pip install "ractd[report]".
    """

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN...")]
    """Run directories."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE.html")] = None
    """The page; by default RUN/report.html, for several runs report.html. The PNG files go to the folder of that name."""
    video: bool = True
    """Play a few episodes and film the best and the worst."""

    def run(self) -> None:
        from ractd.report import write_report

        written = write_report(self.runs, self.out, video=self.video, console=out)
        for what in written.missing:
            out.print(f"not shown: {what}", **_PLAIN)
        out.print(
            f"wrote {written.page} and {len(written.pictures)} pictures in {written.page.with_suffix('')}", **_PLAIN
        )


@dataclass
class Export:
    """Write a policy as one graph that runs without PyTorch, with its contract, verified before it appears.

    Open it with ractd_runtime.Policy.load(DIR). Needs the extra 'export': pip install "ractd[export]".
    """

    source: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run or policy directory."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="DIR")]
    """Directory of the graph and its policy.json."""
    format: Literal["onnx", "openvino", "pt2"] = "onnx"
    """ONNX Runtime (fastest for MLPs), OpenVINO (fastest for U-Nets on CPUs), or torch.export's archive for C++."""
    sampler: str | None = None
    """Way of sampling, of those that 'ractd eval' knows; by default the policy's own."""
    steps: int | None = None
    """Sampling steps: 1 is one network evaluation for a student."""
    candidates: int | None = None
    """Sequences drawn for each observation, of which the return model's favourite is given."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Of the weights: fp16 halves the file, int8 is faster for MLPs; both change the actions a little."""
    policy: str | None = None
    """Which of the run's policies, by default its student."""
    check_episodes: int = 0
    """Also score PyTorch and the graph for so many episodes."""
    dataset: str | None = None
    """The data that the policy was trained on, where it is not where it was."""

    def run(self) -> None:
        from ractd.export import export_policy
        from ractd.export.report import summary

        exported = export_policy(
            self.source,
            self.out,
            policy=self.policy,
            format=self.format,
            precision=self.precision,
            sampler=self.sampler,
            steps=self.steps,
            candidates=self.candidates,
            dataset=self.dataset,
            check_episodes=self.check_episodes,
            console=out,
        )
        out.print(summary(exported), highlight=False, markup=False, soft_wrap=True)


@dataclass
class Serve:
    """Serve a policy over WebSocket to clients that speak openpi-client's protocol; logs JSON lines.

    Also answers /healthz, /readyz, /metrics and /contract. SIGHUP opens the policy anew, SIGTERM answers what was asked
    and stops. Needs the extra 'serve': pip install "ractd[serve]".
    """

    policy: Annotated[Positional[Path], arg(metavar="DIR")]
    """An exported policy; with --torch a run, or one of its policies."""
    torch: bool = False
    """Serve a run's policy with PyTorch."""
    device: str | None = None
    """Where PyTorch computes: cpu (the default), cuda, cuda:1, ..."""
    host: str = "127.0.0.1"
    """Address to listen on; others than this machine's loopback want a key and TLS."""
    port: int = 8000
    """Port to listen on; 0 takes a free one, which the log names."""
    api_key_file: Path | None = None
    """File with the key that clients have to send."""
    tls_cert: Path | None = None
    """Certificate chain (PEM)."""
    tls_key: Path | None = None
    """Its private key (PEM)."""
    seed: int = 0
    """With a client's number it seeds that client's noise."""
    batch_wait_ms: float = 1.0
    """Longest time that a request waits for others to join its batch, in milliseconds."""
    max_batch: int = 64
    """Most requests of a batch."""
    max_message_bytes: int = 2**20
    """Largest request."""
    max_connections: int = 512
    """Most clients at a time."""
    idle_seconds: float = 600.0
    """Time without a request after which a client is disconnected."""

    def run(self) -> None:
        from ractd.serve import serve
        from ractd.serve.settings import Settings, read_api_key, tls_context

        if self.device and not self.torch:
            raise RactdError("--device is for --torch; an exported policy runs on the processor")
        settings = Settings(
            host=self.host,
            port=self.port,
            api_key=read_api_key(self.api_key_file) if self.api_key_file else None,
            tls=tls_context(self.tls_cert, self.tls_key),
            seed=self.seed,
            batch_wait=self.batch_wait_ms / 1e3,
            largest_batch=self.max_batch,
            message_bytes=self.max_message_bytes,
            connections=self.max_connections,
            idle_seconds=self.idle_seconds,
        )
        serve(self.policy, settings, device=(self.device or "cpu") if self.torch else None)


def parse(arguments: Sequence[str]) -> Train | Sweep | Reproduce | Eval | Report | Export | Serve | DataCommand:
    """Parse a command line; the defaults of `train` are those of the preset that it names, or that its maze asks for."""
    preset = _preset(arguments)
    arguments, train_options = _of_trainings(arguments)
    commands = (
        Annotated[Train, tyro.conf.subcommand("train", default=Train(tyro.MISSING, PRESETS[preset], preset))]
        | Annotated[Sweep, tyro.conf.subcommand("sweep")]
        | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
        | Annotated[Eval, tyro.conf.subcommand("eval")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Serve, tyro.conf.subcommand("serve")]
        | Annotated[DataCommand, tyro.conf.subcommand("data")]
    )
    command = tyro.cli(
        commands,  # type: ignore[arg-type]
        prog="ractd",
        description="From a logged dataset to a policy that acts in one network evaluation (RACTD).",
        args=list(arguments),
    )
    return replace(command, train_options=train_options) if isinstance(command, Sweep | Reproduce) else command


def settings_of(command: Sequence[str]) -> Config:
    """Return what a 'ractd train' command trains with; raises `RactdError` for a setting out of its range."""
    train = parse(command)
    assert isinstance(train, Train), command
    settings = train.settled()
    check(settings)
    return settings


def _of_trainings(arguments: Sequence[str]) -> tuple[Sequence[str], tuple[str, ...]]:
    """Split the own arguments of a command that trains from those after '--', which are its trainings'."""
    if arguments[:1] not in (["sweep"], ["reproduce"]) or "--" not in arguments:
        return arguments, ()
    at = list(arguments).index("--")
    return arguments[:at], tuple(arguments[at + 1 :])


def _preset(arguments: Sequence[str]) -> PresetName:
    for i, word in enumerate(arguments):
        name = word.partition("=")[2] if word.startswith("--preset=") else (arguments[i + 1 : i + 2] or [""])[0]
        if word.startswith("--preset") and name in PRESETS:
            return cast(PresetName, name)
    if arguments[:1] == ["train"]:
        from ractd.data.maze import planner_preset

        names = [word for word in arguments[1:] if not word.startswith("-")]
        return cast(PresetName, next(filter(None, map(planner_preset, names)), "cpu"))
    return "cpu"


def main() -> None:
    """Run the command line: exit code 0, 2 for bad input, 130 after Ctrl-C."""
    arguments = sys.argv[1:]
    try:
        parse(arguments or ["--help"]).run()
    except RactdError as error:
        err.print("[bold red]error:[/] ", end="")
        err.print(str(error), **_PLAIN)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        goes_on = arguments[:1] in (["train"], ["sweep"], ["reproduce"])
        how = f"; go on from the last checkpoint with: ractd {shlex.join(arguments)}" if goes_on else ""
        err.print(f"stopped{how}", **_PLAIN)
        raise SystemExit(130) from None
    except OSError as error:
        if errno.errorcode.get(error.errno or 0) not in ("ENOSPC", "EDQUOT", "EROFS", "EACCES"):
            raise
        err.print("[bold red]error:[/] ", end="")
        err.print(f"{error.filename or 'a file'}: could not be written ({error.strerror})", **_PLAIN)
        raise SystemExit(2) from None
    except Exception as error:
        if type(error).__name__ != "Interrupted":
            raise
        err.print(f"stopped and saved; go on with: ractd {shlex.join(arguments)}", **_PLAIN)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
