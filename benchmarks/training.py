"""Training speed on the CPU: samples/s and GFLOP/s of every stage, beside the matrix-multiplication peak of the same run.

    python benchmarks/training.py [--threads 2] [--repeats 5] [--seconds 5] [--precision bf16] [--compile] [--name NAME]

Each stage is trained by `run_stage` on the stage's own objective, without hooks (evaluations, looks for collapse), on
random data of Hopper's sizes. A FLOP count is that of one step's matrix multiplications and convolutions, forward and
backward, by the formulas of `torch.utils.flop_counter`; element-wise work, optimiser and averaging cost time and count
nothing. Every repeat measures the peak and all stages anew, so that what else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from common import print_table, summary, write_result
from rich.console import Console
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ractd.critics import critic_class
from ractd.data import OfflineDataset
from ractd.methods.following import FollowingCritic
from ractd.methods.ractd import METHOD, StudentObjective, TeacherObjective, network_of
from ractd.methods.ractd_resolve import resolve
from ractd.methods.ractd_settings import PRESETS, Config
from ractd.networks import copy_matching
from ractd.networks.unet import UNet
from ractd.runs.train import prepare
from ractd.settings import Optimization
from ractd.training.critic import STAGE as RETURN
from ractd.training.log import Log
from ractd.training.loop import (
    Objective,
    Stage,
    averaged_copy,
    objective_stage,
    run_stage,
    share_of_process,
    step_generator,
)
from ractd.training.metrics import Metrics
from ractd.training.run import Asked, Run

GOALS = {"following": 0.5, "mlp": 0.5, "unet": 0.6}
"""Share of the GEMM peak."""
DATA_GOAL = 0.03
"""Share of the step that drawing and gathering may take."""
OBSERVATIONS, ACTIONS, EPISODE = 11, 3, 500
GEMM_SHAPES = ((256, 256, 256), (256, 512, 512), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048))
"""(m, k, n) of the multiplications whose best rate is the peak."""


def dataset(rows: int) -> OfflineDataset:
    """Random numbers of Hopper's sizes: what training costs does not depend on what it learns."""
    rng = np.random.default_rng(0)
    timeouts = np.zeros(rows, np.bool_)
    timeouts[EPISODE - 1 :: EPISODE] = True
    return OfflineDataset(
        name="random",
        observations=rng.standard_normal((rows, OBSERVATIONS), np.float32),
        actions=rng.uniform(-1, 1, (rows, ACTIONS)).astype(np.float32),
        rewards=rng.standard_normal(rows, np.float32),
        terminals=np.zeros(rows, np.bool_),
        timeouts=timeouts,
    )


def configurations(data: OfflineDataset, quick: bool) -> dict[str, Config]:
    """The default, the cpu preset, and the same training of a small U-Net at the paper's horizon."""
    following, mlp = (resolve(PRESETS[name], data, Asked()) for name in ("following", "cpu"))
    if quick:
        small = Optimization(steps=1, batch_size=8)
        mlp = replace(mlp, teacher=replace(mlp.teacher, optimization=small))
        mlp, following = (replace(of, student=replace(of.student, optimization=small)) for of in (mlp, following))
    return {
        "following": following,
        "mlp": mlp,
        "unet": replace(
            mlp, horizon=16, teacher=replace(mlp.teacher, network=UNet(down_dims=(8, 16) if quick else (64, 128, 256)))
        ),
    }


