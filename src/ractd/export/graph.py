"""The policy as one graph: raw observation and noise in, raw action sequence out, for `torch.export` and ONNX."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from ractd.diffusion.samplers import Kind
from ractd.models.fixed_time import NETWORK_ALONE, Preconditioning, at_time
from ractd.policy import MODELS, Policy

PRECONDITIONED: tuple[Kind, ...] = ("student", "teacher")
"""Kinds of policies whose model is `a x + b F(c x)` at each time; others keep their own arithmetic around the network."""


class PolicyGraph(nn.Module):
    """`(observation [B, h, O], noise [B, draws, N, c, A]) -> actions [B, c, A]`: `Policy.sample` with the batch first.

    The policy's own sampling runs unchanged; only its model is replaced by one whose times are constants.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = _FixedTimes(policy)

    def forward(self, observation: Tensor, noise: Tensor) -> Tensor:
        return self.policy.sample(observation, draws_first(noise))


def draws_first(noise: Tensor) -> Tensor:
    """Return the graph's noise `[B, draws, N, c, A]` as `Policy.sample` takes it, `[draws, B * N, c, A]`."""
    return noise.transpose(0, 1).flatten(1, 2)


def batch_first(noise: Tensor, candidates: int) -> Tensor:
    """Return noise of `Policy.draw_noise`, `[draws, B * N, c, A]`, as the graph takes it, `[B, draws, N, c, A]`."""
    framed: Tensor = noise.unflatten(1, (-1, candidates)).transpose(0, 1)
    return framed


class _FixedTimes(Policy):
    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.spec, policy.network, policy.return_network, policy.normalizer)
        folded = policy.spec.kind in PRECONDITIONED
        self.denoisers = nn.ModuleList(
            at_time(policy.network, t, s, preconditioning(policy, t, s) if folded else NETWORK_ALONE)
            for t, s in times(policy)
        )
        del self.network
        if policy.spec.candidates == 1:
            del self.return_network

    def model(self) -> Callable[..., Tensor]:
        number = count()

        def at_its_time(x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
            return self.denoisers[next(number)](x, condition)  # type: ignore[no-any-return]

        if self.spec.kind in PRECONDITIONED:
            return at_its_time
        return MODELS[self.spec.kind](at_its_time, self.spec.schedule)  # type: ignore[arg-type]


@torch.no_grad()
def times(policy: Policy) -> list[tuple[Tensor, Tensor | None]]:
    """Return the times `(t [1], s [1] | None)` of every network evaluation of one sample, in order.

    A sampler's times don't depend on what it samples, so they are seen by sampling once.
    """
    seen: list[tuple[Tensor, Tensor | None]] = []

    def look(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        t, s = arguments[1], arguments[3] if len(arguments) > 3 else None
        seen.append((t[:1].clone(), None if s is None else s[:1].clone()))

    spec = policy.spec
    handle = policy.network.register_forward_pre_hook(look)
    try:
        one = policy.configured(candidates=1)
        shape = (spec.sampling.draws(spec.steps), 1, spec.horizon, spec.action_dim)
        one.sample(torch.zeros(1, spec.history, spec.observation_dim), torch.zeros(shape))
    finally:
        handle.remove()
    return seen


def preconditioning(policy: Policy, t: Tensor, s: Tensor | None) -> Preconditioning:
    """Return a, b and c of the policy's model `a x + b F(c x)` at times `t [1]` (and `s [1]`), in double precision.

    They are read off the model itself: with F = 0 it is `a x`, with F = 1 `a x + b`, and F sees `c x`.
    """
    probe = _Probe()
    model = MODELS[policy.spec.kind](probe, policy.spec.schedule)
    x, condition = torch.ones(1, 1, 1, dtype=torch.float64), torch.empty(1, 0)
    arguments = (x, t.double(), condition, *(() if s is None else (s.double(),)))
    a = float(model(*arguments))
    probe.value = 1.0
    b = float(model(*arguments)) - a
    return Preconditioning(a, b, probe.input)


class _Probe(nn.Module):
    """A network that returns a constant and remembers what it was given."""

    value, input = 0.0, 0.0

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
        self.input = float(x)
        return torch.full_like(x, self.value)
