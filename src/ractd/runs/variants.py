"""Which policies of a run are measured, and how they sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ractd.methods.ractd_settings import Config


@dataclass(frozen=True)
class Variant:
    """A policy of a run, sampled in one way: a row of its result.

    Whether it is the last checkpoint or the best is in the policy's file. A run that lacks the policy lacks the row.
    """

    label: str
    """Two variants of one label are two checkpoints of the same."""
    policy: str
    """Its folder in the run's `policy/`."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """What differs from how the policy samples by itself: `sampler`, `steps`, `candidates`."""
    stages: tuple[str, ...] = ()
    """Stages of the training that it needed."""


def variants_of(config: Config) -> tuple[Variant, ...]:
    """Return the variants that a run of these settings has, the one that it is about first."""
    returns = ("return",) if config.return_model.members else ()
    aware = returns if config.teacher.reward_weight else ()
    dynamics = () if config.plan is None else ("dynamics",)
    plain, student = (dict.fromkeys((*returns, *dynamics, "teacher", name)) for name in ("plain", "student"))
    teacher = Variant("teacher", "teacher", {}, (*aware, *dynamics, "teacher"))
    if not returns:
        # The student is plain, and there is nothing to choose candidates by.
        label = "plain student"
        return (
            Variant(label, "student", {}, tuple(student)),
            Variant(label, "student-last", {}, tuple(student)),
            teacher,
        )
    ways: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("RACTD", "student", {}),
        ("RACTD", "student-last", {}),
        ("RACTD, 32 candidates", "student", {"candidates": 32}),
        ("RACTD, 2 steps", "student", {"steps": 2}),
        ("RACTD, 4 steps", "student", {"steps": 4}),
        ("plain student", "plain", {}),
        ("plain student", "plain-last", {}),
        ("plain student, 32 candidates", "plain", {"candidates": 32}),
    )
    stages = {"student": tuple(student), "plain": tuple(plain)}
    return *(Variant(label, name, way, stages[name.removesuffix("-last")]) for label, name, way in ways), teacher
