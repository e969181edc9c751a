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
from tyro.conf import Positional, arg

from ractd.config import PRESETS, Config, check
from ractd.consoles import err, out
from ractd.data_commands import DataCommand
from ractd.errors import RactdError
from ractd.reproduce_command import Reproduce
from ractd.sweep_command import Sweep
from ractd.train_command import PresetName, Train

_PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}


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


Command = Train | Sweep | Reproduce | Eval | Report | Export | Serve | DataCommand
HELP = ("-h", "--help")


def parse(arguments: Sequence[str]) -> Command:
    """Parse a command line; the defaults of `train` are those of the preset that it names, or that its dataset asks for."""
    if arguments[:1] == ["train"]:
        return _parse_train(arguments)
    arguments, train_options = _of_trainings(arguments)
    command = _tyro(arguments, "cpu")
    return replace(command, train_options=train_options) if isinstance(command, Sweep | Reproduce) else command


def _tyro(arguments: Sequence[str], preset: str, named: str | None = None, quiet: bool = False) -> Command:
    """Parse with a preset's defaults and options; `named` is the preset where it was asked for."""
    train = Train(tyro.MISSING, PRESETS[preset], cast(PresetName | None, named))
    commands = (
        Annotated[Train, tyro.conf.subcommand("train", default=train)]
        | Annotated[Sweep, tyro.conf.subcommand("sweep")]
        | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
        | Annotated[Eval, tyro.conf.subcommand("eval")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Serve, tyro.conf.subcommand("serve")]
        | Annotated[DataCommand, tyro.conf.subcommand("data")]
    )
    command: Command = tyro.cli(
        commands,  # type: ignore[arg-type]
        prog="ractd",
        description="From a logged dataset to a policy that acts in one network evaluation (RACTD).",
        args=list(arguments),
        console_outputs=not quiet,
    )
    return command


def _parse_train(arguments: Sequence[str]) -> Command:
    """Parse `train`: which dataset and preset are meant decides about the options, and so is found out first."""
    words = [word for word in arguments if word not in HELP]
    if len(words) < len(arguments):
        # Help is the named preset's, and opens no dataset.
        asked = _asked(words) or _asked([*words, "DATASET"])
        named = asked.preset if asked else None
        return _tyro(arguments, named or "cpu", named)
    asked = _asked(words)
    if asked is None:
        return _tyro(words, "cpu")
    preset = asked.preset or _preset_of(asked.dataset, asked.env)
    try:
        return _tyro(words, preset, asked.preset, quiet=True)
    except SystemExit:
        pass
    if asked.preset is None:
        from ractd.data.registry import find_source

        find_source(asked.dataset, download=False)
    options = [word.partition("=")[0] for word in words if word.startswith("--") and "." in word]
    option = next(option for option in options if not _has(PRESETS[preset], option))
    whose = "" if asked.preset else f", which is the default for dataset {asked.dataset!r},"
    others = ", ".join(name for name in OPTIONS_OF.values() if _known(words, name))
    raise RactdError(
        f"{option}: the preset {preset!r}{whose} has no such option; leave it out, or name a preset that has it, as {others}"
    )


def _has(config: Any, option: str) -> bool:
    """Tell whether a configuration has what an option names."""
    for name in option.removeprefix("--").replace("-", "_").split("."):
        name = name if hasattr(config, name) else name.removeprefix("no_")
        if not hasattr(config, name):
            return False
        config = getattr(config, name)
    return True


OPTIONS_OF = {(config.plan is None, type(config.teacher.network)): name for name, config in reversed(PRESETS.items())}
"""One preset for each set of options that there is: a planner has more, and networks have their own."""


def _known(words: Sequence[str], preset: str) -> Train | None:
    """Parse with a preset's options, None where they are not all known."""
    try:
        return cast(Train, _tyro(words, preset, quiet=True))
    except SystemExit:
        return None


def _asked(words: Sequence[str]) -> Train | None:
    """Parse with the options of whichever preset knows them all."""
    return next(filter(None, (_known(words, preset) for preset in reversed(OPTIONS_OF.values()))), None)


def _preset_of(dataset: str, env_id: str | None) -> str:
    from ractd.data.maze import map_of, preset_for
    from ractd.data.registry import find_source

    try:
        source = find_source(dataset, download=False)
        return preset_for(env_id or source.env_id, source.maze, map_of(source.where))
    except RactdError:
        # Training opens it again, and says what is wrong.
        return "cpu"


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


UNUSABLE_PATHS = {
    "ENOSPC": "could not be written, the disk is full; make room and run the same command again",
    "EDQUOT": "could not be written, your share of the disk is used up; make room and run the same command again",
    "EROFS": "could not be written, the disk is read-only; name a place on another",
    "EACCES": "this user may not read or write there; change its permissions, or name another place",
    "ENAMETOOLONG": "the name is too long for the file system; use a shorter one",
    "ENOTDIR": "a part of this path is a file and no folder; name another place",
    "EISDIR": "is a folder, expected a file; name another",
    "ELOOP": "its links lead in a circle; name another place",
}
"""What the system says about a path that was given, wherever that comes up."""


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
        why = UNUSABLE_PATHS.get(errno.errorcode.get(error.errno or 0, ""))
        if why is None:
            raise
        err.print("[bold red]error:[/] ", end="")
        err.print(f"{error.filename or 'a file'}: {why}", **_PLAIN)
        raise SystemExit(2) from None
    except Exception as error:
        if type(error).__name__ != "Interrupted":
            raise
        err.print(f"stopped and saved; go on with: ractd {shlex.join(arguments)}", **_PLAIN)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
