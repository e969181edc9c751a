"""Batches of transitions, scaled for networks: what methods that learn by temporal differences train on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ractd.data import OfflineDataset
from ractd.data.windows import Transitions, Windows
from ractd.sequences import Sequence


class Batch(NamedTuple):
    """Transitions as networks see them; `reward + discount * value(next_condition)` is the value that they show."""

    condition: Tensor
    """Standardised observations, `[B, K]`."""
    action: Tensor
    """In [-1, 1], `[B, A]`."""
    reward: Tensor
    """`[B]`, in units of `reward_unit`."""
    discount: Tensor
    """`[B]`, 0 after an end by the environment."""
    next_condition: Tensor
    """`[B, K]`."""
    next_action: Tensor
    """The logged one there, in [-1, 1], `[B, A]`."""
    continued: Tensor
    """bool `[B]`, False where none was logged."""


class TransitionSamples:
    """The transitions of a dataset that something is known to follow, with the rewards of `n` steps; see `Transitions`."""

    def __init__(
        self, sequence: Sequence, dataset: OfflineDataset, n: int, gamma: float, termination_penalty: float = 0.0
    ) -> None:
        self.sequence, self.unit = sequence, reward_unit(dataset)
        windows = Windows(dataset, 1, sequence.history, sequence.normalizer.action_low.device)
        self.transitions = Transitions(windows, n, gamma, termination_penalty)

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw transitions, uniform with replacement."""
        return {"index": self.transitions.draw(batch, generator)}

    def gather(self, draws: dict[str, Tensor]) -> Batch:
        """Return the transitions of draws."""
        found, sequence = self.transitions.gather(draws["index"]), self.sequence
        return Batch(
            sequence.condition(found.observations),
            sequence.scaled(found.actions[:, 0]),
            found.rewards / self.unit,
            found.discounts,
            sequence.condition(found.next_observations),
            sequence.scaled(found.next_actions),
            found.continued,
        )


def reward_unit(dataset: OfflineDataset) -> float:
    """Return the unit in which the returns of a dataset's episodes span as much as its longest episode has steps.

    Rewards are then about 1 a step, whatever the data's units. On D4RL's Gym sets this is what IQL's authors do: a span of 1000.
    """
    span = float(np.ptp(dataset.episode_returns()))
    return span / int(dataset.episode_lengths.max()) if span > 0 else 1.0
