"""Environment steps per second of a whole evaluation: ractd's against `gymnasium.vector.SyncVectorEnv`.

    python benchmarks/evaluation.py [--run runs/a/policy/student]

Without `--run`, a network of the cpu preset's size is evaluated for its cost, and a packaged Hopper policy decides what
is done, so that episodes are as long as a trained policy's.

`core us` is the CPU time of all threads per environment step. A third evaluation replays the actions of the first at no
cost. The limits are ratios of core times, times the cores: what this policy, and a policy that costs nothing, could reach on
this backend if no core ever waited.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import print_table, summary, write_result
from numpy.typing import NDArray

from ractd.envs import ActionSequencePolicy, EnvPoolVector, evaluate
from ractd.envs.vector import VectorEnv
from ractd.processors import cores

GOAL = 4.0
ENV_ID = "Hopper-v5"
OURS, REPLAY, SYNC = "ractd, EnvPool", "the same actions replayed", "gymnasium.vector.SyncVectorEnv"


def stand_in() -> ActionSequencePolicy:
    """Costs what the cpu preset's student costs, acts as a half-trained Hopper policy."""
    from ractd.methods.ractd_settings import PRESETS
    from ractd.networks.mlp import MLP
    from ractd.recipes.behaviors import load_actors, sac_actor

    config = PRESETS["cpu"]
    network = config.teacher.network.build((config.horizon, 3), 11, jumps=True).eval()
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
    from ractd.policies import Policy

    return Policy.load(run).reset(0).act_chunk


class Measured(NamedTuple):
    """What one evaluation did and cost."""

    speed: float
    """Environment steps/s."""
    mean_return: float
    policy_share: float
    """Of the time, inside the policy."""
    core_us: float
    """CPU time per step, of all threads."""


def ours(policy: ActionSequencePolicy, episodes: int) -> Measured:
    """`ractd.envs.evaluate` on EnvPool."""
    began = [0.0]

    def make(env_id: str, num_envs: int, seed: int) -> VectorEnv:
        env = EnvPoolVector(env_id, num_envs, seed)
        began[0] = time.process_time()
        return env

    result = evaluate(policy, ENV_ID, episodes=episodes, make=make, num_envs=episodes)
    core_us = 1e6 * (time.process_time() - began[0]) / result.env_steps
    return Measured(result.steps_per_second, result.mean_return, result.policy_seconds / result.total_seconds, core_us)


class Recorded:
    """A policy whose actions can be replayed: the same seeds see the same states."""

    def __init__(self, policy: ActionSequencePolicy) -> None:
        self.policy = policy
        self.actions: list[NDArray[Any]] = []

    def record(self, observations: NDArray[np.float32], /) -> NDArray[Any]:
        """Act, and remember."""
        self.actions.append(self.policy(observations))
        return self.actions[-1]

    def contenders(self, episodes: int) -> tuple[Callable[[], Measured], Callable[[], Measured]]:
        """An evaluation, and the same one again whose policy costs nothing."""

        def first() -> Measured:
            self.actions.clear()
            return ours(self.record, episodes)

        def again() -> Measured:
            remembered = iter(self.actions)
            return ours(lambda observations: next(remembered), episodes)

        return first, again


def sync_vector(policy: ActionSequencePolicy, episodes: int) -> Callable[[], Measured]:
    """The same numbers for the loop that one writes on `gymnasium.vector.SyncVectorEnv`: all environments step until
    each one's first episode is over, and steps of first episodes count."""
    import gymnasium

    def measure() -> Measured:
        envs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(ENV_ID)] * episodes)
        start, core = time.perf_counter(), time.process_time()  # as `evaluate`, which counts the reset
        observations, _ = envs.reset(seed=0)
        running = np.ones(episodes, np.bool_)
        returns, steps, in_policy = np.zeros(episodes), 0, 0.0
        while running.any():
            before = time.perf_counter()
            actions = np.clip(policy(observations.astype(np.float32)[:, None])[:, 0], -1, 1)
            in_policy += time.perf_counter() - before
            observations, rewards, terminated, truncated, _ = envs.step(actions)
            returns += np.where(running, rewards, 0)
            steps += int(running.sum())
            running &= ~(terminated | truncated)
        seconds, core = time.perf_counter() - start, time.process_time() - core
        envs.close()
        return Measured(steps / seconds, float(returns.mean()), in_policy / seconds, 1e6 * core / steps)

    return measure


def main() -> None:
    """Measure, print, write `benchmarks/results/evaluation.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path, help="folder of a trained policy")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the policy's network")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    policy = load(arguments.run) if arguments.run else stand_in()
    episodes = arguments.episodes
    evaluation, replay = Recorded(policy).contenders(episodes)
    contenders = {OURS: evaluation, REPLAY: replay, SYNC: sync_vector(policy, episodes)}
    measured: dict[str, list[Measured]] = {name: [] for name in contenders}
    # Interleaved, so that what else the machine does meanwhile meets all of them.
    for _ in range(arguments.repeats):
        for name, measure in contenders.items():
            measured[name].append(measure())
            print(f"{name}: {measured[name][-1].speed:,.0f} steps/s", flush=True)
    results: dict[str, dict[str, Any]] = {
        name: {
            "steps_per_second": summary([value.speed for value in values]),
            "mean_return": float(np.mean([value.mean_return for value in values])),
            "policy_share_of_time": float(np.median([value.policy_share for value in values])),
            "core_us_per_step": summary([value.core_us for value in values]),
        }
        for name, values in measured.items()
    }
    rounds = list(zip(measured[OURS], measured[REPLAY], measured[SYNC], strict=True))
    ratios = {
        "ratio": summary([us.speed / sync.speed for us, _, sync in rounds]),
        "ratio_without_policy": summary([free.speed / sync.speed for _, free, sync in rounds]),
        "limit": summary([cores() * sync.core_us / us.core_us for us, _, sync in rounds]),
        "limit_without_policy": summary([cores() * sync.core_us / free.core_us for _, free, sync in rounds]),
    }
    rows = [
        [
            name,
            f"{result['steps_per_second']['median']:,.0f}",
            f"{result['steps_per_second']['spread']:.0%}",
            f"{result['mean_return']:,.0f}",
            f"{result['policy_share_of_time']:.0%}",
            f"{result['core_us_per_step']['median']:.0f}",
        ]
        for name, result in results.items()
    ]
    ratio, free, limit, free_limit = (f"{value['median']:.1f}" for value in ratios.values())
    title = f"{ENV_ID}: ratio {ratio}, goal {GOAL:g}, limit {limit}; with a free policy {free}, limit {free_limit}"
    print_table(title, ["evaluation", "env steps/s", "spread", "return", "in policy", "core us"], rows)
    settings = {
        "env_id": ENV_ID,
        "episodes": episodes,
        "repeats": arguments.repeats,
        "threads": arguments.threads,
        "policy": "trained, from --run" if arguments.run else "stand-in of the cpu preset's student's size",
    }
    print(write_result("evaluation", {**settings, "results": results, **ratios, "goal": GOAL}).name)


if __name__ == "__main__":
    main()
