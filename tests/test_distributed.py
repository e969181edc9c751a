"""Two processes (gloo, on the CPU) compute one process's gradient, and resume to the same weights."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from dataset_factory import make
from parts_factory import actions_of, return_model
from test_loop import two_networks
from torch import nn

from ractd.diffusion.settings import Diffusion
from ractd.methods.ractd import StudentObjective, TeacherObjective
from ractd.methods.ractd_settings import Student, Teacher
from ractd.networks import copy_matching
from ractd.networks.mlp import MLP
from ractd.networks.tensors import read_tensors
from ractd.settings import Optimization
from ractd.stopping import Interrupted
from ractd.training.loop import LOG_EVERY, Stage, averaged_copy, objective_stage, run_stage
from ractd.training.metrics import Metrics

NETWORK = MLP(width=16, blocks=1, embed_dim=8)
STEPS = LOG_EVERY + 10
STAGES = ("teacher", "dsm", "two networks", "ode")
TRAINED = STAGES[:3]
"""Those that are trained for more than a step."""


def stage_of(name: str, directory: Path, accelerator: Accelerator, steps: int) -> Stage:
    """The teacher, a student with that anchor and the automatic reward weight, or a critic with its actor."""
    if name == "two networks":
        return replace(two_networks(directory, 1e9, steps), directory=directory / name)
    dataset, diffusion = make((30, 20, 25)), Diffusion()
    sequence = actions_of(dataset, 2)
    samples = sequence.samples(dataset)
    torch.manual_seed(0)
    teacher = NETWORK.build((2, 2), 3, False)
    nn.init.normal_(teacher.output.weight, std=0.2)  # type: ignore[arg-type, union-attr]
    if name == "teacher":
        average = averaged_copy(teacher)
        objective: nn.Module = TeacherObjective(teacher, sequence, samples, diffusion, Teacher())
    else:
        network = NETWORK.build((2, 2), 3, True)
        copy_matching(teacher, network)
        average = averaged_copy(network)
        critic = return_model(layers=(8, 8))
        config = Student(reward_weight="auto", anchor="ode" if name == "ode" else "dsm")

        def mean(x: torch.Tensor) -> torch.Tensor:
            return accelerator.reduce(x, "mean")  # type: ignore[no-any-return]

        objective = StudentObjective(network, average, teacher, critic, sequence, samples, diffusion, config, mean)
    optimization = Optimization(steps, batch_size=16, learning_rate=1e-3, warmup_steps=5, max_grad_norm=1e6, ema=0.9)
    return objective_stage(name, objective, average, optimization, 0, directory / name, 1e9)


def train(directory: Path, steps: int, stop: bool = False) -> None:
    """Train the stages with as many processes as there are."""
    accelerator = Accelerator(cpu=True)
    for name in STAGES if steps == 1 else TRAINED:
        stage = stage_of(name, directory, accelerator, steps)
        metrics = Metrics(directory / name if accelerator.is_main_process else None)
        try:
            run_stage(stage, accelerator, metrics, lambda: stop)
        except Interrupted:
            assert stop
        finally:
            metrics.close()


def launch(*arguments: Any) -> None:
    """Run `main` below in two processes. `accelerate launch --cpu` starts one only (it wants MPI for more): so torchrun."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    command = [*launcher, __file__, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "processes: 2" in done.stdout


def relative_error(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], prefix: str, suffix: str) -> float:
    names = [name for name in ours if name.startswith(prefix) and name.endswith(suffix)]
    assert names
    a, b = (torch.cat([tensors[name].flatten().double() for name in names]) for tensors in (ours, theirs))
    assert b.norm() > 0
    return float((a - b).norm() / b.norm())


@pytest.mark.slow
def test_two_processes_are_one_and_resume(tmp_path: Path) -> None:
    launch(tmp_path)
    train(tmp_path / "one" / "gradient", 1)
    train(tmp_path / "one" / "straight", STEPS)
    for name in STAGES:

        def tensors(kind: str, stage: str = name) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
            return read_tensors(tmp_path / kind / stage / "last.safetensors")

        # After one step AdamW's first moment is a tenth of the gradient.
        one, two = tensors("one/gradient")[0], tensors("two/gradient")[0]
        assert relative_error(two, one, "optimizer", "exp_avg") < 1e-5, name
        if name in ("dsm", "ode"):
            torch.testing.assert_close(two["state.gradients"], one["state.gradients"], rtol=1e-5, atol=0)
            assert (one["state.gradients"] > 0).all(), "the automatic weight was at work"

        if name not in TRAINED:
            continue
        # AdamW turns rounding into steps where a gradient is nearly zero, so weights are compared more loosely.
        (one, _), (two, header) = tensors("one/straight"), tensors("two/straight")
        assert header["step"] == STEPS
        for part in ("critic", "actor", "target", "average") if name == "two networks" else ("network", "average"):
            assert relative_error(two, one, part, "") < 1e-3, (name, part)

        resumed, header = tensors("two/resumed")
        assert header["step"] == STEPS
        assert resumed.keys() == two.keys()
        for key, value in resumed.items():
            assert torch.equal(value, two[key]), (name, key)


def main() -> None:
    directory = Path(sys.argv[1]) / "two"
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    train(directory / "gradient", 1)
    train(directory / "straight", STEPS)
    train(directory / "resumed", STEPS, stop=True)
    for name in TRAINED:
        _, header = read_tensors(directory / "resumed" / name / "last.safetensors")
        assert header["step"] == LOG_EVERY
    train(directory / "resumed", STEPS)
    if accelerator.is_main_process:
        print("processes:", accelerator.num_processes)
    accelerator.end_training()


if __name__ == "__main__":
    main()
