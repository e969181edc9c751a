"""Settings of the noise. Importing this imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from ractd.settings import Positive, Registered

MOST_STEPS = 1000
"""Steps that a sampler takes at most."""


SCHEDULES = {
    "edm": "ractd.diffusion.settings:Diffusion",
    "ddpm": "ractd.diffusion.settings:DDPM",
}
"""Every kind of noise schedule, and where its class is."""


class Schedule(Registered):
    """The noise levels that a network knows."""

    kinds = SCHEDULES, "noise schedule", ""


@dataclass(frozen=True)
class Diffusion(Schedule):
    """The noise schedule (EDM; paper, section 2.2 and Appendix B.1)."""

    kind: ClassVar[str] = "edm"

    sigma_min: Positive = 0.02
    """Smallest noise level: time 0 of the method."""
    sigma_max: Positive = 80.0
    """Largest noise level T."""
    rho: Positive = 7.0
    """Warp of the schedule: larger puts more bins at low noise."""
    bins: Annotated[int, Meta(ge=3, le=MOST_STEPS)] = 80
    """Discretisation bins (B.1)."""
    sigma_data: Positive = 0.5
    """Scale of the data that the preconditioning assumes."""
    p_mean: float = -1.2
    """Mean of ln sigma in the DSM loss (EDM)."""
    p_std: Positive = 1.2
    """Standard deviation of ln sigma in the DSM loss (EDM)."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield each field that can't stand beside the others, and what is expected of it."""
        if self.sigma_min >= self.sigma_max:
            yield "sigma_min", f"less than sigma-max, {self.sigma_max}"


@dataclass(frozen=True)
class DDPM(Schedule):
    """The discrete variance-preserving schedule of a DDPM teacher (Ho et al., 2020; the paper's comparison, Tables 3 and 11)."""

    kind: ClassVar[str] = "ddpm"

    timesteps: Annotated[int, Meta(ge=1, le=10_000)] = 100
    """Noise levels T that it is trained on, and its steps when it samples by default."""
    betas: Literal["cosine", "linear"] = "cosine"
    """How noise grows from level to level: `cosine` (Nichol and Dhariwal, 2021) or `linear` (Ho et al., rescaled to T)."""
    clip: Positive = 1.0
    """The clean estimate is kept within this magnitude while sampling; the data is within 1."""
