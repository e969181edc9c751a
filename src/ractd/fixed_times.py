"""The times at which a policy's network is evaluated, and its model with what depends on them alone computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ractd.diffusion.edm import scalings
from ractd.diffusion.samplers import Kind
from ractd.diffusion.settings import Diffusion
from ractd.kept import Kept
from ractd.models.fixed_time import NETWORK_ALONE, AtTime, FoldsTime, Preconditioning

if TYPE_CHECKING:
    from ractd.policy import PolicySpec

PRECONDITIONED: tuple[Kind, ...] = ("student", "teacher")
"""Kinds of policies whose model is `a x + b F(c x)` at each time; others keep their own arithmetic around the network."""

Wrap = Callable[[Any, Any], Callable[..., Tensor]]
"""A policy's model from its network and its schedule, see `ractd.policy.MODELS`."""


@torch.no_grad()
def times(spec: PolicySpec, wrap: Wrap) -> list[tuple[Tensor, Tensor | None]]:
    """Return the times `(t [1], s [1] | None)` of every network evaluation of one sample, in order.

    A sampler's times don't depend on what it samples, so they are seen by sampling once with a network that returns zeros.
    """
    seen: list[tuple[Tensor, Tensor | None]] = []

    def look(x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
        seen.append((t.clone(), None if s is None else s.clone()))
        return torch.zeros_like(x)

    noise = torch.zeros(spec.sampling.draws(spec.steps), 1, 1, 1)
    spec.sampling.sample(wrap(look, spec.schedule), noise, torch.zeros(1, 0), spec.schedule, spec.steps)
    return seen


def preconditioning(t: Tensor, diffusion: Diffusion) -> Preconditioning:
    """Return a, b and c of the model `a x + b F(c x)` at time `t [1]`: EDM's `c_skip`, `c_out` and `c_in`, in double precision."""
    a, b, c = scalings(t.double(), diffusion)
    return Preconditioning(float(a), float(b), float(c))


def denoisers(spec: PolicySpec, wrap: Wrap, network: nn.Module) -> list[nn.Module]:
    """Return a policy's network at the time of each of its evaluations, in order, its preconditioning folded in.

    They share weights with the network; what depends on time is folded where the network can do that, see `FoldsTime`.
    """
    preconditioned = spec.kind in PRECONDITIONED
    device = next(network.parameters()).device
    return [
        (network.at_time if isinstance(network, FoldsTime) else partial(AtTime, network))(
            t.to(device),
            None if s is None else s.to(device),
            preconditioning(t, spec.diffusion) if preconditioned else NETWORK_ALONE,
        )
        for t, s in times(spec, wrap)
    ]


def kept_denoisers(spec: PolicySpec, wrap: Wrap, kept: Kept) -> list[nn.Module] | None:
    """Return `denoisers` of a network that is kept, the same ones as long as it is; None where nothing would be folded."""
    key = (spec.sampler, spec.steps)
    if key not in kept.made:
        with torch.inference_mode(False):
            folds = isinstance(kept.network, FoldsTime)
            kept.made[key] = denoisers(spec, wrap, kept.network) if folds else None
    return cast(list[nn.Module] | None, kept.made[key])


def model(spec: PolicySpec, wrap: Wrap, at_times: Sequence[Callable[..., Tensor]]) -> Callable[..., Tensor]:
    """Return what the policy's sampler takes, for one sample: its evaluations go to `at_times` one after the other."""
    number = count()

    def at_its_time(x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
        return at_times[next(number)](x, condition)

    return at_its_time if spec.kind in PRECONDITIONED else wrap(at_its_time, spec.schedule)
