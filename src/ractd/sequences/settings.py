"""Settings of kinds of sequences. Importing this imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from ractd.settings import Count, CountOrZero, Optimization, Registered

SEQUENCES = {
    "actions": "ractd.sequences.actions:Actions",
    "states": "ractd.sequences.states:States",
}
"""Every kind of sequence: its name, and where its class is, whose `Settings` are the kind's."""
FEWEST_POINTS = 3
"""With its start a cubic spline has four control points."""


class SequenceSettings(Registered):
    """Settings of one kind of sequence."""

    open_loop: ClassVar[bool] = False
    """Whether the whole sequence is executed before the next one is made (paper, section 4.2), or its first action only."""

    kinds = SEQUENCES, "kind of sequence", "Settings"

    def contradictions_of(self, horizon: int) -> Iterator[tuple[str, str]]:
        """Yield each field that can't stand beside a horizon, and what is expected of it."""
        yield from ()


@dataclass(frozen=True)
class ActionsSettings(SequenceSettings):
    """Sequences of actions have no settings of their own."""

    kind: ClassVar[str] = "actions"


@dataclass(frozen=True)
class StatesSettings(SequenceSettings):
    """Sequences of states on the way to a goal, and the inverse dynamics that finds the actions (paper, section 4.2)."""

    kind: ClassVar[str] = "states"
    open_loop: ClassVar[bool] = True

    points: CountOrZero = 0
    """0, the paper's: x is the states themselves. K: x is the K control points of a spline through them, so that
    plans are smooth, begin where they should, and small networks can make them (ours, for CPUs)."""
    dynamics_layers: tuple[Count, ...] = (64,)
    """Widths of the Linear + ReLU layers of the inverse dynamics."""
    optimization: Optimization = field(
        default_factory=lambda: Optimization(steps=10_000, batch_size=512, learning_rate=1e-3)
    )
    """How the inverse dynamics is trained: long, since open loop its errors add up."""

    def contradictions_of(self, horizon: int) -> Iterator[tuple[str, str]]:
        """Yield control points that are too few for a spline, or too many for a horizon."""
        most = horizon - 1
        if self.points and not FEWEST_POINTS <= self.points <= most:
            yield "points", f"{FEWEST_POINTS} to {most} for the horizon {horizon}, or 0 for none"
