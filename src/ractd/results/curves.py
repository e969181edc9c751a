"""The curves of a run: what its training logged, by stage and metric."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Curve:
    """One metric of one stage over its steps, both [N]; a value that wasn't finite is NaN."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def read_curves(path: Path, missing: list[str]) -> dict[str, dict[str, Curve]]:
    """Read a run's `metrics.jsonl`, by stage and metric; what can't be read becomes a sentence in `missing`."""
    if not path.exists():
        missing.append("metrics.jsonl: not there; there are no training curves.")
        return {}
    try:
        lines = path.read_text(errors="replace").splitlines(keepends=True)
    except OSError as error:
        missing.append(f"metrics.jsonl: can't be read ({error.strerror}); there are no training curves.")
        return {}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    damaged = []
    for index, line in enumerate(lines):
        try:
            entry = json.loads(line)
            stage, step = entry.pop("stage"), float(entry.pop("step"))
            values = {name: float(value) for name, value in entry.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            damaged.append(index + 1)
            continue
        for name, value in values.items():
            found.setdefault(str(stage), {}).setdefault(name, []).append((step, value))
    if damaged == [len(lines)] and not lines[-1].endswith("\n"):
        missing.append("metrics.jsonl: its last line is cut off and left out.")
    elif damaged:
        what = "line" if len(damaged) == 1 else "lines"
        missing.append(f"metrics.jsonl: {len(damaged)} damaged {what} left out, the first is line {damaged[0]}.")
    return {stage: {name: _curve(points) for name, points in metrics.items()} for stage, metrics in found.items()}


def _curve(points: list[tuple[float, float]]) -> Curve:
    steps, values = np.array(points).T
    return Curve(steps, np.where(np.isfinite(values), values, np.nan))
