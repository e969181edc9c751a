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
from rich.console import Console
from rich.progress import Progress, TaskID
from tyro.conf import AvoidSubcommands, Positional, arg

from ractd.config import NETWORKS, PRESETS, Config
from ractd.errors import RactdError

out = Console()
err = Console(stderr=True)
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
    """Gymnasium environment to score in, where the data doesn't name one."""
    only: Literal["return", "dynamics", "teacher", "student"] | None = None
    """Train one stage only, with what the run already has; dynamics is a planner's."""
    teacher_from: Annotated[Path | None, arg(name="teacher")] = None
    """Run whose teacher and return model are used instead of training new ones."""
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

    def run(self) -> None:
        from ractd.training.pipeline import NO_STUDENT, train
        from ractd.training.results import result_table

        config = self.config
        student_options = {"--reward-weight": self.reward_weight, "--student-network": self.student_network}
        asked = [name for name, value in student_options.items() if value is not None]
        if asked and config.teacher.parametrization == "ddpm":
            raise RactdError(f"{asked[0]}: {NO_STUDENT}")
        if self.reward_weight is not None:
            config = replace(config, student=replace(config.student, reward_weight=self.reward_weight))
        if self.student_network is not None:
            config = replace(config, student=replace(config.student, network=NETWORKS[self.student_network]))
        result = train(
            self.dataset,
            out=self.out,
            config=config,
            env_id=self.env,
            only=self.only,
            teacher=self.teacher_from,
            plain=self.plain,
            checkpoint_seconds=self.checkpoint_seconds,
            console=out,
        )
        if result.content:
            out.print(result_table(result))
            kept = result.directory / "policy"
            policy = kept / ("student" if (kept / "student").is_dir() else "teacher")
            out.print(f"run: {result.directory}   policy: {policy}", highlight=False, markup=False, soft_wrap=True)
        elif self.only:
            out.print(f"the {self.only} is trained; 'ractd train' without --only does the rest", highlight=False)


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
    """Gymnasium environment, where the policy doesn't name one."""
    seed: int = 0
    """Seeds environments and noise."""

    def run(self) -> None:
        from ractd.training.results import evaluate_policy, evaluation_table

        row = evaluate_policy(
            self.run_directory,
            self.policy,
            episodes=self.episodes,
            execute=self.execute,
            candidates=self.candidates,
            sampler=self.sampler,
            steps=self.steps,
            env_id=self.env,
            seed=self.seed,
            console=out,
        )
        out.print(evaluation_table(row))


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
class DataList:
    """List the datasets that can be named: built here, downloaded, local, and known."""

    def run(self) -> None:
        from ractd.data.tables import datasets_table

        out.print(datasets_table())


@dataclass
class DataInspect:
    """Show what a dataset holds: sizes, returns, episode lengths, ranges, fingerprint."""

    dataset: Positional[str]
    """A dataset, as for 'ractd train'."""
    env: str | None = None
    """Gymnasium environment, where the data doesn't name one."""

    def run(self) -> None:
        from ractd.data import load_dataset
        from ractd.data.tables import summary_table

        out.print(summary_table(load_dataset(self.dataset, env_id=self.env)))


@dataclass
class DataValidate:
    """Look for everything that would spoil training; exit code 2 if there is an error."""

    dataset: Positional[str]
    """A dataset, as for 'ractd train'."""
    env: str | None = None
    """Gymnasium environment whose spaces the data has to fit, where the data doesn't name one."""

    def run(self) -> None:
        from ractd.data import validate

        findings = validate(self.dataset, env_id=self.env)
        for finding in findings:
            color = "red" if finding.level == "error" else "yellow"
            out.print(f"[{color}]{finding.level}:[/] ", end="")
            out.print(finding.message, markup=False, highlight=False, soft_wrap=True)
        errors = sum(finding.level == "error" for finding in findings)
        out.print(
            f"{self.dataset}: {errors} errors, {len(findings) - errors} warnings",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        if errors:
            raise SystemExit(2)


@dataclass
class DataMake:
    """Build a dataset on this machine by rolling out behaviour policies that ship with ractd."""

    name: Positional[str]
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
        from ractd.data.tables import make_with_progress

        make_with_progress(self.name, self.steps, self.seed, self.directory, self.overwrite, out, self.maze)


@dataclass
class DataCollect:
    """Train SAC in an environment and write medium, medium-replay, medium-expert and expert datasets (D4RL's recipe).

    Needs the extra 'collect': pip install "ractd[collect]".
    """

    env: Positional[str]
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
        from ractd.data.collect import collect

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
            out.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)


Data = (
    Annotated[DataList, tyro.conf.subcommand("list")]
    | Annotated[DataInspect, tyro.conf.subcommand("inspect")]
    | Annotated[DataValidate, tyro.conf.subcommand("validate")]
    | Annotated[DataMake, tyro.conf.subcommand("make")]
    | Annotated[DataCollect, tyro.conf.subcommand("collect")]
)


@dataclass
class DataCommand:
    """Datasets: list, inspect, validate, make, collect."""

    command: Annotated[Data, arg(name="")]

    def run(self) -> None:
        self.command.run()


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
    device: str = "cpu"
    """Where PyTorch computes: cpu, cuda, cuda:1, ..."""
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
        serve(self.policy, settings, device=self.device if self.torch else None)


def parse(arguments: Sequence[str]) -> Train | Eval | Export | Serve | DataCommand:
    """Parse a command line; the defaults of `train` are those of the preset that it names, or that its maze asks for."""
    preset = _preset(arguments)
    commands = (
        Annotated[Train, tyro.conf.subcommand("train", default=Train(tyro.MISSING, PRESETS[preset], preset))]
        | Annotated[Eval, tyro.conf.subcommand("eval")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Serve, tyro.conf.subcommand("serve")]
        | Annotated[DataCommand, tyro.conf.subcommand("data")]
    )
    return tyro.cli(
        commands,  # type: ignore[arg-type]
        prog="ractd",
        description="From a logged dataset to a policy that acts in one network evaluation (RACTD).",
        args=list(arguments),
    )


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
        err.print(f"stopped; go on from the last checkpoint with: ractd {shlex.join(arguments)}", **_PLAIN)
        raise SystemExit(130) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
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
