"""A policy in a control loop at a fixed rate, with a deadline.

    python examples/control_loop.py runs/demo --hz 200 --seconds 10

Reads sensors, acts, sends, sleeps until the next tick. An action that comes after its deadline is not sent: the last one
is held. Put your robot behind `Robot`; here it is noise around what the policy's data looked like.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ractd

Floats = NDArray[np.float32]


class Robot:
    """Your sensors and motors."""

    def __init__(self, policy: ractd.Policy) -> None:
        self.mean = policy.normalizer.observation_mean.numpy()
        self.std = policy.normalizer.observation_std.numpy()
        self.rng = np.random.default_rng(0)
        self.sent = 0

    def read(self) -> Floats:
        """What is seen now, `[O]`."""
        return self.mean + self.std * self.rng.standard_normal(self.mean.shape, np.float32)

    def send(self, action: Floats) -> None:
        """Execute an action, `[A]`."""
        self.sent += 1


@dataclass
class Report:
    """What the loop did: one entry a tick."""

    latency: list[float] = field(default_factory=list)
    """Seconds from the sensors' values to the action."""
    late: int = 0
    """Actions that missed the deadline."""

    def __str__(self) -> str:
        ms = 1e3 * np.asarray(self.latency)
        quantiles = ", ".join(f"p{q:g} {np.percentile(ms, q):.3f}" for q in (50, 90, 99, 99.9))
        missed = f"{self.late} of {len(ms)} deadlines missed"
        return f"{len(ms)} actions; latency in ms: {quantiles}, max {ms.max():.3f}; {missed}"


class History:
    """The last h observations as the policy takes them; the first is repeated until there are as many."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.rows: list[Floats] = []

    def add(self, observation: Floats) -> NDArray[Any]:
        """Return `[O]` for h = 1, else `[h, O]`, oldest first."""
        self.rows = [*(self.rows or [observation] * self.length), observation][-self.length :]
        return self.rows[0] if self.length == 1 else np.stack(self.rows)


def control(policy: ractd.Policy, robot: Robot, hz: float, deadline: float, ticks: int) -> Report:
    """Run the loop for so many ticks; `deadline` is in seconds from the reading."""
    report, history, last = Report(), History(policy.spec.history), np.zeros(policy.spec.action_dim, np.float32)
    for _ in range(20):  # the first calls are slow: memory, kernels, caches
        policy.act(History(policy.spec.history).add(robot.read()))
    policy.reset(0)
    tick = time.perf_counter()
    for _ in range(ticks):
        observation = history.add(robot.read())
        start = time.perf_counter()
        action = policy.act(observation)
        seconds = time.perf_counter() - start
        report.latency.append(seconds)
        if seconds <= deadline:
            last = action
        else:
            report.late += 1
        robot.send(last)
        tick += 1 / hz
        time.sleep(max(0.0, tick - time.perf_counter()))
    return report


def main() -> None:
    """Load, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("policy", type=Path, help="a run or policy directory")
    parser.add_argument("--hz", type=float, default=100.0)
    parser.add_argument("--deadline-ms", type=float, help="by default the whole tick")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--candidates", type=int, default=1)
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # a second thread costs more to wake up than it computes
    policy = ractd.Policy.load(arguments.policy).configured(candidates=arguments.candidates)
    deadline = 1 / arguments.hz if arguments.deadline_ms is None else arguments.deadline_ms / 1e3
    ticks = max(1, round(arguments.hz * arguments.seconds))
    print(control(policy, Robot(policy), arguments.hz, deadline, ticks))


if __name__ == "__main__":
    main()
