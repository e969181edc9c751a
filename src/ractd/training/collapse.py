"""Seeing a collapsing student without a simulator: it leaves the data, or promises what the data never paid."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ractd.critics import Critic
from ractd.diffusion.ctm import one_step
from ractd.diffusion.edm import Preconditioned, sigma_schedule
from ractd.diffusion.samplers import heun
from ractd.diffusion.settings import Diffusion
from ractd.networks.tensors import write_tensors
from ractd.sequences import Samples, Sequence
from ractd.training.log import Log
from ractd.training.loop import Stage

STATES = 128
SAMPLES = 16
BINS = 20
MAX_OUT_OF_BOUNDS = 0.1
"""Share of one-step action entries beyond the bounds; a working student has 2 to 3%, a collapsed one 17% (design brief).

Of students that a critic follows it says nothing: good ones have 4 to 13%, collapsed ones 4% (docs/method.md).
"""
MAX_DISTANCE = 3.0
"""Distance to the nearest teacher sample, in the teacher's own distances between samples."""
WATCH_EVERY = 500
"""Steps between looks for collapse."""


class CollapseWatch:
    """Compares one-step samples at fixed states with the teacher's samples there and with the data's returns."""

    def __init__(
        self,
        teacher: nn.Module,
        critic: Critic | None,
        sequence: Sequence,
        samples: Samples,
        diffusion: Diffusion,
        largest: float,
        seed: int,
    ) -> None:
        """Draw the states and the teacher's samples there.

        `largest` is the value that no logged sequence exceeds; the unit of promises is 1 where that is not above the mean.
        """
        generator = torch.Generator().manual_seed(seed)
        self.condition, x0 = samples.gather(samples.draw(STATES, generator))
        self.sequence, self.critic, self.diffusion, self.largest = (
            sequence,
            critic,
            diffusion,
            largest if largest > 0 else 1.0,
        )
        self.noise = torch.randn(x0.shape, generator=generator).to(x0.device)
        noise = torch.randn(STATES * SAMPLES, *sequence.shape, generator=generator).to(x0.device)
        sigmas = sigma_schedule(diffusion, BINS).to(x0.device)
        with torch.inference_mode():
            condition = self.condition.repeat_interleave(SAMPLES, 0)
            drawn = heun(Preconditioned(teacher, diffusion), sigmas[0] * noise, sigmas, condition)
            self.samples = drawn.flatten(1).unflatten(0, (STATES, SAMPLES))
            among = torch.cdist(self.samples, self.samples)
            among.diagonal(dim1=1, dim2=2).fill_(torch.inf)
            self.unit = among.amin(2).mean().clamp(min=1e-3)

    @torch.inference_mode()
    def measure(self, student: nn.Module) -> dict[str, float]:
        """Return the share of entries out of bounds, the promise and the distance to the teacher's samples.

        `promise` is the mean value of the samples in units in which 1 is the largest of the data (both from the data's mean), and
        is left out without a critic; `teacher_distance` is in mean nearest distances among the teacher's samples.
        """
        x: Tensor = one_step(Preconditioned(student, self.diffusion), self.noise, self.condition, self.diffusion)
        nearest = torch.cdist(x.flatten(1).unsqueeze(1), self.samples).amin((1, 2))
        entries = self.sequence.decode(x, self.condition)
        values = {
            "watch_out_of_bounds": (entries.abs() > 1).float().mean(),
            "watch_teacher_distance": nearest.mean() / self.unit,
        }
        if self.critic is not None:
            values["watch_promise"] = self.critic.value(self.condition, entries).mean() / self.largest
        return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))


def complaint(measured: dict[str, float], followed: bool = False) -> str | None:
    """Return what looks like collapse in a measurement, as half a sentence, or None; bounds say nothing of `followed` students."""
    if not followed and measured["watch_out_of_bounds"] > MAX_OUT_OF_BOUNDS:
        return f"{measured['watch_out_of_bounds']:.0%} of its action entries are out of bounds (a working student has 2% to 3%)"
    if measured.get("watch_promise", 0) > 1:
        return f"its mean return estimate is {measured['watch_promise']:.1f} times the largest return in the data"
    if measured["watch_teacher_distance"] > MAX_DISTANCE:
        return f"its samples are {measured['watch_teacher_distance']:.1f} times as far from the teacher's as those from each other"
    return None


def watch_for_collapse(
    watch: CollapseWatch, stage: Stage, average: nn.Module, log: Log, advice: str
) -> Callable[[int, dict[str, float]], dict[str, float]]:
    """Return a hook of a student's stage that looks for collapse, says so and what helps once, and keeps the weights before it."""
    healthy = stage.directory / "healthy.safetensors"
    followed = watch.critic is not None and not watch.critic.fitted_before

    def look(step: int, metrics: dict[str, float]) -> dict[str, float]:
        if step % WATCH_EVERY and step != stage.steps:
            return {}
        measured = watch.measure(average)
        why = complaint(measured, followed)
        if "collapse" not in stage.record:
            if why is None:
                write_tensors(healthy, average.state_dict(), {"step": step})
            else:
                stage.record["collapse"] = {"step": step, "why": why}
                kept = f"; the last checkpoint before it is kept as policy '{stage.name}-before-collapse'"
                log.say(
                    f"[yellow]warning:[/] policy '{stage.name}' is collapsing at step {step}: {why}"
                    f"{kept if healthy.exists() else ''}{advice}"
                )
        return measured

    return look
