"""OfflineDataset: episodes, statistics, fingerprint, returns-to-go."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_factory import arrays, make
from hypothesis import given, settings
from hypothesis import strategies as st

from ractd.data import ranges
from ractd.data.dataset import OfflineDataset
from ractd.errors import RactdError

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


lengths_and_ends = st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=12)


@settings(deadline=None)
@given(lengths_and_ends)
def test_episodes(episodes: Any) -> None:
    lengths = [length for length, _ in episodes]
    data = make(lengths, terminal=[ended for _, ended in episodes])
    assert data.episode_lengths.tolist() == lengths
    assert data.num_episodes == len(lengths)
    assert data.episode_ends.tolist() == np.cumsum(lengths).tolist()
    starts, ends = data.episode_starts, data.episode_ends
    returns = [data.rewards[a:b].sum(dtype=np.float64) for a, b in zip(starts, ends, strict=True)]
    np.testing.assert_allclose(data.episode_returns(), returns, rtol=1e-12)


def test_rows_after_the_last_end_are_an_episode() -> None:
    data = make([4, 3])
    data.terminals[-1] = data.timeouts[-1] = False
    assert data.episode_ends.tolist() == [4, 7]
    fields = arrays([6])
    fields["terminals"][:] = fields["timeouts"][:] = False
    assert OfflineDataset(name="x", **fields).episode_ends.tolist() == [6]


def test_arrays_in_the_right_form_are_not_copied_and_others_are_converted() -> None:
    fields = arrays()
    data = OfflineDataset(name="x", **fields)
    assert all(getattr(data, name) is fields[name] for name in fields)
    odd = fields | {
        "observations": np.asfortranarray(fields["observations"].astype(np.float64)),
        "terminals": [0, 1] * 7 + [1],
    }
    converted = OfflineDataset(name="x", **odd)
    assert converted.observations.flags.c_contiguous
    assert converted.observations.dtype == np.float32
    assert converted.terminals.dtype == np.bool_
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "y"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("observations", np.zeros(15, np.float32), r"'observations' has shape \(15,\)"),
        ("actions", np.zeros((15, 0), np.float32), r"'actions' has shape \(15, 0\)"),
        ("rewards", np.zeros((15, 1), np.float32), r"'rewards' has shape \(15, 1\)"),
        ("rewards", np.zeros(14, np.float32), "different lengths.*'rewards': 14"),
    ],
)
def test_wrong_shapes_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(RactdError, match=message):
        OfflineDataset(name="x", **(arrays() | {field: value}))


@pytest.mark.parametrize("actions", [np.zeros((15, 2), np.int64), np.zeros((15, 2), bool), [[0, 1]] * 15])
def test_integer_and_boolean_actions_are_refused(actions: Any) -> None:
    with pytest.raises(RactdError, match=r"'actions' has dtype (int64|bool), expected float32; save them as float32"):
        OfflineDataset(name="x", **(arrays() | {"actions": actions}))


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(RactdError, match="empty"):
        OfflineDataset(name="x", **{name: value[:0] for name, value in arrays().items()})


def test_statistics_agree_with_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "BLOCK_ROWS", 4)
    data = make([50, 31])
    found = data.statistics()
    np.testing.assert_allclose(found.observation_mean, data.observations.mean(0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(found.observation_std, data.observations.std(0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_array_equal(found.action_low, data.actions.min(0))
    np.testing.assert_array_equal(found.action_high, data.actions.max(0))
    scales = [name for name in found.__dataclass_fields__ if not name.endswith("outliers")]
    assert {getattr(found, name).dtype for name in scales} == {np.dtype(np.float32)}


@pytest.mark.parametrize("constant", [0.0, 1.0, -3e4, 1e9, 0.1])
def test_scaling_by_statistics_is_finite_for_constant_dimensions(constant: float) -> None:
    data = make()
    data.observations[:, 1] = constant
    data.actions[:, 0] = constant
    found = data.statistics()
    assert found.observation_std[1] == 1
    assert found.action_low[0] == found.action_high[0] == np.float32(constant)


def test_a_small_spread_around_a_large_mean_is_not_lost() -> None:
    rng = np.random.default_rng(0)
    data = make([10_000])
    data.observations[:, 0] = 1e4 + rng.normal(size=10_000)
    assert data.statistics().observation_std[0] == pytest.approx(1, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_fingerprint_changes_with_any_byte(data: st.DataObject) -> None:
    before = make()
    field = data.draw(st.sampled_from(list(arrays())))
    after = make()
    flat = getattr(after, field).reshape(-1).view(np.uint8)
    flat[data.draw(st.integers(0, len(flat) - 1))] ^= 1
    assert before.fingerprint == make().fingerprint
    assert after.fingerprint != before.fingerprint


def test_fingerprint_is_of_the_data_and_not_of_their_name() -> None:
    assert make(name="a").fingerprint == make(name="b", env_id="Hopper-v5").fingerprint
    fields = arrays([4], obs=2, act=3)
    swapped = fields | {
        "observations": fields["observations"].reshape(4, 2)[:, :1],
        "actions": np.zeros((4, 4), np.float32),
    }
    assert OfflineDataset(name="x", **fields).fingerprint != OfflineDataset(name="x", **swapped).fingerprint


def test_import_is_light() -> None:
    code = (
        "import sys; from ractd.data import load_dataset, OfflineDataset, summarize, list_datasets; "
        "from ractd import validate; "
        "print([m for m in ('torch', 'h5py', 'minari', 'gymnasium', 'scipy.signal', 'envpool') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_the_names_of_the_package_stay_functions_after_every_import() -> None:
    import ractd.data
    import ractd.data.inspect
    import ractd.data.registry

    assert all(callable(getattr(ractd.data, name)) for name in ractd.data.__all__)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared example datasets are not on this machine")
@pytest.mark.parametrize(
    ("name", "transitions", "episodes", "mean_return"),
    [("hopper-medium-replay", 199_506, 1_174, 439), ("halfcheetah-medium-replay", 150_000, 150, 2_271)],
)
def test_shared_datasets_have_their_published_sizes(
    name: str, transitions: int, episodes: int, mean_return: int
) -> None:
    from ractd.data import load_dataset

    data = load_dataset(SHARED / f"{name}.hdf5")
    assert (data.num_transitions, data.num_episodes) == (transitions, episodes)
    assert data.episode_returns().mean() == pytest.approx(mean_return, abs=1)
    assert data.env_id is not None
