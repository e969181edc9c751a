"""Batches of transitions, scaled for networks: what methods that learn by temporal differences train on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Transitions as networks see them; `reward + discount * value(next_condition)` is the value that they show."""

    condition: Tensor
    """Standardised observations, `[B, K]`."""
    action: Tensor
    """In [-1, 1], `[B, A]`."""
    reward: Tensor
    """`[B]`, in the method's unit."""
    discount: Tensor
    """`[B]`, 0 after an end by the environment."""
    next_condition: Tensor
    """`[B, K]`."""
    noise: Tensor
    """Standard normal draws, `[B, A]`."""
