"""Small datasets for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ractd.data.dataset import OfflineDataset
from ractd.settings import TerminalsMean


def arrays(
    lengths: Sequence[int] = (5, 3, 7),
    obs: int = 3,
    act: int = 2,
    terminal: Sequence[bool] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Random fields; episode e ends by a terminal if `terminal[e]`, else by a timeout (they alternate by default)."""
    rng = np.random.default_rng(seed)
    rows = sum(lengths)
    last = np.cumsum(lengths) - 1
    ended = np.arange(len(lengths)) % 2 == 0 if terminal is None else np.asarray(terminal, dtype=bool)
    terminals, timeouts = np.zeros(rows, bool), np.zeros(rows, bool)
    terminals[last[ended]] = True
    timeouts[last[~ended]] = True
    return {
        "observations": rng.normal(size=(rows, obs)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(rows, act)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }


def make(
    lengths: Sequence[int] = (5, 3, 7),
    name: str = "toy",
    env_id: str | None = None,
    terminals_mean: TerminalsMean | None = None,
    **options: Any,
) -> OfflineDataset:
    fields = arrays(lengths, **options)
    return OfflineDataset(name=name, env_id=env_id, recipe="random numbers", terminals_mean=terminals_mean, **fields)


ENDS = ("failure", "success", "cut", "cut, with its final observation", "failure, with its final observation")


def with_ends(episodes: list[tuple[int, str]]) -> OfflineDataset:
    """Random episodes of given lengths and ends, told apart by success flags."""
    data = make([length for length, _ in episodes], terminal=[not end.startswith("cut") for _, end in episodes])
    successes = np.zeros(data.num_transitions, bool)
    successes[data.episode_ends[[end == "success" for _, end in episodes]] - 1] = True
    if not successes.any():  # flags that are never raised say nothing: another episode shows that these do
        return with_ends([*episodes, (2, "success")])
    final = np.full((data.num_episodes, data.observation_dim), np.nan, np.float32)
    for e, (_, end) in enumerate(episodes):
        if "final" in end:
            final[e] = 1000 + e
    fields = {name: getattr(data, name) for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    return OfflineDataset("ends", **fields, successes=successes, final_observations=final)


def save_npz(path: Path, data: OfflineDataset) -> None:
    """Save a dataset as a user would."""
    fields = {name: getattr(data, name) for name in FIELDS}
    np.savez_compressed(path, **fields, env_id=np.array(data.env_id or ""), recipe=np.array(data.recipe))


def save_fields(path: Path, fields: dict[str, Any]) -> Path:
    """Save fields as HDF5, whatever they are called."""
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            file[name] = values
    return path


FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts")


def assert_same(a: OfflineDataset, b: OfflineDataset) -> None:
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), err_msg=field)
        assert getattr(a, field).dtype == getattr(b, field).dtype
    assert a.fingerprint == b.fingerprint
