"""Windows: never across an episode, padded as said, no copy of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dataset_factory import make
from hypothesis import given, settings
from hypothesis import strategies as st

from ractd.data.windows import Windows
from ractd.errors import RactdError


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 7), st.integers(1, 5), st.booleans())
def test_windows_equal_brute_force(lengths, horizon, history, cut_off):
    data = make(lengths)
    if cut_off:
        data.terminals[-1] = data.timeouts[-1] = False
    windows = Windows(data, horizon, history)
    observations, actions = windows.gather(torch.arange(len(windows)))
    assert observations.shape == (len(windows), history, 3)
    assert actions.shape == (len(windows), horizon, 2)
    padded, n = 0, 0
    for start, length in zip(np.cumsum([0, *lengths[:-1]]), lengths, strict=True):
        inside = range(start, start + length)
        for n in inside:
            past = [max(m, inside[0]) for m in range(n - history + 1, n + 1)]
            ahead = [min(m, inside[-1]) for m in range(n, n + horizon)]
            np.testing.assert_array_equal(observations[n].numpy(), data.observations[past])
            np.testing.assert_array_equal(actions[n].numpy(), data.actions[ahead])
            padded += sum(m > inside[-1] for m in range(n, n + horizon))
    assert windows.padded_share == pytest.approx(padded / (len(windows) * horizon))


def test_windows_share_the_datasets_memory():
    data = make()
    windows = Windows(data, 4, 2)
    assert windows.observations.data_ptr() == data.observations.ctypes.data
    assert windows.actions.data_ptr() == data.actions.ctypes.data
    assert windows.first.dtype == windows.last.dtype == torch.int32


def test_draw_is_seeded_uniform_and_in_range():
    windows = Windows(make([5, 3, 7]), 4)
    index = windows.draw(30_000, torch.Generator().manual_seed(1))
    assert index.dtype == torch.int64
    assert torch.equal(index, windows.draw(30_000, torch.Generator().manual_seed(1)))
    counts = torch.bincount(index, minlength=15)
    assert len(counts) == 15
    assert (counts - 2000).abs().max() < 300
    observations, actions = windows.gather(index[:8])
    assert observations.is_contiguous()
    assert actions.is_contiguous()


@pytest.mark.parametrize(("horizon", "history", "option"), [(0, 1, "horizon"), (4, 0, "history"), (-1, 1, "horizon")])
def test_empty_windows_are_refused(horizon, history, option):
    with pytest.raises(RactdError, match=f"{option} is"):
        Windows(make(), horizon, history)
