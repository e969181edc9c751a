"""Run directories as `ractd train` leaves them, without training: what a report reads, with numbers known beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ractd.data import write_hdf5
from ractd.data.dataset import OfflineDataset, describe
from ractd.data.scores import normalized_score
from ractd.methods.ractd_settings import PRESETS
from ractd.settings import to_json
from ractd.training.results import VARIANTS

EPISODES = 100
MEANS = {label: 300.0 * (index + 1) for index, label in enumerate(VARIANTS)}
"""Mean return of each row, all different."""


def hopper_data(path: Path, name: str, env_id: str | None, episodes: int = 40) -> OfflineDataset:
    """Episodes of 10 steps whose returns are 10, 20, 30, ..., written to a file that a run can name."""
    rng, n = np.random.default_rng(0), 10 * episodes
    rewards = np.repeat(np.arange(1.0, episodes + 1), 10)
    timeouts = np.arange(n) % 10 == 9
    data = OfflineDataset(
        name,
        rng.normal(size=(n, 11)),
        rng.uniform(-1, 1, (n, 3)),
        rewards,
        np.zeros(n, bool),
        timeouts,
        env_id,
        str(path),
        "made for a test <&>",
    )
    write_hdf5(path, data)
    return data


def row(label: str, env_id: str | None, index: int) -> dict[str, Any]:
    """One row of a result; returns are spread evenly around the row's mean."""
    offline = {"estimated_return": 50.0 + index, "estimated_return_of_data": 49.0, "distance_to_data": 0.5}
    content: dict[str, Any] = {
        "nfe": [157, 1, 1, 1, 1, 2, 4][index],
        "sampler": "consistency",
        "steps": 1,
        "candidates": 1,
        "selection": "online",
        "selected_step": 1000,
        "reward_weight": "auto",
        "ms_per_action": [77.5, 0.44, 1.39, 0.42, 1.4, 1.09, 1.49][index],
        "threads": 1,
        "offline": offline,
    }
    if env_id is None:
        return content
    returns = MEANS[label] + np.linspace(-100, 100, EPISODES)
    scores = normalized_score(env_id, returns)
    spread = 1 / np.sqrt(EPISODES)
    content["evaluation"] = {
        "env_id": env_id,
        "backend": "envpool",
        "episodes": EPISODES,
        "execute": 1,
        "mean_return": returns.mean(),
        "return_se": returns.std(ddof=1) * spread,
        "mean_score": None if scores is None else scores.mean(),
        "score_se": None if scores is None else scores.std(ddof=1) * spread,
        "returns": returns.tolist(),
        "lengths": [10] * EPISODES,
    }
    return content


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
        "format_version": 1,
        "config": to_json(PRESETS["demo"]),
        "dataset": describe(data),
        "teacher_from": None,
        "plain": True,
        "invocations": [{"time": "2026-01-01T00:00:00+00:00", "command": command, "versions": versions}],
    }
    returns = data.episode_returns()
    scores = None if env_id is None else normalized_score(env_id, returns)
    result = {
        "format": "ractd-result",
        "format_version": 1,
        "complete": True,
        "rows": {label: row(label, env_id, index) for index, label in enumerate(VARIANTS)},
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
    (directory / "result.json").write_text(json.dumps(result))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics()))
    return directory
