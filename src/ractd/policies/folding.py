"""The times at which a policy's network is evaluated, and its model with what depends on them alone computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

import torch
from torch import Tensor, nn

from ractd.diffusion.edm import scalings
from ractd.diffusion.settings import Diffusion
from ractd.networks.fixed_time import NETWORK_ALONE, AtTime, FoldsTime, Preconditioning
from ractd.policies.sampling import Sampling


@torch.no_grad()
def times(sampling: Sampling) -> list[tuple[Tensor, Tensor | None]]:
    """Return the times `(t [1], s [1] | None)` of every network evaluation of one sample, in order.

    A sampler's times don't depend on what it samples, so one sample with a network that returns zeros tells them.
    """
    visited: list[tuple[Tensor, Tensor | None]] = []

    def zeros(x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
        visited.append((t.clone(), None if s is None else s.clone()))
        return torch.zeros_like(x)

    sampling.sample(sampling.model(zeros), torch.zeros(sampling.draws, 1, 1, 1), torch.zeros(1, 0))
    return visited


def preconditioning(t: Tensor, diffusion: Diffusion) -> Preconditioning:
    """Return a, b and c of the model `a x + b F(c x)` at time `t [1]`: EDM's `c_skip`, `c_out` and `c_in`, in double precision."""
    a, b, c = scalings(t.double(), diffusion)
    return Preconditioning(float(a), float(b), float(c))


def denoisers(sampling: Sampling, network: nn.Module) -> list[nn.Module]:
    """Return a network at the time of each of its evaluations, in order, its preconditioning folded in.

    They share weights with the network; what depends on time is folded where the network can do that, see `FoldsTime`.
    """
    schedule, like = sampling.schedule, next(network.parameters())
    return [
        (network.at_time if isinstance(network, FoldsTime) else partial(AtTime, network))(
            t.to(like),
            None if s is None else s.to(like),
            preconditioning(t, schedule) if isinstance(schedule, Diffusion) else NETWORK_ALONE,
        )
        for t, s in times(sampling)
    ]


def model_of(sampling: Sampling, at_times: Sequence[Callable[..., Tensor]]) -> Callable[..., Tensor]:
    """Return what the sampler takes, for one sample: its evaluations go to `at_times` one after the other."""
    number = count()

    def at_its_time(x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
        return at_times[next(number)](x, condition)

    return at_its_time if isinstance(sampling.schedule, Diffusion) else sampling.model(at_its_time)
