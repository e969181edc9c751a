"""Smooth sequences from a known start, by few numbers: what a planner on a CPU works with (ours, not the paper's)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DEGREE = 3
SIGMA_DATA = 0.5
"""Standard deviation of the control points after scaling: what the preconditioning assumes of data by default."""


class Spline(nn.Module):
    """A sequence as a cubic B-spline of K control points and its start.

    A sequence `[B, H, D]` begins one step after `start [B, 1, D]`. Every decoded sequence begins there and is smooth, and each
    control point decides on few steps around it. Control points `[B, K, D]` are those of least squares, each dimension
    scaled to mean 0 and standard deviation 0.5 over the data.
    """

    def __init__(self, horizon: int, points: int, dim: int) -> None:
        super().__init__()
        weights = bspline_weights(torch.arange(1, horizon + 1).double() / horizon, points + 1)
        self.weights: Tensor
        self.least_squares: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("weights", weights.float(), persistent=False)
        self.register_buffer("least_squares", torch.linalg.pinv(weights[:, 1:]).float(), persistent=False)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.full((dim,), SIGMA_DATA))

    def fit(self, sequences: Tensor, start: Tensor) -> None:
        """Scale by the spread of the control points of `sequences [N, H, D]`."""
        points = self.least_squares @ (sequences - self.weights[:, :1] * start)
        self.mean, self.std = points.mean((0, 1)), points.std((0, 1)).clamp(min=1e-6)

    def encode(self, sequences: Tensor, start: Tensor) -> Tensor:
        """Return the scaled control points `[B, K, D]` of `[B, H, D]`."""
        return SIGMA_DATA * (self.least_squares @ (sequences - self.weights[:, :1] * start) - self.mean) / self.std

    def decode(self, x: Tensor, start: Tensor) -> Tensor:
        """Return the sequences `[B, H, D]` of scaled control points `[B, K, D]`."""
        points = torch.addcmul(self.mean, x, self.std / SIGMA_DATA)
        return self.weights @ torch.cat([start, points], dim=1)


def bspline_weights(t: Tensor, points: int) -> Tensor:
    """Return how much each of `points` control points counts at times `t [N]` in [0, 1], `[N, points]`; rows sum to 1.

    Clamped cubic B-splines (de Boor's recursion): at 0 the sequence is its first control point, at 1 its last. Needs 4 points.
    """
    inner = torch.linspace(0, 1, points - DEGREE + 1, dtype=t.dtype)
    knots = torch.cat([inner[:1].expand(DEGREE), inner, inner[-1:].expand(DEGREE)])
    span = torch.searchsorted(knots, t, right=True).clamp(max=points) - 1  # the last span is closed at 1
    weights = nn.functional.one_hot(span, points + DEGREE).to(t.dtype)
    for degree in range(1, DEGREE + 1):
        width = knots[degree:] - knots[:-degree]
        share = torch.where(width > 0, (t[:, None] - knots[:-degree]) / width, 0)
        rising = weights[:, :-1] * share[:, :-1]
        falling = weights[:, 1:] * (torch.where(width > 0, 1.0, 0.0).to(t.dtype) - share)[:, 1:]
        weights = rising + falling
    return weights