class FlopCounter(TorchDispatchMode):
    """`FlopCounterMode` without its tracking of modules, which gradients taken inside of a loss break."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


class Contender:
    """One stage of one configuration: its objective, the critic that follows it if any, and what one step of it costs."""

    def __init__(
        self,
        name: str,
        run: Run,
        objective: nn.Module,
        average: nn.Module,
        optimization: Optimization,
        following: FollowingCritic | None = None,
    ):
        self.name, self.run, self.module, self.average, self.optimization = name, run, objective, average, optimization
        self.objective, self.following = cast(Objective, objective), following
        self.compiled: dict[str, Any] | None = None
        """Losses by their updates' names, where they are to be compiled."""
        updates = self.stage(1, Path("unused")).updates
        self.parameters = sum(weight.numel() for update in updates for weight in update.network.parameters())

    @property
    def compiles(self) -> bool:
        """Whether torch.compile can take its losses: it can't where `auto` asks for gradients amid a loss."""
        return getattr(getattr(self.module, "config", None), "reward_weight", 0) != "auto"

    @cached_property
    def flops(self) -> int:
        """Of one step's matrix multiplications and convolutions, forward and backward; of what isn't in each step, its mean."""
        stage, total = self.stage(1, Path("unused")), 0.0
        draws = share_of_process(stage.draw(step_generator(0, self.name, 0)), self.run.accelerator)
        for update in stage.updates:
            update.loss(draws)  # what only a first step does is not counted
            counter = FlopCounter()
            with counter:
                update.loss(draws)["loss"].backward(inputs=[*update.network.parameters()])
            update.network.zero_grad(set_to_none=True)
            total += counter.total / update.every
        return round(total)

    @cached_property
    def data_seconds(self) -> float:
        """Median seconds of what the data cost in a step: a step's draws (all its noise too) and the gather."""
        samples, times, stage = self.run.samples, [], self.stage(1, Path("unused"))
        for step in range(100):
            start = time.perf_counter()
            draws = stage.draw(step_generator(0, self.name, step))
            if self.following is not None:
                self.following.samples.gather({"index": draws["transition"]})
            samples.gather(draws if "index" in draws else {"index": self.module.rows[draws["row"]]})  # type: ignore[index]
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def stage(self, steps: int, directory: Path) -> Stage:
        """So many steps of it, as the real loop trains them."""
        optimization = replace(self.optimization, steps=steps)
        if self.following is None:
            return objective_stage(self.name, self.module, self.average, optimization, 0, directory, 1e9, self.run.bf16)
        self.following.optimization = replace(self.following.optimization, steps=steps)
        stage = self.following.stage(self.run, self.name, self.module, self.average, optimization)
        return replace(stage, directory=directory, record={}, checkpoint_seconds=1e9)

    def train(self, steps: int, accelerator: Accelerator) -> float:
        """Seconds per step of the real loop, logging included."""
        with tempfile.TemporaryDirectory() as directory:
            stage = self.stage(steps, Path(directory))
            if self.compiled is not None:
                for update in stage.updates:
                    update.loss = self.compiled.setdefault(update.name, torch.compile(update.loss))
            run_stage(stage, accelerator, Metrics(None))
            accelerator.free_memory()
            return float(stage.record["seconds"]) / steps


def contenders(config: Config, data: OfflineDataset, accelerator: Accelerator) -> dict[str, Contender]:
    """The stages of a configuration, built as a run builds them."""
    nowhere, silent = Path("unused"), Log(Console(quiet=True), None)
    run = prepare(METHOD, config, data, nowhere, accelerator, Metrics(None), silent)
    sequence, samples, device = run.sequence, run.samples, accelerator.device
    if config.follows:
        network = network_of(run, "student", config.student_network, jumps=True).to(device)
        average = averaged_copy(network)
        following = FollowingCritic(run, average)
        paid = StudentObjective(
            network, average, None, following.q, sequence, samples, config.diffusion, config.student
        )
        return {"student": Contender("student", run, paid, average, config.student.optimization, following)}
    rows = torch.arange(data.num_transitions, device=device)
    run.seed_weights(RETURN)
    critic, critic_objective = critic_class(sequence.critic, "the run").fit(config.return_model, sequence, data, rows)
    teacher = network_of(run, "teacher", config.teacher.network, jumps=False).to(device)
    student = network_of(run, "student", config.student_network, jumps=True).to(device)
    copy_matching(teacher, student)
    average = averaged_copy(student)
    frozen_teacher, frozen_critic = averaged_copy(teacher), averaged_copy(critic.to(device))
    objectives: dict[str, tuple[nn.Module, nn.Module, Optimization]] = {
        "return": (critic_objective, averaged_copy(critic), config.return_model.optimization),
        "teacher": (
            TeacherObjective(teacher, sequence, samples, config.diffusion, config.teacher),
            averaged_copy(teacher),
            config.teacher.optimization,
        ),
        "student": (
            StudentObjective(
                student,
                average,
                frozen_teacher,
                frozen_critic,
                sequence,
                samples,
                config.diffusion,
                config.student,
            ),
            average,
            config.student.optimization,
        ),
    }
    return {name: Contender(name, run, *parts) for name, parts in objectives.items()}


def gemm_peak(seconds: float, shapes: Sequence[tuple[int, int, int]] = GEMM_SHAPES) -> dict[str, float]:
    """GFLOP/s of the best float32 matrix multiplication among several sizes, and of each."""
    rates = {}
    for m, k, n in shapes:
        a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        torch.mm(a, b, out=out)
        times: list[float] = []
        stop = time.perf_counter() + seconds / len(shapes)
        while len(times) < 3 or time.perf_counter() < stop:
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            times.append(time.perf_counter() - start)
        rates[f"{m}x{k}x{n}"] = 2e-9 * m * k * n / statistics.median(times)
    return {"best": max(rates.values()), **rates}


