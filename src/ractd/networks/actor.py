"""Networks that make a sequence of a condition at once: an MLP with a deterministic or a Gaussian head."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ractd.networks import WIDE, Network
from ractd.settings import Count

LOG_STD = (-5.0, 2.0)
"""Bounds of the logarithm of a Gaussian head's standard deviation, for actions in [-1, 1]."""


@dataclass(frozen=True)
class Actor(Network):
    """An MLP from a condition to a sequence."""

    kind: ClassVar[str] = "actor"
    denoises: ClassVar[bool] = False

    layers: tuple[Count, ...] = (256, 256)
    """Widths of the Linear + ReLU layers."""
    layer_norm: bool = False
    """Normalise every hidden layer."""
    head: Literal["deterministic", "gaussian"] = "deterministic"
    """`gaussian` learns a standard deviation for every entry as well, the same at all conditions; the mean is what acts."""

    @property
    def many_threads(self) -> bool:
        """True where a second thread pays."""
        return max(self.layers, default=0) >= WIDE

    def build(self, shape: tuple[int, int], condition_dim: int, jumps: bool = False) -> nn.Module:
        """Return the network `condition [B, K] -> x [B, n, D]` for sequences of a `shape` (n, D); it takes no times."""
        return HEADS[self.head](self, shape, condition_dim)


def mlp(
    inputs: int,
    layers: tuple[int, ...],
    outputs: int,
    layer_norm: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Return Linear layers of these widths, each activated, and normalised before that where asked to; the last is Linear alone."""
    hidden: list[nn.Module] = []
    for i, o in pairwise((inputs, *layers)):
        hidden += [nn.Linear(i, o), *([nn.LayerNorm(o)] if layer_norm else []), activation()]
    return nn.Sequential(*hidden, nn.Linear((inputs, *layers)[-1], outputs))


class DeterministicActor(nn.Module):
    """`tanh(MLP(condition))`, in [-1, 1]."""

    def __init__(self, settings: Actor, shape: tuple[int, int], condition_dim: int) -> None:
        super().__init__()
        self.shape = shape
        self.mlp = mlp(condition_dim, settings.layers, math.prod(shape), settings.layer_norm)

    def forward(self, condition: Tensor) -> Tensor:
        return self.mlp(condition).tanh().unflatten(1, self.shape)  # type: ignore[no-any-return]


class GaussianActor(DeterministicActor):
    """A normal distribution around `tanh(MLP(condition))` with one standard deviation for each entry; `forward` is its mean."""

    def __init__(self, settings: Actor, shape: tuple[int, int], condition_dim: int) -> None:
        super().__init__(settings, shape, condition_dim)
        self.log_std = nn.Parameter(torch.zeros(shape))

    def log_prob(self, condition: Tensor, x: Tensor) -> Tensor:
        """Return the log density of sequences x `[B, n, D]` at conditions `[B, K]`: `[B]`."""
        log_std = self.log_std.clamp(*LOG_STD)
        z = (x - self(condition)) * (-log_std).exp()
        log_density: Tensor = -(0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi))
        return log_density.flatten(1).sum(1)


HEADS = {"deterministic": DeterministicActor, "gaussian": GaussianActor}
