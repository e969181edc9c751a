"""Training samples: windows of past observations and coming actions, gathered from the dataset's own memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ractd.data.dataset import OfflineDataset
from ractd.data.returns import n_step
from ractd.errors import RactdError


class Windows:
    """Every transition n of a dataset as a sample: observations n-h+1 .. n and actions n .. n+c-1 of its episode.

    Before an episode's first observation the window repeats it, after its last action that one. On the CPU the tensors
    share the dataset's memory; all that is added is two integers a transition.

    Raises:
        RactdError: if the horizon c or the history h is less than 1.
    """

    def __init__(
        self, dataset: OfflineDataset, horizon: int, history: int = 1, device: str | torch.device = "cpu"
    ) -> None:
        for option, value in (("horizon", horizon), ("history", history)):
            if value < 1:
                raise RactdError(f"{option} is {value}, expected at least 1")
        self.dataset, self.horizon, self.history, self.device = dataset, horizon, history, torch.device(device)
        self.observations = torch.from_numpy(dataset.observations).to(self.device)
        self.actions = torch.from_numpy(dataset.actions).to(self.device)
        count, lengths = dataset.num_transitions, dataset.episode_lengths
        dtype = np.int32 if count < 2**31 else np.int64
        self.first = torch.from_numpy(np.repeat(dataset.episode_starts.astype(dtype), lengths)).to(self.device)
        self.last = torch.from_numpy(np.repeat((dataset.episode_ends - 1).astype(dtype), lengths)).to(self.device)
        # The row r before the last has c-1-r padded actions, for the last c-1 rows of the episode.
        tail = np.minimum(lengths, horizon - 1)
        self.padded_share = float((tail * (horizon - 1) - tail * (tail - 1) // 2).sum() / (count * horizon))
        """Share of all windows' actions that are padding, in [0, 1)."""

    def __len__(self) -> int:
        return len(self.actions)

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return observations [B, h, O] and actions [B, c, A] of samples `index` (int64 [B]), in the data's units."""
        index = index.to(self.device)
        ahead = torch.arange(self.horizon, device=self.device)
        rows = torch.minimum(index.unsqueeze(1) + ahead, self.last[index].unsqueeze(1))
        actions = self.actions.index_select(0, rows.flatten()).view(*rows.shape, -1)
        return self.observations_until(index, index), actions

    def draw(self, batch: int, generator: torch.Generator, rows: Tensor | None = None) -> Tensor:
        """Draw sample numbers, uniform with replacement, among `rows` (int64 [R]) or all.

        Returns:
            int64 [batch], on the generator's device.
        """
        count = len(self) if rows is None else len(rows)
        index = torch.randint(count, (batch,), generator=generator, device=generator.device)
        return index if rows is None else rows.to(index.device)[index]

    def observations_until(self, row: Tensor, index: Tensor) -> Tensor:
        """Return the h observations up to `row` [B] in the episode of `index` [B], as [B, h, O].

        Rows outside of the episode are its first or its last one. Both are on the windows' device.
        """
        if self.history == 1 and row is index:
            return self.observations.index_select(0, index).unsqueeze(1)
        back = torch.arange(1 - self.history, 1, device=self.device)
        rows = (row.unsqueeze(1) + back).clamp(self.first[index].unsqueeze(1), self.last[index].unsqueeze(1))
        return self.observations.index_select(0, rows.flatten()).view(*rows.shape, -1)


@dataclass(frozen=True, eq=False)
class Transition:
    """A batch of steps in the data's units: `rewards + discounts * value(next_observations)` is the value they show."""

    observations: Tensor
    """[B, h, O]."""
    actions: Tensor
    """[B, c, A], the first is the one that was taken."""
    rewards: Tensor
    """[B], the discounted sum of n rewards, of fewer towards an episode's end."""
    discounts: Tensor
    """[B], gamma to the power of the steps that were summed; 0 after an end by the environment."""
    next_observations: Tensor
    """[B, h, O], up to the observation after those steps. Always finite: where it wasn't logged the discount is 0."""
    next_actions: Tensor
    """[B, A], the action that was taken there."""
    continued: Tensor
    """bool [B], whether one was: False after an episode's last row, where `next_actions` are that row's."""


class Transitions:
    """Windows with n-step rewards and the windows after them, for methods that learn by temporal differences.

    Which values may be taken of what came after is said by `ractd.data.returns.n_step`.

    Raises:
        RactdError: if n is less than 1, gamma outside of [0, 1], or nothing is known to follow any row.
    """

    def __init__(self, windows: Windows, n: int, gamma: float, termination_penalty: float = 0.0) -> None:
        dataset, device = windows.dataset, windows.device
        sums = n_step(dataset, n, gamma, termination_penalty)
        if not sums.known.any():
            raise RactdError(
                f"dataset {dataset.name!r}: nothing is known to follow any of its rows, since all its episodes are cut after "
                "one step; expected next observations, 'final_observations', or longer episodes"
            )
        self.windows = windows
        self.rows = torch.from_numpy(np.flatnonzero(sums.known))
        """The samples that something is known to follow, int64 [R], on the CPU; the last row of a cut episode without a
        final observation is none."""
        self.rewards, self.discounts, self.steps = (
            torch.from_numpy(array).to(device) for array in (sums.rewards, sums.discounts, sums.steps)
        )
        self._final = None
        if dataset.final_observations is not None:
            self._ends = torch.from_numpy(dataset.episode_ends).to(device)
            known = dataset.final_observation_known[:, None]
            final = np.where(known, dataset.final_observations, dataset.observations[dataset.episode_ends - 1])
            self._final = torch.from_numpy(final).to(device)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw sample numbers among `rows`, int64 [batch], uniform with replacement, on the generator's device."""
        return self.windows.draw(batch, generator, self.rows)

    def gather(self, index: Tensor) -> Transition:
        """Return the transitions of samples `index` (int64 [B], among `rows`)."""
        index = index.to(self.windows.device)
        after = index + self.steps[index]
        following = self.windows.observations_until(after, index)
        if self._final is not None:
            episode = torch.searchsorted(self._ends, index, right=True)
            ended = (after == self._ends[episode]).unsqueeze(1)
            following[:, -1] = torch.where(ended, self._final[episode], following[:, -1])
        last = self.windows.last[index]
        next_actions = self.windows.actions.index_select(0, torch.minimum(after, last))
        return Transition(
            *self.windows.gather(index),
            self.rewards[index],
            self.discounts[index],
            following,
            next_actions,
            after <= last,
        )
