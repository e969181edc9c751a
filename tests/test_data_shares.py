"""The best share of a dataset is a share of its transitions, in whole episodes, the best first."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_factory import make
from hypothesis import given, settings
from hypothesis import strategies as st

from ractd.data.dataset import OfflineDataset
from ractd.data.shares import best_episodes, return_spread
from ractd.errors import RactdError


def paid(lengths: Sequence[int], returns: Sequence[float]) -> OfflineDataset:
    """Episodes of given lengths and returns, paid in their last row."""
    data = make(lengths)
    data.rewards[:] = 0
    data.rewards[data.episode_ends - 1] = returns
    return data


def test_a_tenth_of_the_transitions_is_not_a_tenth_of_the_episodes() -> None:
    # The best episodes are the long ones, as where a fall ends an episode: the best tenth of the episodes has 30% of the rows.
    data = paid([10] * 18 + [50, 30], [1.0] * 18 + [100.0, 90.0])
    rows, sentence = best_episodes(data, 0.1)
    assert rows.tolist() == list(range(180, 230))
    assert sentence == "the best 1 of 20 episodes, with returns of at least 100: 19.2% of the transitions"
    assert len(best_episodes(data, 50 / 260)[0]) == 50  # exactly reached: no further episode
    assert len(best_episodes(data, 51 / 260)[0]) == 80


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=2, max_size=12), st.floats(0.001, 1))
def test_best_episodes_equal_brute_force(episodes: Any, share: float) -> None:
    lengths, returns = zip(*episodes, strict=True)
    data = paid(lengths, returns)
    rows: list[int] = []
    for e in sorted(range(len(episodes)), key=lambda e: (-returns[e], e)):
        rows += range(data.episode_starts[e], data.episode_ends[e])
        if len(rows) >= share * data.num_transitions and len(set(returns)) > 1:
            break
    assert best_episodes(data, share)[0].tolist() == sorted(rows)


def test_too_few_for_a_batch_is_refused() -> None:
    data = paid([10, 20, 30], [3.0, 2.0, 1.0])
    assert len(best_episodes(data, 0.1, batch=10)[0]) == 10
    with pytest.raises(RactdError, match=r"the share is 0.1, 10 transitions of 'toy', and a batch has 11"):
        best_episodes(data, 0.1, batch=11)


@pytest.mark.parametrize(("enough", "held"), [(0, 20), (20, 20), (21, 30), (79, 80), (80, 80), (5000, 80)])
def test_auto_is_a_quarter_or_enough(enough: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ractd.data.shares.ENOUGH", enough)
    data = paid([10] * 8, [float(i) for i in range(8)])
    assert best_episodes(data, "auto")[0].tolist() == [*range(80 - held, 80)]


def test_equal_returns_have_no_best() -> None:
    rows, sentence = best_episodes(paid([3, 5], [2.0, 2.0]), 0.1)
    np.testing.assert_array_equal(rows, np.arange(8))
    assert sentence == "all 2 episodes: they have the same return, 2, so that none is best"


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_shares_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(RactdError, match=r"share is .*, expected a share of the transitions in \(0, 1\]"):
        best_episodes(make(), share)


@pytest.mark.parametrize(
    ("lengths", "returns", "spread"),
    [
        ([10, 30], [4.0, 8.0], 3**0.5 / 7),  # of rows the mean is 7, the variance 3
        ([10, 30], [-4.0, -8.0], 3**0.5 / 7),
        ([10, 10], [1.0, -1.0], np.inf),
        ([10, 30], [3.3, 3.3], 0.0),
        ([10, 30], [0.0, 0.0], 0.0),
    ],
)
def test_how_much_returns_spread(lengths: list[int], returns: list[float], spread: float) -> None:
    assert return_spread(paid(lengths, returns)) == pytest.approx(spread, rel=1e-6)


def test_the_benchmarks_halves_are_the_same_transitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows a row, and whether it can be followed, is what it was; pieces of two lengths tell that they were cut."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    whole = make((6, 1, 5), terminal=(True, False, False))
    cut = importlib.import_module("halves").halves(whole, np.random.default_rng(0))
    assert sorted(cut.episode_lengths) == [1, 2, 3, 3, 3]
    place = {row.tobytes(): n for n, row in enumerate(whole.observations)}
    rows = [place[row.tobytes()] for row in cut.observations]
    assert sorted(rows) == list(range(12))
    for field in ("actions", "rewards", "terminals"):
        assert (getattr(cut, field) == getattr(whole, field)[rows]).all()
    assert cut.final_observations is not None
    for end, final in zip(cut.episode_ends, cut.final_observations, strict=True):
        row = rows[end - 1]
        if row in (5, 6, 11):
            assert np.isnan(final).all(), "the whole episode's end says nothing of what came after"
        else:
            assert cut.timeouts[end - 1]
            assert (final == whole.observations[row + 1]).all()
