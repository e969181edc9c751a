"""An exported policy in a control loop at 1 kHz, and a histogram of its jitter.

    ractd export runs/demo -o deployed
    python examples/control_loop.py deployed --hz 1000 --seconds 10 --deadline-ms 0.5

Needs ractd_runtime alone, no PyTorch. Put your robot behind `Robot`; here it is a linear system with noise around what the
policy's data looked like. A model that misses the deadline is stepped over: the running sequence's next action is sent.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ractd_runtime import Contract, History, Policy

Floats = NDArray[np.float32]
EDGES_US = (0, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, np.inf)
SPIN = 200e-6
"""The operating system wakes a sleeper late by about so many seconds; the rest of a tick is waited for awake."""


class Robot:
    """Your sensors and motors."""

    def __init__(self, contract: Contract) -> None:
        seen = contract.content["inputs"]["observation"]
        self.mean, self.std = np.array(seen["mean"], np.float32), np.array(seen["std"], np.float32)
        self.rng = np.random.default_rng(0)
        self.push = self.rng.normal(size=(contract.action_dim, len(self.mean))).astype(np.float32)
        self.state = self.mean.copy()

    def read(self) -> Floats:
        """What is seen now, `[O]`."""
        return self.state + 0.01 * self.std * self.rng.standard_normal(len(self.std), np.float32)

    def send(self, action: Floats) -> None:
        """Execute an action, `[A]`: the state relaxes to the mean and is pushed away from it."""
        self.state += 0.02 * (self.mean - self.state) + 0.01 * self.std * np.tanh(action @ self.push)


def control(
    policy: Policy, robot: Robot, hz: float, deadline_ms: float | None, ticks: int
) -> tuple[Floats, Floats, int]:
    """Run the loop; return, for each tick, seconds to an action and seconds that it began late, and how many were skipped."""
    latency, lateness, skipped = np.zeros(ticks, np.float32), np.zeros(ticks, np.float32), 0
    history = History(policy.contract.history)
    policy.act(history.add(robot.read()), deadline_ms)
    gc.collect()
    gc.disable()  # a collection in the middle of a tick is jitter
    tick = time.perf_counter() + 1 / hz
    for i in range(ticks):
        time.sleep(max(0.0, tick - time.perf_counter() - SPIN))
        while (now := time.perf_counter()) < tick:
            pass
        lateness[i] = now - tick
        robot.send(policy.act(history.add(robot.read()), deadline_ms))
        latency[i] = time.perf_counter() - now
        tick += 1 / hz
        # Ticks that passed meanwhile are not made up for.
        if (behind := time.perf_counter() - tick) > 0:
            passed = int(behind * hz) + 1
            skipped, tick = skipped + passed, tick + passed / hz
    gc.enable()
    return latency, lateness, skipped


def histogram(title: str, seconds: Floats) -> str:
    """Draw the distribution of `seconds`, one line a bin."""
    us = 1e6 * seconds
    quantiles = ", ".join(f"p{q:g} {np.percentile(us, q):.0f}" for q in (50, 99, 99.9))
    lines = [f"{title} in us: {quantiles}, max {us.max():.0f}"]
    counts, _ = np.histogram(us, EDGES_US)
    for low, high, count in zip(EDGES_US, EDGES_US[1:], counts, strict=False):
        lines.append(f"  {low:>5g} to {high:<5g} {count:>8} {'#' * int(np.ceil(50 * count / len(us)))}")
    return "\n".join(lines)


def main() -> None:
    """Load, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("policy", type=Path, help="what 'ractd export' wrote")
    parser.add_argument("--hz", type=float, default=1000.0)
    parser.add_argument("--deadline-ms", type=float, help="by default none: wait for the model")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--execute", type=int, help="actions of each sequence, by default the contract's advice")
    parser.add_argument("--background", action="store_true", help="compute the next sequence while this one runs")
    arguments = parser.parse_args()

    policy = Policy.load(arguments.policy, execute=arguments.execute, background=arguments.background).reset(seed=0)
    ticks = max(1, round(arguments.hz * arguments.seconds))
    latency, lateness, skipped = control(policy, Robot(policy.contract), arguments.hz, arguments.deadline_ms, ticks)
    print(histogram(f"{ticks} actions; sensors to action", latency))
    print(histogram(f"ticks at {arguments.hz:g} Hz began late", lateness))
    print(f"deadlines missed: {policy.late}, actions held: {policy.held}, ticks skipped: {skipped}")


if __name__ == "__main__":
    main()
