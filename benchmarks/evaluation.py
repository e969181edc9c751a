"""Environment steps per second of a whole evaluation: ractd's against `gymnasium.vector.SyncVectorEnv`.

    python benchmarks/evaluation.py [--run runs/a/policy/student]

Without `--run`, a network of the cpu preset's size is evaluated for its cost, and a packaged Hopper policy decides what
is done, so that episodes are as long as a trained policy's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table, summary, write_result
from numpy.typing import NDArray

from ractd.envs import ActionSequencePolicy, envpool_vector, evaluate
from ractd.envs.vector import MakeVector

GOAL = 4.0
ENV_ID = "Hopper-v5"


def stand_in() -> ActionSequencePolicy:
    """Costs what the cpu preset's student costs, acts as a half-trained Hopper policy."""
    import torch

    from ractd.config import MLP, PRESETS
    from ractd.data.behaviors import load_actors, sac_actor
    from ractd.models import build_network

    config = PRESETS["cpu"]
    network = build_network(config.teacher.network, config.horizon, 3, 11, jumps=True).eval()
    assert isinstance(config.teacher.network, MLP)
    weights = {key: value[None] for key, value in load_actors("hopper.safetensors")["150000"].items()}
    actor = sac_actor(weights, np.random.default_rng(0), noise=0)
    one = np.zeros(1, np.int64)

    @torch.inference_mode()
    def policy(observations: NDArray[np.float32]) -> NDArray[Any]:
        batch = len(observations)
        t, s = torch.full((batch,), 80.0), torch.full((batch,), 0.02)
        network(torch.randn(batch, config.horizon, 3), t, torch.from_numpy(observations[:, -1]), s)
        return actor(observations[:, -1], one)[:, None]

    return policy


def load(run: Path) -> ActionSequencePolicy:
    """A trained policy's folder."""
    from ractd.policy import Policy

    return Policy.load(run).reset(0).act_chunk


def ours(policy: ActionSequencePolicy, episodes: int, make: MakeVector) -> Callable[[], tuple[float, float, float]]:
    """Steps/s, mean return and share of time in the policy of `ractd.envs.evaluate` on a backend."""

    def measure() -> tuple[float, float, float]:
        result = evaluate(policy, ENV_ID, episodes=episodes, make=make)
        return result.steps_per_second, result.mean_return, result.policy_seconds / result.total_seconds

    return measure


def sync_vector(policy: ActionSequencePolicy, episodes: int) -> Callable[[], tuple[float, float, float]]:
    """The same numbers for the loop that one writes on `gymnasium.vector.SyncVectorEnv`: all environments step until
    each one's first episode is over, and steps of first episodes count."""
    import gymnasium

    def measure() -> tuple[float, float, float]:
        envs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(ENV_ID)] * episodes)
        observations, _ = envs.reset(seed=0)
        running = np.ones(episodes, np.bool_)
        returns, steps, in_policy = np.zeros(episodes), 0, 0.0
        start = time.perf_counter()
        while running.any():
            before = time.perf_counter()
            actions = np.clip(policy(observations.astype(np.float32)[:, None])[:, 0], -1, 1)
            in_policy += time.perf_counter() - before
            observations, rewards, terminated, truncated, _ = envs.step(actions)
            returns += np.where(running, rewards, 0)
            steps += int(running.sum())
            running &= ~(terminated | truncated)
        seconds = time.perf_counter() - start
        envs.close()
        return steps / seconds, float(returns.mean()), in_policy / seconds

    return measure


def main() -> None:
    """Measure, print, write `benchmarks/results/evaluation.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path, help="folder of a trained policy")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    policy = load(arguments.run) if arguments.run else stand_in()
    episodes = arguments.episodes
    contenders = {
        "ractd, EnvPool": ours(policy, episodes, envpool_vector),
        "gymnasium.vector.SyncVectorEnv": sync_vector(policy, episodes),
    }
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
    # Interleaved, so that what else the machine does meanwhile meets all of them.
    for _ in range(arguments.repeats):
        for name, measure in contenders.items():
            measured[name].append(measure())
            print(f"{name}: {measured[name][-1][0]:,.0f} steps/s", flush=True)
    results: dict[str, dict[str, Any]] = {
        name: {
            "steps_per_second": summary([speed for speed, _, _ in values]),
            "mean_return": float(np.mean([mean for _, mean, _ in values])),
            "policy_share_of_time": float(np.median([share for _, _, share in values])),
            "steps_per_second_without_policy": summary([speed / (1 - share) for speed, _, share in values]),
        }
        for name, values in measured.items()
    }
    rates = {name: float(np.median([speed for speed, _, _ in values])) for name, values in measured.items()}
    stepping = {name: result["steps_per_second_without_policy"]["median"] for name, result in results.items()}
    ratio, ratio_without = (
        speeds["ractd, EnvPool"] / speeds["gymnasium.vector.SyncVectorEnv"] for speeds in (rates, stepping)
    )
    rows = [
        [
            name,
            f"{rates[name]:,.0f}",
            f"{100 * summary([speed for speed, _, _ in measured[name]])['spread']:.0f}%",
            f"{np.mean([mean for _, mean, _ in measured[name]]):,.0f}",
            f"{100 * np.median([share for _, _, share in measured[name]]):.0f}%",
            f"{stepping[name]:,.0f}",
        ]
        for name in contenders
    ]
    title = f"{ENV_ID}, {episodes} episodes: ratio {ratio:.1f}, without the policy {ratio_without:.1f}, goal {GOAL:g}"
    print_table(title, ["evaluation", "env steps/s", "spread", "return", "in policy", "without it"], rows)
    settings = {
        "env_id": ENV_ID,
        "episodes": episodes,
        "repeats": arguments.repeats,
        "policy": "trained, from --run" if arguments.run else "stand-in of the cpu preset's student's size",
    }
    ratios = {"ratio": ratio, "ratio_without_policy": ratio_without, "goal": GOAL}
    print(write_result("evaluation", {**settings, "results": results, **ratios}).name)


if __name__ == "__main__":
    main()
