"""Training samples: windows of past observations and coming actions, gathered from the dataset's own memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ractd.data.dataset import OfflineDataset
from ractd.errors import RactdError


class Windows:
    """Every transition n of a dataset as a sample: observations n-h+1 .. n and actions n .. n+c-1 of its episode.

    Before an episode's first observation the window repeats it, after its last action that one. On the CPU the tensors
    share the dataset's memory; all that is added is two integers a transition. Raises RactdError unless h, c >= 1.
    """

    def __init__(
        self, dataset: OfflineDataset, horizon: int, history: int = 1, device: str | torch.device = "cpu"
    ) -> None:
        for option, value in (("horizon", horizon), ("history", history)):
            if value < 1:
                raise RactdError(f"{option} is {value}, expected at least 1")
        self.horizon, self.history, self.device = horizon, history, torch.device(device)
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
        return self._observations(index), self._actions(index)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Return `batch` sample numbers, int64 [batch], uniform with replacement, on the generator's device."""
        return torch.randint(len(self), (batch,), generator=generator, device=generator.device)

    def _observations(self, index: Tensor) -> Tensor:
        if self.history == 1:
            return self.observations.index_select(0, index).unsqueeze(1)
        back = torch.arange(1 - self.history, 1, device=self.device)
        rows = torch.maximum(index.unsqueeze(1) + back, self.first[index].unsqueeze(1))
        return self.observations.index_select(0, rows.flatten()).view(*rows.shape, -1)

    def _actions(self, index: Tensor) -> Tensor:
        ahead = torch.arange(self.horizon, device=self.device)
        rows = torch.minimum(index.unsqueeze(1) + ahead, self.last[index].unsqueeze(1))
        return self.actions.index_select(0, rows.flatten()).view(*rows.shape, -1)
