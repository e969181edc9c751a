"""Networks with what surrounds them: denoisers D, students g, and the clean estimate of a noise network."""

from __future__ import annotations

from torch import Tensor, nn

from ractd.diffusion.ddpm import clean_estimate
from ractd.diffusion.edm import Denoiser, precondition
from ractd.diffusion.samplers import StudentNetwork
from ractd.diffusion.settings import DDPM, Diffusion


def denoiser(network: nn.Module, diffusion: Diffusion) -> Denoiser:
    """Return `D(x, t, condition)` of a teacher's network."""
    return lambda x, t, condition: precondition(lambda y: network(y, t, condition), x, t, diffusion)


def student_network(network: nn.Module, diffusion: Diffusion) -> StudentNetwork:
    """Return `g(x, t, condition, s)` of a student's network; time 0 is `sigma_min` to it, the lowest that eq. 5 trains."""

    def g(x: Tensor, t: Tensor, condition: Tensor, s: Tensor) -> Tensor:
        s = s.clamp(min=diffusion.sigma_min)
        return precondition(lambda y: network(y, t, condition, s), x, t, diffusion)

    return g


def noise_denoiser(network: nn.Module, ddpm: DDPM) -> Denoiser:
    """Return the clean estimate `(x_t, sigma_t, condition) -> x0` of a DDPM teacher's network, for variance-preserving x."""
    return clean_estimate(network, ddpm.clip)
