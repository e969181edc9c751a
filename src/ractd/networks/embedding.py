"""Embeddings of noise levels, shared by the backbones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SMALLEST_SIGMA = 1e-4
"""Times below are embedded alike: time 0 has no logarithm."""


class TimeEmbedding(nn.Module):
    """Sinusoidal features of `ln(sigma) / 4` (EDM's c_noise) through a two-layer network: `[B] -> [B, dim]`."""

    def __init__(self, dim: int, hidden: int, activation: type[nn.Module]) -> None:
        super().__init__()
        # Periods from 2 pi / 100 to 2 pi over ln(sigma)/4, which spans about [-1, 1.1]: a bin is 0.03 wide.
        frequencies = torch.exp(torch.linspace(0, math.log(100), dim // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor
        self.layers = nn.Sequential(nn.Linear(dim, hidden), activation(), nn.Linear(hidden, dim))

    def forward(self, sigma: Tensor) -> Tensor:
        phase = sigma.clamp(min=SMALLEST_SIGMA).log()[:, None] / 4 * self.frequencies
        return self.layers(torch.cat([phase.sin(), phase.cos()], dim=1))  # type: ignore[no-any-return]


class JumpEmbedding(nn.Module):
    """Embedding of (t, s): that of t, plus one of s that starts at zero, so that a student starts as its teacher."""

    def __init__(self, dim: int, hidden: int, activation: type[nn.Module], jumps: bool) -> None:
        super().__init__()
        self.t = TimeEmbedding(dim, hidden, activation)
        self.s = TimeEmbedding(dim, hidden, activation) if jumps else None
        if self.s is not None:
            last = self.s.layers[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, t: Tensor, s: Tensor | None) -> Tensor:
        embedding: Tensor = self.t(t)
        return embedding if self.s is None or s is None else embedding + self.s(s)
