"""What `gpu.py` measures but for actions (`gpu_action.py`), section by section; each keeps its numbers as soon as it has them."""

from __future__ import annotations

import platform
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from common import summary
from rich.console import Console
from training import Contender, contenders

from ractd.critics import Critic
from ractd.data import OfflineDataset
from ractd.envs.environments import environments_of
from ractd.methods.ractd import METHOD, network_of, train_student, train_teacher
from ractd.methods.ractd_policies import student_policy, teacher_policy
from ractd.methods.ractd_resolve import resolve
from ractd.methods.ractd_settings import PRESETS, Config
from ractd.networks.tensors import load_weights, read_tensors, unprefixed
from ractd.networks.unet import UNet
from ractd.policies import Policy
from ractd.runs.scoring import row_of, score
from ractd.runs.train import prepare
from ractd.settings import Optimization, Precision
from ractd.stopping import Interrupted
from ractd.training.critic import train_critic
from ractd.training.log import Log
from ractd.training.loop import run_stage
from ractd.training.metrics import Metrics
from ractd.training.numbers import in_bf16
from ractd.training.run import Asked, Run

PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32")
"""First the one that the policy is trained in."""
STAGES = ("return", "teacher", "student")
WINDOW = 10
"""Training steps between two times, at each of which the device is waited for."""
FEWEST_WINDOWS = 3
"""Besides the first, which pays for what only first steps do."""
SCORING, RETURNS, TEACHER = 0.2, 0.08, 0.45
"""Of the policy's time: scores after training; of the rest: return model and teacher, the student has what is left."""
PROMISED, PROMISED_STUDENT = 0.85, 0.65
"""Share of the steps that the measured speed promises: checkpoints are written, students are looked at and played, too."""
FEWEST_STEPS = 20
TEACHER_BINS = 8
"""Of the teacher that is played: 80 bins take minutes for 100 episodes."""
ROOM = 40e9
"""Bytes that checkpoints may need: four copies of 248 million weights a stage, and the best ones."""

Keep = Callable[[str, Any], None]


class OutOfTime(BaseException):
    """A section has used its time; no `Exception`, so that no library takes it for a failure of its own."""


class Enough(Exception):
    """A stage was timed for long enough; it is left without its checkpoint, which takes seconds to write at this size."""


@dataclass(frozen=True)
class Work:
    """What the sections share."""

    device: str
    tiny: bool
    data: OfflineDataset
    config: Config
    result: dict[str, Any]
    """What earlier sections found."""

    @property
    def patience(self) -> float:
        """How many times its seconds a section may take before it is cut: a trial is to end, not to be in time."""
        return 20.0 if self.tiny else 1.0


class Section(Protocol):
    """Measures for about so many seconds; `keep(name, value)` writes a number to the file."""

    def __call__(self, work: Work, keep: Keep, seconds: float, /) -> None: ...


def configuration(data: OfflineDataset, tiny: bool) -> Config:
    """The paper's U-Net and settings (Table 7), or what a CPU can try in seconds."""
    config = PRESETS["mujoco"]
    if tiny:
        small = Optimization(steps=200, batch_size=16)
        config = replace(
            config,
            diffusion=replace(config.diffusion, bins=TEACHER_BINS + 2),
            return_model=replace(config.return_model, optimization=small),
            teacher=replace(config.teacher, network=UNet(down_dims=(16, 32), embed_dim=16), optimization=small),
            student=replace(config.student, optimization=small),
            evaluation=replace(config.evaluation, episodes=2),
        )
    checkpoints, episodes = (1, 2) if tiny else (3, 20)
    evaluation = replace(config.evaluation, select="online", checkpoints=checkpoints, checkpoint_episodes=episodes)
    return resolve(replace(config, evaluation=evaluation), data, Asked())


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in what still runs after so many seconds."""

    def ring(number: int, frame: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    # Once more every second: an exception is lost where it is raised in a finaliser.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 1.0)
    try:
        yield
    finally:
        armed = True
        while armed:
            with suppress(OutOfTime):  # it may ring once more right here
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
                armed = False


def sentence(error: Exception) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, Interrupted):
        return f"training of the {error} was not finished in time"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"


def attempt(keep: Keep, name: str, measure: Callable[[], Any]) -> None:
    """Keep what is measured, or one sentence about why it can't be."""
    try:
        keep(name, measure())
    except Exception as error:
        keep(name, {"failed": sentence(error)})


