"""Seeing a collapsing student without a simulator: it leaves the data, or promises what the data never paid."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ractd.diffusion.ctm import one_step, sequence_return
from ractd.diffusion.edm import sigma_schedule
from ractd.diffusion.samplers import heun
from ractd.diffusion.settings import Diffusion
from ractd.models import ReturnNetwork
from ractd.training.samples import Samples
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
        samples: Samples,
        diffusion: Diffusion,
        largest_return: float,
        seed: int,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.condition, x0 = samples.gather(samples.draw(STATES, generator))
        self.source = samples
        self.return_network, self.diffusion, self.largest_return = return_network, diffusion, largest_return
        self.noise = torch.randn(x0.shape, generator=generator).to(x0.device)
        noise = torch.randn(STATES * SAMPLES, *samples.shape, generator=generator).to(x0.device)
        sigmas = sigma_schedule(diffusion, BINS).to(x0.device)
        with torch.inference_mode():
            condition = self.condition.repeat_interleave(SAMPLES, 0)
            drawn = heun(denoiser(teacher, diffusion), sigmas[0] * noise, sigmas, condition)
            self.samples = drawn.flatten(1).unflatten(0, (STATES, SAMPLES))
            among = torch.cdist(self.samples, self.samples)
            among.diagonal(dim1=1, dim2=2).fill_(torch.inf)
            self.unit = among.amin(2).mean().clamp(min=1e-3)

    @torch.inference_mode()
    def measure(self, student: nn.Module) -> dict[str, float]:
        """Return the share of entries out of bounds, the largest-return excess and the distance to the teacher's samples.

        `promise` is the mean return estimate in units in which 1 is the largest return-to-go of the data (both from the
        data's mean), and is left out without a return model; `teacher_distance` is in mean nearest distances among the
        teacher's samples.
        """
        x: Tensor = one_step(student_network(student, self.diffusion), self.noise, self.condition, self.diffusion)
        nearest = torch.cdist(x.flatten(1).unsqueeze(1), self.samples).amin((1, 2))
        judged = self.source.decode(x, self.condition)
        values = {
            "watch_out_of_bounds": (judged.abs() > 1).float().mean(),
            "watch_teacher_distance": nearest.mean() / self.unit,
        }
        if self.return_network.exists:
            given = self.return_network.given(self.condition)
            estimate = sequence_return(self.return_network, given, judged, self.source.rewarded).mean()
            values["watch_promise"] = estimate / self.largest_return
        return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))


def complaint(measured: dict[str, float]) -> str | None:
    """Return what looks like collapse in a measurement, as half a sentence, or None."""
    if measured["watch_out_of_bounds"] > MAX_OUT_OF_BOUNDS:
        return f"{measured['watch_out_of_bounds']:.0%} of its action entries are out of bounds (a working student has 2% to 3%)"
    if measured.get("watch_promise", 0) > 1:
        return f"its mean return estimate is {measured['watch_promise']:.1f} times the largest return in the data"
    if measured["watch_teacher_distance"] > MAX_DISTANCE:
        return f"its samples are {measured['watch_teacher_distance']:.1f} times as far from the teacher's as those from each other"
    return None
