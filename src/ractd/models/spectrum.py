"""Smooth sequences between two known ends, by few numbers: what a planner on a CPU works with (ours, not the paper's)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SIGMA_DATA = 0.5
"""Standard deviation of every coefficient after scaling: what the preconditioning assumes of data by default."""


class Spectrum(nn.Module):
    """What a sequence adds to the straight line from its start to its end, as the first K coefficients of a sine transform.

    A sequence `[B, H, D]` starts one step after `ends[:, 0]` and is at `ends[:, 1]` at its last step (`ends [B, 2, D]`). The
    difference to the straight line vanishes at both ends, as sines do, so every decoded sequence starts and ends where it
    should. Coefficients (orthonormal, `[B, K, D]`) are scaled to mean 0 and standard deviation 0.5 over the data; the K slowest
    sines make the sequence smooth.
    """

    def __init__(self, horizon: int, coefficients: int, dim: int) -> None:
        super().__init__()
        frequency, time = torch.arange(1, coefficients + 1), torch.arange(1, horizon + 1)
        basis = torch.sin(math.pi / horizon * frequency[:, None].double() * time) * math.sqrt(2 / horizon)
        self.basis: Tensor
        self.ramp: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("basis", basis.float(), persistent=False)
        self.register_buffer("ramp", time[:, None] / horizon, persistent=False)
        self.register_buffer("mean", torch.zeros(coefficients, dim))
        self.register_buffer("std", torch.full((coefficients, dim), SIGMA_DATA))

    def line(self, ends: Tensor) -> Tensor:
        """Return the straight line between `ends [B, 2, D]`, `[B, H, D]`."""
        start, end = ends[:, :1], ends[:, 1:]
        return start + self.ramp * (end - start)

    def fit(self, sequences: Tensor, ends: Tensor) -> None:
        """Scale by the spread of the coefficients of `sequences [N, H, D]`."""
        coefficients = self.basis @ (sequences - self.line(ends))
        self.mean, self.std = coefficients.mean(0), coefficients.std(0).clamp(min=1e-6)

    def encode(self, sequences: Tensor, ends: Tensor) -> Tensor:
        """Return the scaled coefficients `[B, K, D]` of `[B, H, D]`."""
        return SIGMA_DATA * (self.basis @ (sequences - self.line(ends)) - self.mean) / self.std

    def decode(self, x: Tensor, ends: Tensor) -> Tensor:
        """Return the sequences `[B, H, D]` of scaled coefficients `[B, K, D]`."""
        return self.line(ends) + self.basis.T @ (x * (self.std / SIGMA_DATA) + self.mean)
