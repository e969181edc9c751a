"""How a policy samples: what its network is, which sampler runs it, and what the sampler takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ractd.diffusion.ddpm import CleanEstimate
from ractd.diffusion.edm import Preconditioned
from ractd.diffusion.samplers import SAMPLERS, Kind, Sampler
from ractd.diffusion.settings import DDPM, Diffusion, Schedule
from ractd.errors import RactdError

MOST_CANDIDATES = 4096
MODELS: dict[type[Schedule], Callable[..., Any]] = {Diffusion: Preconditioned, DDPM: CleanEstimate}
"""What samplers take of a network that knows a schedule, made of both; one that knows none is taken as it is."""
SCHEDULE_OF: dict[Kind, type[Schedule] | None] = {
    "student": Diffusion,
    "teacher": Diffusion,
    "DDPM teacher": DDPM,
    "direct": None,
}
"""The noise levels that each kind of network knows."""


@dataclass(frozen=True)
class Sampling:
    """How a policy samples."""

    kind: Kind
    """What the network is, which decides which samplers there are."""
    sampler: str
    """A name in `ractd.diffusion.samplers.SAMPLERS`, of those for this kind."""
    schedule: Schedule | None = None
    """The noise levels that the network knows; None for a network that makes actions of a condition at once."""
    steps: int = 1
    """Steps of the sampler."""
    candidates: int = 1
    """Samples drawn for each action, of which the critic's favourite is executed."""

    @property
    def _sampler(self) -> Sampler[Any, Any]:
        return SAMPLERS[self.kind][self.sampler]

    @property
    def draws(self) -> int:
        """Noise draws for one sample."""
        return self._sampler.draws(self.steps)

    @property
    def evaluations(self) -> int:
        """Network evaluations for one sample (NFE)."""
        return self._sampler.evaluations(self.steps)

    @property
    def jumps(self) -> bool:
        """True for a student, whose network takes a target time."""
        return self.kind == "student"

    def model(self, network: Any) -> Callable[..., Tensor]:
        """Return what the sampler takes: the network with its preconditioning, see `MODELS`."""
        return network if self.schedule is None else MODELS[type(self.schedule)](network, self.schedule)  # type: ignore[no-any-return]

    def sample(self, model: Callable[..., Tensor], noise: Tensor, condition: Tensor) -> Tensor:
        """Return x `[B, n, D]` of noise `[draws, B, n, D]` and conditions `[B, K]`."""
        return self._sampler.sample(model, noise, condition, self.schedule, self.steps)

    def configured(self, sampler: str | None, steps: int | None, candidates: int | None) -> Sampling:
        """Return the same with another sampler, steps or candidates; raises `RactdError` for what this kind can't do."""
        sampling = replace(
            self,
            sampler=self.sampler if sampler is None else sampler,
            steps=self.steps if steps is None else steps,
            candidates=self.candidates if candidates is None else candidates,
        )
        sampling.check()
        return sampling

    def check(self) -> None:
        """Raise `RactdError` for a sampler, steps or candidates that this kind can't have."""
        if type(self.schedule) is not (SCHEDULE_OF[self.kind] or type(None)):
            known = "none" if self.schedule is None else self.schedule.kind
            raise RactdError(f"the noise schedule is {known!r}, which a {self.kind} doesn't know")
        valid = SAMPLERS[self.kind]
        if self.sampler not in valid:
            others = [f"a {kind}'s" for kind, samplers in SAMPLERS.items() if self.sampler in samplers]
            raise RactdError(
                f"sampler is {self.sampler!r}{f' ({others[0]})' if others else ''}, "
                f"expected one of {', '.join(valid)} for a {self.kind}"
            )
        least, most = self._sampler.limits(self.schedule)
        if not least <= self.steps <= most:
            raise RactdError(f"steps is {self.steps}, expected {least} to {most} for the {self.sampler} sampler")
        if not 1 <= self.candidates <= MOST_CANDIDATES:
            raise RactdError(f"candidates is {self.candidates}, expected 1 to {MOST_CANDIDATES}")
        if self.candidates > 1 and not self.draws:
            raise RactdError(
                f"candidates is {self.candidates}, expected 1: the {self.sampler} sampler draws no noise, so they would be alike"
            )
