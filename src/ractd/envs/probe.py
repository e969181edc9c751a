"""Does an environment work at all? Asked before hours of training, not after them."""

from __future__ import annotations

import numpy as np

from ractd.envs.evaluate import Wave
from ractd.envs.vector import VectorEnv

STEPS = 5


def probe(env: VectorEnv, env_id: str) -> None:
    """Reset environments once and take a few steps with random actions within their bounds.

    Raises `RactdError` where they fail, or give NaN or a wrong number of observations or rewards.
    """
    wave, rows, rng = Wave(env_id, 0, 0), np.arange(env.num_envs), np.random.default_rng(0)
    wave.check("an observation", env.reset(), rows, 0)
    for step in range(1, STEPS + 1):
        actions = np.clip(rng.uniform(-1, 1, (len(rows), len(env.action_low))), env.action_low, env.action_high)
        observations, rewards, terminated, truncated = env.step(actions, rows)
        wave.check("a reward", rewards, rows, step)
        ended = terminated | truncated
        wave.check("an observation", observations[~ended], rows[~ended], step)
        rows = rows[~ended]
        if not rows.size:
            return
