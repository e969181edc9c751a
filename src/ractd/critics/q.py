"""Action values: what an action is worth where a policy goes on from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ractd.critics.critic import Critic, CriticPart
from ractd.data import OfflineDataset, return_to_go
from ractd.networks.ensemble import Ensemble
from ractd.sequences import Sequence
from ractd.settings import Count, Positive


@dataclass(frozen=True)
class QPart(CriticPart):
    """What a policy file says of action values."""

    kind: ClassVar[str] = "q"

    layers: tuple[Count, ...]
    """Widths of their Linear + ReLU layers."""
    layer_norm: bool
    members: Count
    """Networks of these layers whose mean is the value."""
    std: Positive
    """The unit of values, in that of the data's rewards."""
    gamma: float
    """Discount."""


class QFunction(Critic):
    """Q(s_n, a_n): the value of a sequence's *first* action at a condition.

    Later actions of a sequence are not asked about: Q takes it that they are the policy's. Methods learn it with their policy.
    """

    kind = "q"
    Part: ClassVar[type[CriticPart]] = QPart
    fitted_before = False

    def __init__(self, part: Any, condition_dim: int, action_dim: int) -> None:
        super().__init__()
        self.part, self.std, self.condition_dim = part, part.std, condition_dim
        self.ensemble = Ensemble(part.members, condition_dim + action_dim, part.layers, part.layer_norm)

    @classmethod
    def build(cls, part: Any, sequence: Sequence) -> Self:
        """Return action values for sequences of actions."""
        return cls(part, sequence.condition_dim, sequence.entries[1])

    def each(self, given: Tensor, entry: Tensor) -> Tensor:
        """Return every member's value of conditions `given [N, K]` and actions `entry [N, A]`: `[members, N]`."""
        return self.ensemble(torch.cat([given, entry], dim=1))  # type: ignore[no-any-return]

    def largest(self, config: Any, dataset: OfflineDataset) -> float:
        """Return the largest discounted return of a dataset."""
        return float(return_to_go(dataset, self.part.gamma).max()) / self.std
