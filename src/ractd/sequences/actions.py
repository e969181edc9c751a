"""Sequences of actions: the c actions from a transition on, given its last h observations (paper, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ractd.data import OfflineDataset
from ractd.data.ranges import within
from ractd.data.windows import Windows
from ractd.sequences.normalizer import Normalizer
from ractd.sequences.sequence import Sequence, SequencePart
from ractd.sequences.settings import ActionsSettings
from ractd.settings import Count


@dataclass(frozen=True)
class ActionsPart(SequencePart):
    """What a policy file says of sequences of actions."""

    kind: ClassVar[str] = "actions"

    observation_dim: Count
    action_dim: Count
    horizon: Count
    history: Count = 1


class Actions(Sequence):
    """x is the actions themselves, each dimension scaled to [-1, 1]; the condition is the standardised observations."""

    kind = "actions"
    Part = ActionsPart
    Settings = ActionsSettings
    rewarded = 1

    def __init__(self, part: ActionsPart) -> None:
        super().__init__()
        self.part = part
        self.observation_dim, self.action_dim = part.observation_dim, part.action_dim
        self.horizon, self.history = part.horizon, part.history
        self.shape = self.entries = (part.horizon, part.action_dim)
        self.normalizer = Normalizer(part.observation_dim, part.action_dim)

    @classmethod
    def describe(cls, config: Any, dataset: OfflineDataset) -> Actions:
        """Return sequences of `config.horizon` actions given `config.history` observations."""
        return cls(ActionsPart(dataset.observation_dim, dataset.action_dim, config.horizon, config.history))

    @classmethod
    def fit(cls, config: Any, dataset: OfflineDataset, device: torch.device) -> Actions:
        """Return the same, scaled as the data is."""
        sequence = cls.describe(config, dataset)
        sequence.normalizer = Normalizer.of(within(dataset.statistics(), config.action_range))
        return sequence.to(device)

    def samples(self, dataset: OfflineDataset) -> ActionSamples:
        """Return every transition of a dataset as a sample."""
        return ActionSamples(self, dataset)

    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the actions that x stands for: x, and 0 in constant dimensions, whatever a network made of them."""
        return x * self.normalizer.varying

    def to_actions(self, x: Tensor, observations: Tensor) -> Tensor:
        """Return x, clipped to the bounds, in the environment's units."""
        return self.normalizer.raw_action(x)

    def scaled(self, raw: Tensor) -> Tensor:
        """Scale raw actions `[..., A]` to [-1, 1]."""
        return self.normalizer.action(raw)


class ActionSamples:
    """A dataset's windows as conditions and sequences of actions."""

    def __init__(self, sequence: Actions, dataset: OfflineDataset) -> None:
        self.sequence = sequence
        device = sequence.normalizer.action_low.device
        self.windows = Windows(dataset, sequence.horizon, sequence.history, device)

    def draw(self, batch: int, generator: torch.Generator, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Draw transitions, uniform with replacement, of all or of `rows`."""
        return {"index": self.windows.draw(batch, generator, rows)}

    def observations(self, draws: dict[str, Tensor]) -> Tensor:
        """Return the last observations, raw, `[B, h, O]`."""
        return self.windows.gather(draws["index"])[0]

    def gather(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return observations `[B, h*O]` and actions `[B, c, A]`."""
        observations, actions = self.windows.gather(draws["index"])
        return self.sequence.condition(observations), self.sequence.scaled(actions)

    @property
    def summary(self) -> str:
        """How many there are, and how much of them is padding."""
        windows = self.windows
        return f"{len(windows):,} windows, {windows.padded_share:.1%} of their actions repeat an episode's last one"
