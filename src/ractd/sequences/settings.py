"""Settings of kinds of sequences. Importing this imports neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass, field

from ractd.settings import Count, CountOrNone, Optimization


@dataclass(frozen=True)
class Plan:
    """What a planner has besides: sequences of states, and the inverse dynamics that finds the actions (paper, section 4.2)."""

    points: CountOrNone = 0
    """0, the paper's: x is the states themselves. K: x is the K control points of a spline through them, so that
    plans are smooth, begin where they should, and small networks can make them (ours, for CPUs)."""
    dynamics_layers: tuple[Count, ...] = (64,)
    """Widths of the Linear + ReLU layers of the inverse dynamics."""
    optimization: Optimization = field(
        default_factory=lambda: Optimization(steps=10_000, batch_size=512, learning_rate=1e-3)
    )
    """How the inverse dynamics is trained: long, since open loop its errors add up."""