class Memory:
    """Bytes that tensors on the device have at most from here on; None on a CPU."""

    def __init__(self, work: Work) -> None:
        self.cuda = work.device != "cpu"
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated() if self.cuda else None

    def peak(self) -> dict[str, int | None]:
        """What was there before, and the most since then."""
        most = torch.cuda.max_memory_allocated() if self.cuda else None
        return {"memory_before_bytes": self.before, "memory_peak_bytes": most}


def card(work: Work, keep: Keep, seconds: float) -> None:
    """Name, memory, driver and versions, and what float32 means there."""
    keep("torch", torch.__version__)
    keep("threads", torch.get_num_threads())
    keep("float32_matmul_precision", torch.get_float32_matmul_precision())
    if work.device == "cpu":
        keep("name", f"CPU: {platform.machine()}")
        return
    properties = torch.cuda.get_device_properties(0)
    keep("name", properties.name)
    keep("memory_bytes", properties.total_memory)
    keep("multiprocessors", properties.multi_processor_count)
    keep("cuda", torch.version.cuda)
    keep("cudnn", torch.backends.cudnn.version())
    keep("tf32", {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32})
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    attempt(keep, "driver", lambda: subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0])


def training(work: Work, keep: Keep, seconds: float) -> None:
    """Samples/s of each stage in the loop that trains it, without hooks, in each precision."""
    used = Accelerator(cpu=work.device == "cpu")
    stages = contenders(work.config, work.data, used)
    of_each = 0.6 * seconds / (len(stages) * len(PRECISIONS))
    for precision in PRECISIONS:
        for name, stage in stages.items():
            attempt(keep, f"{name}, {precision}", partial(speed, work, stage, used, precision, of_each))


