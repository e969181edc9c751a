"""Windows: never across an episode, padded as said, no copy of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from dataset_factory import ENDS, make, with_ends
from hypothesis import given, settings
from hypothesis import strategies as st

from ractd.data.windows import Transitions, Windows
from ractd.errors import RactdError


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 7), st.integers(1, 5), st.booleans())
def test_windows_equal_brute_force(lengths: list[int], horizon: int, history: int, cut_off: bool) -> None:
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


def test_windows_share_the_datasets_memory() -> None:
    data = make()
    windows = Windows(data, 4, 2)
    assert windows.observations.data_ptr() == data.observations.ctypes.data
    assert windows.actions.data_ptr() == data.actions.ctypes.data
    assert windows.first.dtype == windows.last.dtype == torch.int32


def test_draw_is_seeded_uniform_and_in_range() -> None:
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
def test_empty_windows_are_refused(horizon: int, history: int, option: str) -> None:
    with pytest.raises(RactdError, match=f"{option} is"):
        Windows(make(), horizon, history)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from(ENDS)), min_size=1, max_size=8),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_transitions_equal_brute_force(episodes: Any, n: int, gamma: float, horizon: int, history: int) -> None:
    data = with_ends(episodes)
    windows = Windows(data, horizon, history)
    if not (data.final_observation_known | ~data.ends.are("cut") | (data.episode_lengths > 1)).any():
        with pytest.raises(RactdError, match="nothing is known to follow"):
            Transitions(windows, n, gamma)
        return
    transitions = Transitions(windows, n, gamma, termination_penalty=-7.0)
    index = torch.arange(len(windows))
    batch = transitions.gather(index)
    observations, actions = windows.gather(index)
    torch.testing.assert_close(batch.observations, observations, rtol=0, atol=0)
    torch.testing.assert_close(batch.actions, actions, rtol=0, atol=0)
    assert batch.next_observations.shape == observations.shape
    assert torch.isfinite(batch.next_observations).all()
    drawn = set(transitions.draw(2000, torch.Generator().manual_seed(0)).tolist())
    assert drawn <= set(transitions.rows.tolist())
    for e, (start, end) in enumerate(zip(data.episode_starts, data.episode_ends, strict=True)):
        known = data.final_observation_known[e]
        final = data.final_observations if known else None
        logged = [*data.observations[start:end], *([] if final is None else [final[e]])]
        cut, failure = data.ends.are("cut")[e], data.ends.are("failure")[e]
        for row in range(start, end):
            steps = min(n, (end if known or not cut else end - 1) - row)
            assert (row in transitions.rows) == (steps > 0)
            if steps == 0:
                continue
            at = row - start + steps  # of what follows, in the episode
            rewards = [data.rewards[row + k] - 7.0 * (failure and row + k == end - 1) for k in range(steps)]
            expected = sum(gamma**k * reward for k, reward in enumerate(rewards))
            assert batch.rewards[row].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)
            ended = row + steps == end and not cut
            assert batch.discounts[row].item() == (0 if ended else pytest.approx(gamma**steps, rel=1e-6))
            assert batch.continued[row] == (row + steps < end)
            np.testing.assert_array_equal(batch.next_actions[row].numpy(), data.actions[min(row + steps, end - 1)])
            if known or not ended:
                past = [max(k, 0) for k in range(at - history + 1, at + 1)]
                np.testing.assert_array_equal(batch.next_observations[row].numpy(), [logged[k] for k in past])


def test_every_row_that_something_follows_is_drawn() -> None:
    transitions = Transitions(Windows(with_ends([(4, "cut"), (2, "cut"), (3, "failure")]), 2), 1, 0.9)
    counts = torch.bincount(transitions.draw(9000, torch.Generator().manual_seed(3)), minlength=11)
    assert counts[[3, 5]].tolist() == [0, 0]
    assert (counts[transitions.rows] > 700).all()


def test_windows_are_drawn_among_rows() -> None:
    rows = torch.tensor([2, 9, 11])
    drawn = Windows(make(), 2).draw(300, torch.Generator().manual_seed(0), rows)
    assert set(drawn.tolist()) == {2, 9, 11}
