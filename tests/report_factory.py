"""Run directories as `ractd train` leaves them, without training: what a report reads, with numbers known beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ractd.data import write_hdf5
from ractd.data.dataset import OfflineDataset, describe
from ractd.data.scores import REFERENCES, normalized_score
from ractd.envs.evaluate import Protocol
from ractd.methods.ractd_settings import PRESETS
from ractd.runs.rows import Result, Row, read_result
from ractd.settings import to_json

EPISODES = 100
VARIANTS = {
    "RACTD": ("student", 1, 0.42, 1200.0),
    "RACTD, 32 candidates": ("student", 1, 1.4, 1500.0),
    "RACTD, 2 steps": ("student", 2, 1.09, 1800.0),
    "RACTD, 4 steps": ("student", 4, 1.49, 2100.0),
    "plain student": ("plain", 1, 0.44, 600.0),
    "plain student, 32 candidates": ("plain", 1, 1.39, 900.0),
    "teacher": ("teacher", 157, 77.5, 300.0),
}
"""Policy, network evaluations, milliseconds and mean return of each row."""
MEANS = {label: mean for label, (*_, mean) in VARIANTS.items()}
"""Mean return of each row, all different."""


def hopper_data(path: Path, name: str, env_id: str | None, episodes: int = 40) -> OfflineDataset:
    """Episodes of 10 steps whose returns are 10, 20, 30, ..., written to a file that a run can name."""
    rng, n = np.random.default_rng(0), 10 * episodes
    rewards = np.repeat(np.arange(1.0, episodes + 1, dtype=np.float32), 10)
    timeouts = np.arange(n) % 10 == 9
    data = OfflineDataset(
        name,
        rng.normal(size=(n, 11)).astype(np.float32),
        rng.uniform(-1, 1, (n, 3)).astype(np.float32),
        rewards,
        np.zeros(n, bool),
        timeouts,
        env_id,
        str(path),
        "made for a test <&>",
    )
    write_hdf5(path, data)
    return data


def measured(variant: str, policy: str, env_id: str | None, returns: Sequence[float], **columns: Any) -> Row:
    """A row of hopper's results with these returns."""
    found: dict[str, Any] = {"checkpoint": "best", "selection": "online", "step": 1000, "sampler": "consistency"}
    found |= {
        "method": "ractd",
        "dataset": "hopper-mixed",
        "seed": 0,
        "steps": 1,
        "candidates": 1,
        "nfe": 1,
        "plans": False,
    }
    if env_id is not None:
        protocol = Protocol(env_id, "envpool", len(returns), 1, 1, 0, 1000)
        episodes = {"returns": tuple(returns), "lengths": (10,) * len(returns), "terminated": (True,) * len(returns)}
        found |= {"protocol": protocol, **episodes}
    return Row(**(found | {"variant": variant, "policy": policy} | columns))


def row(label: str, env_id: str | None) -> Row:
    """One row of a result; returns are spread evenly around the row's mean."""
    policy, nfe, milliseconds, mean = VARIANTS[label]
    offline = {"estimated_return": 49.0 + mean / 300, "estimated_return_of_data": 49.0, "distance_to_data": 0.5}
    columns = {"nfe": nfe, "ms_per_action": milliseconds, "threads": 1, "offline": offline}
    returns = (mean + np.linspace(-100, 100, EPISODES)).tolist()
    return measured(label, policy, env_id, returns, **columns)


def metrics(steps: int = 2000) -> list[dict[str, Any]]:
    """Every stage's metrics as training logs them, with an evaluation at each quarter of the students' steps."""
    terms = {
        "return": {"return_mse": 1.0},
        "teacher": {"dsm": 1.0},
        "plain": {"ctm": 1.0, "dsm": 2.0, "reward": -1.0, "bound": 0.1},
        "student": {"ctm": 1.0, "dsm": 2.0, "reward": -1.0, "bound": 0.1},
    }
    lines: list[dict[str, Any]] = []
    for stage, values in terms.items():
        for step in range(100, steps + 1, 100):
            line: dict[str, Any] = {"stage": stage, "step": step, "loss": 3.0 * np.exp(-step / steps)}
            line |= {name: value * np.exp(-step / steps) for name, value in values.items()}
            line |= {"gradient_norm": 0.5, "samples_per_second": 2e4, "learning_rate": 1e-4}
            if stage in ("plain", "student") and step % (steps // 4) == 0:
                line |= {"episode_return": float(step), "episode_return_se": 10.0, "watch_out_of_bounds": 0.02}
            lines.append(line)
    return lines


def make_run(directory: Path, name: str = "hopper-mixed", env_id: str | None = "Hopper-v5") -> Path:
    """A finished run of the demo preset with its dataset beside it."""
    directory.mkdir(parents=True)
    data = hopper_data(directory.parent / f"{name}.hdf5", name, env_id)
    versions = {"ractd": "0.1.0", "python": "3.11.7", "torch": "2.13.0"}
    command = ["/somewhere/bin/ractd", "train", name, "--preset", "demo"]
    config = {
        "format": "ractd-run",
        "format_version": 2,
        "method": "ractd",
        "config": to_json(PRESETS["demo"]),
        "dataset": describe(data),
        "teacher_from": None,
        "plain": True,
        "invocations": [{"time": "2026-01-01T00:00:00+00:00", "command": command, "versions": versions}],
    }
    returns = data.episode_returns()
    scores = None if env_id is None else normalized_score(env_id, returns)
    rows = tuple(row(label, env_id) for label in VARIANTS)
    content = {
        "complete": True,
        "dataset": describe(data),
        "behavior": {
            "mean_return": float(returns.mean()),
            "max_return": float(returns.max()),
            "mean_score": None if scores is None else float(scores.mean()),
            "episodes": len(returns),
            "returns": returns.tolist(),
        },
        "stages": {
            "return": {"steps": 2000, "seconds": 75.0},
            "teacher": {"steps": 2000, "seconds": 4000.0},
            "student": {"steps": 2000, "seconds": 61.0, "best": {"step": 1000, "value": 1000.0}},
        },
        "versions": versions,
    }
    (directory / "config.json").write_text(json.dumps(config))
    Result(directory, content, rows).write(directory / "result.json")
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics()))
    return directory


def change_rows(directory: Path, change: Callable[[Row], Row | None]) -> None:
    """Write a run's result again with what `change` makes of each row; a row of which it makes None is left out."""
    result = read_result(directory)
    assert result is not None
    rows = tuple(row for row in map(change, result.rows) if row is not None)
    replace(result, rows=rows).write(directory / "result.json")


def with_score(row: Row, score: float) -> Row:
    """A row whose returns are shifted to a mean score."""
    low, high = REFERENCES["hopper"]
    returns = np.array(row.returns)
    return replace(row, returns=tuple((returns - returns.mean() + low + score / 100 * (high - low)).tolist()))