def steps_for(seconds: float, measure: Callable[[int], float]) -> tuple[float, int]:
    """The seconds of the first two steps, which pay for what only first ones do, and how many steps take about so many seconds.

    Both are even: a student that a critic follows is trained in every second step.
    """
    return 2 * measure(2), max(2, 2 * round(seconds / measure(2) / 2))


def report(
    name: str, stage: Contender, first: float, steps: int, seconds: list[float], peaks: list[float]
) -> dict[str, Any]:
    """The numbers of one stage."""
    batch = stage.optimization.batch_size
    return {
        "parameters": stage.parameters,
        "batch_size": batch,
        "steps_per_repeat": steps,
        "first_step_seconds": first,
        "flops_per_step": stage.flops,
        "ms_per_step": summary([1e3 * s for s in seconds]),
        "samples_per_second": summary([batch / s for s in seconds]),
        "gflops_per_second": summary([1e-9 * stage.flops / s for s in seconds]),
        "share_of_peak": summary([1e-9 * stage.flops / s / p for s, p in zip(seconds, peaks, strict=True)]),
        "data_ms_per_step": 1e3 * stage.data_seconds,
        "data_share_of_step": stage.data_seconds / statistics.median(seconds),
        "goal_share_of_peak": GOALS[name],
        "goal_data_share": DATA_GOAL,
    }


def main() -> None:
    """Measure, print, write `benchmarks/results/training.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each stage in each repeat")
    parser.add_argument("--rows", type=int, default=400_000, help="transitions of the dataset")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--name", default="training", help="of the result's file")
    parser.add_argument(
        "--compile", action="store_true", help="the losses, by torch.compile; stages with an auto weight are left out"
    )
    parser.add_argument("--quick", action="store_true", help="see that it works; nothing is written")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats, arguments.seconds, arguments.rows = 2, 0.0, 5_000
    before = torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    accelerator, data = Accelerator(cpu=True), dataset(arguments.rows)
    stages = {
        (name, stage): contender
        for name, config in configurations(data, arguments.quick).items()
        for stage, contender in contenders(replace(config, precision=arguments.precision), data, accelerator).items()
    }
    if arguments.compile:
        stages = {key: stage for key, stage in stages.items() if stage.compiles}
        for stage in stages.values():
            stage.compiled = {}
    first_and_steps = {
        key: steps_for(arguments.seconds, lambda n, stage=stage: stage.train(n, accelerator))  # type: ignore[misc]
        for key, stage in stages.items()
    }
    peaks: list[dict[str, float]] = []
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in stages}
    for _ in range(arguments.repeats):
        peaks.append(gemm_peak(min(arguments.seconds, 2.0), GEMM_SHAPES[:3] if arguments.quick else GEMM_SHAPES))
        for key, stage in stages.items():
            seconds[key].append(stage.train(first_and_steps[key][1], accelerator))
    best = [peak["best"] for peak in peaks]
    results = {
        f"{name}, {stage}": report(name, contender, *first_and_steps[name, stage], seconds[name, stage], best)
        for (name, stage), contender in stages.items()
    }
    rows = [
        [
            label,
            f"{row['parameters']:,}",
            f"{row['ms_per_step']['median']:.1f}",
            f"{row['samples_per_second']['median']:,.0f}",
            f"{row['gflops_per_second']['median']:.1f}",
            f"{row['share_of_peak']['median']:.0%}",
            f"{row['ms_per_step']['spread']:.0%}",
            f"{row['data_share_of_step']:.1%}",
        ]
        for label, row in results.items()
    ]
    title = f"GEMM peak {statistics.median(best):.1f} GFLOP/s on {arguments.threads} threads"
    columns = ["stage", "parameters", "ms/step", "samples/s", "GFLOP/s", "of peak", "spread", "data"]
    print_table(title, columns, rows)
    torch.set_num_threads(before)
    if not arguments.quick:
        settings = {key: getattr(arguments, key) for key in ("threads", "repeats", "seconds", "rows", "compile")}
        sizes = {"observation_dim": OBSERVATIONS, "action_dim": ACTIONS, "precision": arguments.precision}
        gemm = {shape: summary([peak[shape] for peak in peaks]) for shape in peaks[0]}
        result = {**settings, **sizes, "gemm_gflops_per_second": gemm, "results": results}
        print(write_result(arguments.name, result).name)


if __name__ == "__main__":
    main()
