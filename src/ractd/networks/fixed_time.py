"""A denoiser at one noise level: what depends on time alone can be folded into its weights.

A sampler visits known times, so a policy that only acts needs no time embedding and no layer that reads nothing else. At
one time a preconditioned denoiser is `a x + b F(c x, condition)` with three numbers a, b, c.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn


class Preconditioning(NamedTuple):
    """The numbers of `a x + b F(c x, condition)`."""

    a: float
    b: float
    c: float


NETWORK_ALONE = Preconditioning(0.0, 1.0, 1.0)


@runtime_checkable
class FoldsTime(Protocol):
    """A network that can be folded; one that can't works as it is."""

    def at_time(self, t: Tensor, s: Tensor | None, scales: Preconditioning) -> nn.Module:
        """Return the denoiser `(x [B, c, D], condition [B, K]) -> [B, c, D]` at times `t [1]` (and `s [1]`, for a student).

        Weights that don't depend on time may be shared with the network.
        """


@runtime_checkable
class FoldsScales(Protocol):
    """A denoiser D at one time into whose first and last layer the scales around it can go: a graph with fewer operations."""

    def fold_scales(self, x: float, condition: Tensor, out: Tensor, shift: Tensor) -> Tensor:
        """Become `out D(x_scale x, condition / condition_scale) + shift - skip x` in place, and return the factors `skip`.

        `x` is a number, `condition` are divisors `[K]`, `out`, `shift` and `skip` are `[c D]`; x is flat from then on, `[B, c D]`.
        """

    def __call__(self, x: Tensor, condition: Tensor) -> Tensor:
        """Evaluate it."""


class AtTime(nn.Module):
    """A network at one time, with nothing folded."""

    def __init__(self, network: nn.Module, t: Tensor, s: Tensor | None, scales: Preconditioning) -> None:
        super().__init__()
        self.network, self.scales = network, scales
        self.t, self.s = nn.Buffer(t), None if s is None else nn.Buffer(s)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        a, b, c = self.scales
        targets = () if self.s is None else (self.s,)
        out: Tensor = self.network(c * x, self.t, condition, *targets)
        return a * x + b * out


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return the layer of a weight and a bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
    return layer