def speed(work: Work, contender: Contender, used: Accelerator, precision: Precision, seconds: float) -> dict[str, Any]:
    """Train for about so many seconds, with a time every few steps, and leave no checkpoint."""
    memory, rates, stop = Memory(work), [], time.monotonic() + seconds

    def look(step: int, logged: dict[str, float]) -> dict[str, float]:
        # run_stage has just copied the losses from the device, so that all steps are done.
        rates.append(logged["samples_per_second"])
        if len(rates) > FEWEST_WINDOWS and time.monotonic() > stop:
            raise Enough
        return {}

    steps, batch = contender.optimization.steps, contender.optimization.batch_size
    try:
        with tempfile.TemporaryDirectory() as directory, suppress(Enough):
            stage = contender.stage(steps, Path(directory))
            stage.bf16 = precision == "bf16"
            stage.milestones = frozenset(range(WINDOW, steps, WINDOW))
            stage.hooks.append(look)
            run_stage(stage, used, Metrics(None))
    finally:
        used.free_memory()
    peak = memory.peak()
    rate = statistics.median(rates[1:])
    return {
        "parameters": contender.parameters,
        "batch_size": batch,
        "samples_per_second": summary(rates[1:]),
        "first_samples_per_second": rates[0],
        "ms_per_step": 1e3 * batch / rate,
        "flops_per_step": contender.flops,
        "tflops_per_second": 1e-12 * contender.flops * rate / batch,
        **peak,
    }


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for checkpoints, in memory where there is room: they are gigabytes, and time is short."""
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and shutil.disk_usage(shared).free > ROOM
    with tempfile.TemporaryDirectory(dir=shared if roomy else None) as directory:
        yield Path(directory)


def policy(work: Work, keep: Keep, seconds: float) -> None:
    """Train return model, teacher and student for as many steps as the time holds, and score them."""
    began, training_seconds = time.monotonic(), (1 - SCORING) * seconds
    trained_by, cut = began + training_seconds, began + work.patience * training_seconds
    used = Accelerator(cpu=work.device == "cpu")
    precision = "bf16" if in_bf16(work.config.precision, used.device) else "fp32"  # what `ractd train` takes
    config, rates = work.config, steps_per_second(work, precision)
    silent = Log(Console(quiet=True), None)

    def holding(optimization: Optimization, stage: str, seconds: float) -> Optimization:
        return replace(optimization, steps=max(FEWEST_STEPS, int(rates[stage] * seconds)))

    with scratch() as directory:
        returns = holding(config.return_model.optimization, "return", PROMISED * RETURNS * training_seconds)
        teaching = holding(config.teacher.optimization, "teacher", PROMISED * TEACHER * training_seconds)
        config = replace(
            config,
            return_model=replace(config.return_model, optimization=returns),
            teacher=replace(config.teacher, optimization=teaching),
        )
        keep("precision", precision)
        keep("seed", config.seed)
        keep("steps", {"return": returns.steps, "teacher": teaching.steps})
        memory = Memory(work)
        run = prepare(
            METHOD, config, work.data, directory, used, Metrics(None), silent, 1e9, lambda: time.monotonic() > cut
        )
        critic = train_critic(run)
        teacher = train_teacher(run, critic)
        left = PROMISED_STUDENT * (trained_by - time.monotonic())
        learning = replace(config.student, optimization=holding(config.student.optimization, "student", left))
        steps = {"return": returns.steps, "teacher": teaching.steps, "student": learning.optimization.steps}
        keep("steps", steps)
        keep("reward_weight", learning.reward_weight)
        with suppress(Interrupted):  # its last checkpoint is scored
            run.config = replace(config, student=learning)
            train_student(run, "student", learning.reward_weight, teacher, critic)
        keep("memory", memory.peak())
        keep("protocol", protocol(run))
        attempt(keep, "student, last checkpoint", lambda: scored(run, "student", student_of(run, critic, "last")))
        attempt(keep, "student, best checkpoint", lambda: scored(run, "student", student_of(run, critic, "best")))
        few = teacher_policy(run, teacher, critic, {}).configured(steps=TEACHER_BINS)
        attempt(keep, f"teacher, {TEACHER_BINS} bins", lambda: scored(run, "teacher", few))


def protocol(run: Run) -> dict[str, Any]:
    """How the scores were made."""
    return {
        **asdict(run.config.evaluation),
        "environment": run.dataset.env_id,
        "dataset": run.dataset.name,
        "seeds": "those of final evaluations; training played others",
    }


def steps_per_second(work: Work, precision: str) -> dict[str, float]:
    """The speed of each stage, in another precision where this one's is not known; raises RuntimeError where none is."""
    measured, rates = work.result.get("training", {}), {}
    for stage in STAGES:
        rows = [measured.get(f"{stage}, {name}", {}) for name in (precision, *PRECISIONS)]
        known = [1e3 / row["ms_per_step"] for row in rows if "ms_per_step" in row]
        if not known:
            raise RuntimeError(f"how fast the {stage} trains is not known, from which the number of steps follows")
        rates[stage] = known[0]
    return rates


def student_of(run: Run, critic: Critic, which: str) -> Policy:
    """The policy of a student's checkpoint, `last` or `best` (by playing during training)."""
    path = run.directory / "checkpoints" / "student" / f"{which}.safetensors"
    tensors, header = read_tensors(path)
    network = network_of(run, "student", run.config.student_network, jumps=True)
    load_weights(network, unprefixed("average", tensors) if which == "last" else tensors, path)
    origin = {"selection": "online" if which == "best" else "last", "step": header["step"]}
    return student_policy(run, network.to(run.device), critic, origin).fold()


def scored(run: Run, name: str, policy: Policy) -> dict[str, Any]:
    """Play a policy by the protocol of every result."""
    evaluation, env_id = run.config.evaluation, run.dataset.env_id
    if env_id is None:
        raise RuntimeError("the data names no environment, so that nothing can be scored")
    quiet, make = Console(quiet=True), environments_of(run.dataset, run.dataset.source)
    row = row_of(policy, name, name, run.config.seed)
    execute = evaluation.execute or 1
    return score(row, policy, env_id, evaluation.episodes, execute, run.config.seed, quiet, make).to_json()
