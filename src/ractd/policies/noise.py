"""Noise for episodes that run side by side: each one's is its own."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_AHEAD, NUMBERS_AHEAD = 64, 16_384
"""Plans of an episode whose noise is drawn at once, and numbers, of which one plan may need more."""


class EpisodeNoise:
    """Standard normal draws that depend on the seed, the episode and the number of the plan, and on nothing else.

    An episode's noise is drawn some plans ahead, each such block by a generator that seed, episode and block decide.
    """

    def __init__(self, seed: int, draws: int, sample: tuple[int, ...]) -> None:
        """Draw `draws` times `sample [N, c, D]` for a plan: what a policy's sampler takes for its N candidates."""
        self.seed, self.shape = seed, (draws, *sample)
        self.ahead = min(max(NUMBERS_AHEAD // max(prod(self.shape), 1), 1), MOST_AHEAD)
        self.episodes: NDArray[np.int64] = np.empty(0, np.int64)
        """Those whose noise is at hand, in ascending order, [E]."""
        self.blocks: NDArray[np.int64] = np.empty(0, np.int64)
        """Which block is, [E]; -1 for none."""
        self.drawn = torch.empty(0, self.ahead, *self.shape)

    def at(self, episodes: NDArray[np.int64], plan: NDArray[np.int64] | int) -> Tensor:
        """Return the noise of episodes [B] for their plans of these numbers, [draws, B * N, c, D] as `Policy.draw_noise`."""
        block, within = np.divmod(plan, self.ahead)
        rows = self.episodes.searchsorted(episodes)
        if rows.max(initial=0) >= len(self.episodes) or (self.episodes[rows] != episodes).any():
            self._make_room(np.unique(episodes))
            rows = self.episodes.searchsorted(episodes)
        stale = self.blocks[rows] != block
        if stale.any():
            for row, number in zip(rows[stale], np.broadcast_to(block, rows.shape)[stale], strict=True):
                self._draw(int(row), int(number))
        return self.drawn[rows, within].transpose(0, 1).flatten(1, 2)

    def _make_room(self, episodes: NDArray[np.int64]) -> None:
        """Keep the noise of these episodes, as far as it is drawn, and forget that of others."""
        blocks, drawn = np.full(len(episodes), -1), torch.empty(len(episodes), self.ahead, *self.shape)
        _, new, old = np.intersect1d(episodes, self.episodes, return_indices=True)
        blocks[new], drawn[new] = self.blocks[old], self.drawn[old]
        self.episodes, self.blocks, self.drawn = episodes, blocks, drawn

    def _draw(self, row: int, block: int) -> None:
        seeds = np.random.SeedSequence([self.seed, int(self.episodes[row]), block])
        generator = torch.Generator().manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
        self.drawn[row] = torch.randn(self.ahead, *self.shape, generator=generator)
        self.blocks[row] = block
