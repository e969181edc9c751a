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

    def gather(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return conditions `[B, K]` and sequences `[B, c, D]` of draws, both normalised."""

    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return what R judges, in [-1, 1] where the data is, of sequences x and their conditions."""


PLANS_SEEN = 20_000
"""Plans of the data that tell how far their coefficients spread."""


class ActionSequences:
    """The c actions from a transition on, given its last h observations (paper, section 3.2)."""

    rewarded = 1

    def __init__(self, windows: Windows, normalizer: Normalizer) -> None:
        self.windows, self.normalizer = windows, normalizer
        self.shape = (windows.horizon, windows.actions.shape[1])

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw transitions, uniform with replacement."""
        return {"index": self.windows.draw(batch, generator)}

    def gather(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return observations `[B, h*O]` and actions `[B, c, A]`."""
        observations, actions = self.windows.gather(draws["index"])
        return self.normalizer.observation(observations).flatten(1), self.normalizer.action(actions)

    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return x: it is the actions."""
        return x


class Plans:
    """The c states after a transition's own, given that and a goal: a state that the data reached within c steps.

    From the step that reaches it, the goal is held (paper, sections 3.2 and 4.2: x is the whole state sequence, conditioned on the
    current state and the goal; when within it the goal is reached is ours, and is what the reward makes early).
    """

    def __init__(self, dataset: OfflineDataset, horizon: int, normalizer: PlanNormalizer) -> None:
        device = normalizer.state_low.device
        self.normalizer = normalizer
        self.states = torch.from_numpy(dataset.observations).to(device)
        ends = torch.from_numpy(dataset.episode_ends - 1)
        self.last = ends.repeat_interleave(torch.from_numpy(dataset.episode_lengths)).to(device)
        self.horizon = self.rewarded = horizon
        spectrum = normalizer.spectrum
        self.shape = (horizon if spectrum is None else len(spectrum.mean), dataset.observation_dim)

    def fit(self, seed: int) -> None:
        """Scale the spectrum, where there is one, by that of the data's plans."""
        if self.normalizer.spectrum is not None:
            draws = self.draw(PLANS_SEEN, torch.Generator().manual_seed(seed))
            condition, states = self._states(draws)
            self.normalizer.spectrum.fit(states, self.normalizer.ends(condition))

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw transitions, and when each one's goal is reached, uniform over the steps that there are."""
        index = torch.randint(len(self.states), (batch,), generator=generator)
        return {"index": index, "reach": torch.rand(batch, generator=generator)}

    def gather(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return states and goals `[B, 2 S]`, and plans `[B, c, S]`."""
        condition, states = self._states(draws)
        return condition, self.normalizer.encode(states, condition)

    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the states `[B, H, S]` of plans x."""
        return self.normalizer.decode(x, condition)

    def _states(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        index = draws["index"].to(self.states.device)
        ahead = torch.arange(1, self.horizon + 1, device=index.device)
        most = (self.last[index] - index).clamp(max=self.horizon)
        reach = ((draws["reach"] * most).long() + 1).minimum(most)
        rows = index.unsqueeze(1) + torch.minimum(ahead, reach.unsqueeze(1))
        states = self.states.index_select(0, rows.flatten()).view(*rows.shape, -1)
        observation = torch.cat([self.states[index], states[:, -1]], dim=1)
        return self.normalizer.observation(observation), self.normalizer.state(states)
