"""What an action costs at batch 1: policies are timed in turns, so that all meet the same load, and the load is measured too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ractd.policies import Policy

SECONDS = 0.5
"""Of calls a policy, about; of slow ones as many as `FEWEST` calls take."""
TURN = 0.02
"""Seconds of calls before the next policy has its turn: many of a student, one of a teacher."""
FEWEST = 5
"""Calls of each policy."""
WAITING = 1.1
"""Wall time over processor time from which a machine is called busy."""
CROWDED = 0.25
"""Share of the cores in use by others from which a machine is called busy: what shares caches and clocks slows down, too."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Load:
    """What the machine did beside the calls that were timed."""

    waiting: float
    """Wall time over this thread's processor time, at least 1, of the policy that waited for a core most."""
    others: float | None
    """Cores that others used, on average; None where the system doesn't tell."""
    cores: int
    """Cores of the machine."""

    @property
    def busy(self) -> bool:
        """Whether times are likely to be longer than on an idle machine."""
        return self.waiting >= WAITING or (self.others is not None and self.others >= CROWDED * self.cores)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self) | {"busy": self.busy}


def time_policies(policies: Mapping[Key, Policy]) -> tuple[dict[Key, dict[str, Any]], dict[str, Any]]:
    """Time `act` of policies in turns; return what a result's rows say of each, and the load meanwhile (`Load.to_dict`).

    Of each: `ms_per_action`, the median wall time of a call in milliseconds, and `ms_low` and `ms_high`, between which 80% of
    the calls lie.
    """
    calls = {label: _call(policy) for label, policy in policies.items()}
    times, load = time_in_turns(calls, SECONDS * len(calls))
    rows = {}
    for label, seconds in times.items():
        low, median, high = (float(value * 1e3) for value in np.percentile(seconds, (10, 50, 90)))
        rows[label] = {"ms_per_action": median, "ms_low": low, "ms_high": high}
    return rows, load.to_dict()


def _call(policy: Policy) -> Callable[[], object]:
    observation = policy.sequence.normalizer.observation_mean.cpu().numpy()
    if policy.sequence.history > 1:
        observation = np.repeat(observation[None], policy.sequence.history, 0)
    return lambda: policy.act(observation)


def time_in_turns(calls: Mapping[Key, Callable[[], object]], seconds: float) -> tuple[dict[Key, list[float]], Load]:
    """Return the wall seconds of each call and the load, after one call of each that isn't counted.

    Each has its turns, of about `TURN` seconds, until `seconds` are over and each has had `FEWEST` calls.
    """
    for call in calls.values():
        call()
    times: dict[Key, list[float]] = {label: [] for label in calls}
    processor = dict.fromkeys(calls, 0.0)
    before = time.perf_counter(), _used_by_others()
    while time.perf_counter() < before[0] + seconds or any(len(each) < FEWEST for each in times.values()):
        for label, call in calls.items():
            began, now = time.thread_time(), time.perf_counter()
            end = now + TURN
            while now < end:
                start = now
                call()
                now = time.perf_counter()
                times[label].append(now - start)
            processor[label] += time.thread_time() - began
    after = time.perf_counter(), _used_by_others()
    others = None
    if before[1] is not None and after[1] is not None:
        others = max(0.0, (after[1] - before[1]) / (after[0] - before[0]))
    waiting = max((sum(times[label]) / processor[label] for label in calls if processor[label] > 0), default=1.0)
    return times, Load(max(1.0, waiting), others, os.cpu_count() or 1)


def _used_by_others() -> float | None:
    """Return the seconds that all cores of the machine have worked for other processes, None where the system doesn't tell."""
    try:
        ticks = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
        user, nice, system, _, _, interrupts, soft_interrupts, stolen = (int(tick) for tick in ticks)
        second = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    return (user + nice + system + interrupts + soft_interrupts + stolen) / second - time.process_time()


def busy_sentence(load: Mapping[str, Any] | None) -> str:
    """Return what a reader of times has to know of `Load.to_dict`, empty where the machine was idle or nobody looked."""
    if not load or not load["busy"]:
        return ""
    others = load["others"]
    who = f" (others used {others:.1f} of {load['cores']} cores)" if others is not None else ""
    much = f"up to {load['waiting']:.1f} times too long" if load["waiting"] >= WAITING else "too long"
    return f"The machine was busy while times were measured{who}: they may be {much}."
