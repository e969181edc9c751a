"""Seeing a collapsing student without a simulator: it leaves the data, or promises what the data never paid."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ractd.config import Diffusion
from ractd.data.windows import Windows
from ractd.diffusion.ctm import one_step
from ractd.diffusion.edm import sigma_schedule
from ractd.diffusion.samplers import heun
from ractd.models import ReturnNetwork
from ractd.models.normalizer import Normalizer
from ractd.training.student import student_network
from ractd.training.teacher import denoiser

STATES = 128
SAMPLES = 16
BINS = 20
MAX_OUT_OF_BOUNDS = 0.1
"""Share of one-step action entries beyond the bounds; a working student has 2 to 3%, a collapsed one 17% (design brief)."""
MAX_DISTANCE = 3.0
"""Distance to the nearest teacher sample, in the teacher's own distances between samples."""


class CollapseWatch:
    """Compares one-step samples at fixed states with the teacher's samples there and with the data's returns."""

    def __init__(
        self,
        teacher: nn.Module,
        return_network: ReturnNetwork,
        normalizer: Normalizer,
        windows: Windows,
        diffusion: Diffusion,
        largest_return: float,
        seed: int,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        device = normalizer.action_low.device
        observations, actions = windows.gather(windows.draw(STATES, generator).to(windows.device))
        self.observation = normalizer.observation(observations)
        self.return_network, self.diffusion, self.largest_return = return_network, diffusion, largest_return
        self.noise = torch.randn(STATES, *actions.shape[1:], generator=generator).to(device)
        noise = torch.randn(STATES * SAMPLES, *actions.shape[1:], generator=generator).to(device)
        sigmas = sigma_schedule(diffusion, BINS).to(device)
        with torch.inference_mode():
            condition = self.observation.flatten(1).repeat_interleave(SAMPLES, 0)
            samples = heun(denoiser(teacher, diffusion), sigmas[0] * noise, sigmas, condition)
            self.samples = samples.flatten(1).unflatten(0, (STATES, SAMPLES))
            among = torch.cdist(self.samples, self.samples)
            among.diagonal(dim1=1, dim2=2).fill_(torch.inf)
            self.unit = among.amin(2).mean().clamp(min=1e-3)

    @torch.inference_mode()
    def measure(self, student: nn.Module) -> dict[str, float]:
        """Return the share of entries out of bounds, the largest-return excess and the distance to the teacher's samples.

        `promise` is the mean return estimate in units in which 1 is the largest return-to-go of the data (both from the
        data's mean); `teacher_distance` is in mean nearest distances among the teacher's samples.
        """
        x: Tensor = one_step(
            student_network(student, self.diffusion), self.noise, self.observation.flatten(1), self.diffusion
        )
        nearest = torch.cdist(x.flatten(1).unsqueeze(1), self.samples).amin((1, 2))
        estimate = self.return_network(self.observation[:, -1], x[:, 0].clamp(-1, 1)).mean()
        values = torch.stack([(x.abs() > 1).float().mean(), estimate / self.largest_return, nearest.mean() / self.unit])
        return dict(
            zip(("watch_out_of_bounds", "watch_promise", "watch_teacher_distance"), values.tolist(), strict=True)
        )


def complaint(measured: dict[str, float]) -> str | None:
    """Return what looks like collapse in a measurement, as half a sentence, or None."""
    if measured["watch_out_of_bounds"] > MAX_OUT_OF_BOUNDS:
        return f"{measured['watch_out_of_bounds']:.0%} of its action entries are out of bounds (a working student has 2% to 3%)"
    if measured["watch_promise"] > 1:
        return f"its mean return estimate is {measured['watch_promise']:.1f} times the largest return in the data"
    if measured["watch_teacher_distance"] > MAX_DISTANCE:
        return f"its samples are {measured['watch_teacher_distance']:.1f} times as far from the teacher's as those from each other"
    return None
