"""Noise for episodes that run side by side: each one's is its own."""

from __future__ import annotations

from math import prod
from typing import Any

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
        self.ahead = min(max(NUMBERS_AHEAD // prod(self.shape), 1), MOST_AHEAD)
        self.block = -1
        self.episodes: NDArray[np.int64] = np.empty(0, np.int64)
        self.drawn = torch.empty(0)

    def at(self, episodes: NDArray[np.int64], plan: int) -> Tensor:
        """Return the noise of episodes `[B]` for their plan of this number, `[draws, B * N, c, D]` like `Policy.draw_noise`."""
        block, within = divmod(plan, self.ahead)
        if block != self.block or not np.isin(episodes, self.episodes).all():
            self._draw(episodes, block)
        return self.drawn[within][:, np.searchsorted(self.episodes, episodes)].flatten(1, 2)

    def _draw(self, episodes: NDArray[np.int64], block: int) -> None:
        self.block, self.episodes = block, np.unique(episodes)
        draws, *sample = self.shape
        self.drawn = torch.empty(self.ahead, draws, len(self.episodes), *sample)
        generator = torch.Generator()
        for row, episode in enumerate(self.episodes.tolist()):
            state: NDArray[Any] = np.random.SeedSequence([self.seed, episode, block]).generate_state(1, np.uint64)
            generator.manual_seed(int(state[0]))
            self.drawn[:, :, row] = torch.randn(self.ahead, *self.shape, generator=generator)
