"""Returns-to-go and n-step sums equal slow sums, and nothing is ever taken of an observation that nobody made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dataset_factory import ENDS, make, with_ends
from hypothesis import given, settings
from hypothesis import strategies as st

from ractd.data import returns as returns_module
from ractd.data.dataset import OfflineDataset
from ractd.data.returns import n_step, resolved_penalty, return_to_go
from ractd.errors import RactdError


def slow_return_to_go(data: OfflineDataset, gamma: float, penalty: float) -> np.ndarray:
    out = np.zeros(data.num_transitions)
    following = 0.0
    for n in reversed(range(data.num_transitions)):
        if data.terminals[n] or data.timeouts[n] or n == data.num_transitions - 1:
            following = 0.0
        reward = float(data.rewards[n]) + (penalty if data.terminals[n] else 0.0)
        following = reward + gamma * following
        out[n] = following
    return out


lengths_and_ends = st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=12)


@settings(deadline=None)
@given(
    lengths_and_ends,
    st.floats(0, 1, allow_subnormal=False),
    st.sampled_from([0.0, -100.0, 3.5]),
    st.integers(1, 12),
    st.booleans(),
)
def test_return_to_go_equals_the_slow_sum(
    episodes: Any, gamma: float, penalty: float, block: int, cut_off: bool
) -> None:
    data = make([length for length, _ in episodes], terminal=[ended for _, ended in episodes], terminals_mean="failure")
    if cut_off:
        data.terminals[-1] = data.timeouts[-1] = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(returns_module, "BLOCK_ROWS", block)  # so that small episodes are cut too
        found = return_to_go(data, gamma, penalty)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_return_to_go(data, gamma, penalty), rtol=1e-5, atol=1e-5)


def test_a_timeout_is_no_termination() -> None:
    data = make([2, 2], terminal=[True, False], terminals_mean="failure")
    without, with_penalty = return_to_go(data, 0.5, 0.0), return_to_go(data, 0.5, -100.0)
    np.testing.assert_allclose(with_penalty - without, [-50, -100, 0, 0], rtol=1e-6)


def test_a_row_both_terminal_and_timeout_is_a_termination() -> None:
    data = make([2], terminal=[True], terminals_mean="failure")
    data.timeouts[-1] = True
    assert return_to_go(data, 1.0, -100.0)[-1] == pytest.approx(data.rewards[-1] - 100)


@pytest.mark.parametrize(("gamma", "penalty"), [(1.1, 0), (-0.1, 0), (float("nan"), 0), (0.9, float("inf"))])
def test_return_to_go_refuses_bad_options(gamma: float, penalty: float) -> None:
    with pytest.raises(RactdError, match=r"gamma|penalty"):
        return_to_go(make(), gamma, penalty)


@pytest.mark.parametrize("lengths", [[10] * 100_000, [1_000_000], [2000] * 500, [3] * 200_000 + [400_000]])
def test_return_to_go_of_a_million_rows_is_a_geometric_sum(lengths: list[int]) -> None:
    data = make(lengths, obs=1, act=1, terminal=[True] * len(lengths), terminals_mean="failure")
    data.rewards[:] = 1
    left = np.concatenate([np.arange(length, 0, -1) for length in lengths])  # rows to the end
    expected = (1 - 0.99**left) / (1 - 0.99) - 100 * 0.99 ** (left - 1)
    np.testing.assert_allclose(return_to_go(data, 0.99, -100.0), expected, rtol=1e-5, atol=1e-4)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from(ENDS)), min_size=1, max_size=8),
    st.integers(1, 12),
    st.floats(0.1, 1),
)
def test_n_step_sums_equal_the_slow_ones_and_stop_at_ends(episodes: Any, n: int, gamma: float) -> None:
    data = with_ends(episodes)
    found = n_step(data, n, gamma, termination_penalty=-7.0)
    rewards = data.rewards.astype(np.float64)
    rewards[data.episode_ends[data.ends.are("failure")] - 1] -= 7.0
    for e, (start, end) in enumerate(zip(data.episode_starts, data.episode_ends, strict=True)):
        cut, known = data.ends.are("cut")[e], data.final_observation_known[e]
        for row in range(start, end):
            last = end - 1 if cut and not known else end  # without a final observation the last one logged is the end
            steps = max(0, min(n, last - row))
            expected = sum(gamma**k * rewards[row + k] for k in range(steps))
            assert found.rewards[row] == pytest.approx(expected, rel=1e-5, abs=1e-5)
            assert found.steps[row] == steps
            assert found.known[row] == (steps > 0)
            ended = row + steps == end and not cut
            assert found.discounts[row] == (0 if ended or not steps else pytest.approx(gamma**steps, rel=1e-6))


def test_the_last_row_of_a_cut_without_final_observation_has_no_value_after_it() -> None:
    data = make([4], terminal=[False])
    found = n_step(data, 1, 0.9)
    assert found.known.tolist() == [True, True, True, False]
    assert found.discounts[-1] == 0


@pytest.mark.parametrize(("n", "gamma"), [(0, 0.9), (-1, 0.9), (3, 1.5)])
def test_n_step_refuses_bad_options(n: int, gamma: float) -> None:
    with pytest.raises(RactdError, match=r"n is|gamma"):
        n_step(make(), n, gamma)


def test_only_failures_are_penalised() -> None:
    data = with_ends([(3, "failure"), (3, "success"), (3, "cut")])
    without, with_penalty = return_to_go(data, 1.0), return_to_go(data, 1.0, -100.0)
    np.testing.assert_allclose(with_penalty - without, [-100] * 3 + [0] * 6, atol=1e-4)


@pytest.mark.parametrize(
    ("a_step", "penalty"),
    [(0, 0), (1e-4, -0.01), (0.5, -50), (1, -100), (2.5, -100), (10, -100), (20, -200), (1e6, -1e7)],
)
def test_a_failure_costs_what_ten_to_a_hundred_steps_pay(a_step: float, penalty: float) -> None:
    data = make([50, 50], terminals_mean="failure")
    data.rewards[:] = np.where(np.arange(100) % 2, a_step, -a_step)  # magnitudes count
    assert resolved_penalty(data, None) == pytest.approx(penalty, rel=1e-6)
    assert resolved_penalty(data, -3.0) == -3
