"""What is learnt: sequences x, and what they are conditioned on. The objectives know nothing more about either."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ractd.data.dataset import OfflineDataset
from ractd.data.windows import Windows
from ractd.models.normalizer import Normalizer, PlanNormalizer


class Samples(Protocol):
    """A source of sequences x in [-1, 1] with their conditions."""

    shape: tuple[int, int]
    """(c, D) of one x."""
    rewarded: int
    """R is summed over the first so many steps of a sequence: 1 action, or a whole plan."""

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw what decides on `batch` samples, each tensor `[batch]`."""

    def observations(self, draws: dict[str, Tensor]) -> Tensor:
        """Return what the policy sees at draws, raw, `[B, h, O]`."""

    def gather(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return conditions `[B, K]` and sequences `[B, c, D]` of draws, both normalised."""

    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return what R judges, in [-1, 1] where the data is, of sequences x and their conditions."""


PLANS_SEEN = 20_000
"""Plans of the data that tell how far their control points spread."""


class ActionSequences:
    """The c actions from a transition on, given its last h observations (paper, section 3.2)."""

    rewarded = 1

    def __init__(self, windows: Windows, normalizer: Normalizer) -> None:
        self.windows, self.normalizer = windows, normalizer
        self.shape = (windows.horizon, windows.actions.shape[1])

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw transitions, uniform with replacement."""
        return {"index": self.windows.draw(batch, generator)}

    def observations(self, draws: dict[str, Tensor]) -> Tensor:
        """Return the last observations, raw, `[B, h, O]`."""
        return self.windows.gather(draws["index"])[0]

    def gather(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return observations `[B, h*O]` and actions `[B, c, A]`."""
        observations, actions = self.windows.gather(draws["index"])
        return self.normalizer.observation(observations).flatten(1), self.normalizer.action(actions)

    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the actions that x stands for: x, and 0 in constant dimensions, whatever a network made of them."""
        return x * self.normalizer.varying


class Plans:
    """The H states after a transition's own, given that and a goal: a state that the data came to later in the episode.

    From the step that reaches it, the goal is held (paper, sections 3.2 and 4.2: x is the whole state sequence, conditioned on the
    current state and the goal). How much later is ours: exponentially distributed, half a horizon on average, so that direct ways
    are the likely ones and goals out of a plan's reach are known as well.
    """

    def __init__(self, dataset: OfflineDataset, horizon: int, normalizer: PlanNormalizer) -> None:
        device = normalizer.state_low.device
        self.normalizer = normalizer
        self.states = torch.from_numpy(dataset.observations).to(device)
        ends = torch.from_numpy(dataset.episode_ends - 1)
        self.last = ends.repeat_interleave(torch.from_numpy(dataset.episode_lengths)).to(device)
        self.horizon = self.rewarded = horizon
        spline = normalizer.spline
        self.shape = (horizon if spline is None else len(spline.least_squares), dataset.observation_dim)

    def fit(self, seed: int) -> None:
        """Scale the spline, where there is one, by that of the data's plans."""
        if self.normalizer.spline is not None:
            draws = self.draw(PLANS_SEEN, torch.Generator().manual_seed(seed))
            condition, states = self._states(draws)
            self.normalizer.spline.fit(states, self.normalizer.start(condition))

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw transitions, and how much later each one's goal is reached, in units of its mean."""
        index = torch.randint(len(self.states), (batch,), generator=generator)
        return {"index": index, "later": torch.empty(batch).exponential_(generator=generator)}

    def observations(self, draws: dict[str, Tensor]) -> Tensor:
        """Return states and goals, raw, `[B, 1, 2 S]`."""
        index, goal = self._rows(draws)
        return torch.cat([self.states[index], self.states[goal]], dim=1).unsqueeze(1)

    def gather(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return states and goals `[B, 2 S]`, and plans `[B, c, S]`."""
        condition, states = self._states(draws)
        return condition, self.normalizer.encode(states, condition)

    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the states `[B, H, S]` of plans x."""
        return self.normalizer.decode(x, condition)

    def _rows(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the rows of the state and of the goal, each `[B]`."""
        index = draws["index"].to(self.states.device)
        later = (draws["later"].to(index.device) * self.horizon / 2).long() + 1
        return index, torch.minimum(index + later, self.last[index])

    def _states(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return conditions `[B, 2 S]` and the states to come in [-1, 1], `[B, H, S]`."""
        index, goal = self._rows(draws)
        ahead = torch.arange(1, self.horizon + 1, device=index.device)
        rows = torch.minimum(index.unsqueeze(1) + ahead, goal.unsqueeze(1))
        states = self.states.index_select(0, rows.flatten()).view(*rows.shape, -1)
        observation = torch.cat([self.states[index], self.states[goal]], dim=1)
        return self.normalizer.observation(observation), self.normalizer.state(states)
