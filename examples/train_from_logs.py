"""From your own arrays to a policy, without a simulator.

    python examples/train_from_logs.py --out runs/arm

The logs here are made up: a cart is pushed to a target by operators of different skill. Put your own in `read_logs`.
What the policy is worth is then said by its critic alone: an estimate, to be trusted less than a test on the robot.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import ractd
from ractd import validate

STEP, LENGTH = 0.05, 60


def read_logs(episodes: int = 300) -> ractd.OfflineDataset:
    """Put your logs one after the other: one row is what was seen, what was done and what it was worth.

    `terminals` marks the last row of an episode that ended for good (a fall), `timeouts` of one that was just stopped.
    """
    rng = np.random.default_rng(0)
    seen, done, worth = [], [], []
    for skill in rng.uniform(0, 1, episodes):
        position, velocity, target = rng.uniform(-1, 1), 0.0, rng.uniform(-1, 1)
        for _ in range(LENGTH):
            wanted = 4 * skill * (target - position) - 2 * velocity
            force = float(np.clip(wanted + rng.normal(0, 1.2 - skill), -2, 2))
            seen.append([position, velocity, target])
            done.append([force])
            velocity += STEP * force
            position += STEP * velocity
            worth.append(-abs(target - position))
    timeouts = np.zeros(len(seen), bool)
    timeouts[LENGTH - 1 :: LENGTH] = True
    return ractd.OfflineDataset(
        name="cart",
        observations=np.array(seen, np.float32),
        actions=np.array(done, np.float32),
        rewards=np.array(worth, np.float32),
        terminals=np.zeros(len(seen), bool),
        timeouts=timeouts,
        recipe="simulated operators of different skill, see examples/train_from_logs.py",
    )


def main() -> None:
    """Look at the data, train, act."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("runs/cart"), help="run directory; the same one goes on")
    parser.add_argument("--steps", type=int, default=12_000, help="of the training; 12,000 take four minutes")
    arguments = parser.parse_args()

    data = read_logs()
    for finding in validate(data):
        print(finding)
    print(f"{data.num_transitions:,} transitions, mean return {data.episode_returns().mean():.1f}")

    result = ractd.train(data, out=arguments.out, **{"student.optimization.steps": arguments.steps})
    offline = result.row("RACTD").offline
    print(
        f"estimated return-to-go {offline['estimated_return']:.2f} (logged actions: {offline['estimated_return_of_data']:.2f}), "
        f"distance to the logged actions {offline['distance_to_data']:.2f}"
    )

    policy = ractd.Policy.load(arguments.out)
    observation = np.array([-0.5, 0.0, 0.5], np.float32)
    print(f"left of the target and at rest, it pushes with {policy.act(observation)[0]:+.2f}")


if __name__ == "__main__":
    main()
