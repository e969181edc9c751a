"""What a run of RACTD leaves: its policies, and the variants of them that are rows of its result."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import nn

from ractd.critics import Critic
from ractd.files import replacing_directory
from ractd.methods import Variant
from ractd.methods.ractd_settings import Config
from ractd.policies import Policy, Sampling
from ractd.sequences import sequence_class
from ractd.training.run import Run


def teacher_policy(run: Run, network: nn.Module, critic: Critic | None, provenance: dict[str, Any]) -> Policy:
    """Return the teacher as a policy: it samples along all of its noise levels."""
    config = run.config
    if config.teacher.parametrization == "ddpm":
        sampling = Sampling("DDPM teacher", "ddpm", config.teacher.ddpm, config.teacher.ddpm.timesteps)
    else:
        sampling = Sampling("teacher", "heun", config.diffusion, config.diffusion.bins)
    return run.policy(network, config.teacher.network, sampling, critic, provenance)


def student_policy(run: Run, network: nn.Module, critic: Critic | None, provenance: dict[str, Any]) -> Policy:
    """Return a student as a policy of one step."""
    sampling = Sampling("student", "consistency", run.config.diffusion)
    return run.policy(network, run.config.student_network, sampling, critic, provenance)


def copy_policies(run: Run) -> None:
    """Copy another run's teacher and plain student, so that this run stands alone."""
    for name in ("teacher", "plain", "plain-last") if run.accelerator.is_main_process else ():
        origin, target = Path(run.asked.teacher_from) / "policy" / name, run.directory / "policy" / name
        if origin.is_dir() and not target.is_dir():
            with replacing_directory(target) as partial:
                shutil.copytree(origin, partial, dirs_exist_ok=True)


def variants(config: Config) -> tuple[Variant, ...]:
    """Return the variants that a run of these settings has, the one that it is about first."""
    returns = ("return",) if config.fixed_critic else ()
    aware = returns if config.teacher.reward_weight else ()
    decoder = sequence_class(config.sequence.kind).decoder_stage
    dynamics = () if decoder is None else (decoder,)
    distilled = ("teacher",) if config.student.distilled else ()
    teachers = [Variant(name, name, {}, (*aware, *dynamics, name)) for name in distilled]

    def ways(label: str, name: str, *more: tuple[str, int]) -> list[Variant]:
        stages = (*returns, *dynamics, *distilled, name)
        checkpoints = [Variant(label, policy, {}, stages) for policy in (name, f"{name}-last")]
        return checkpoints + [Variant(f"{label}, {count} {what}", name, {what: count}, stages) for what, count in more]

    student = ways("RACTD", "student", ("candidates", 32), ("steps", 2), ("steps", 4))
    if config.follows and config.student.reward_weight != 0:
        return *student, *teachers
    if not returns:
        return *ways("plain student", "student"), *teachers
    return *student, *ways("plain student", "plain", ("candidates", 32)), *teachers
