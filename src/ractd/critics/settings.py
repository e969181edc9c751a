"""Settings of critics that are trained before a policy. Importing this imports neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from ractd.settings import Count, CountOrZero, NotNegative, Optimization


@dataclass(frozen=True)
class ReturnModel:
    """The return-to-go model R(s, a) (paper, section 3.3, Table 8 and B.2)."""

    kind: str | None = None
    """Which critic: `q`, which follows the student, `return-to-go`, `sarsa` or `iql`; `goal` of plans. Where none is named, the
    paper's: `return-to-go`, and `goal` of plans."""
    layers: tuple[Count, ...] = (32, 64, 128, 256)
    """Widths of the layers: Linear + Mish (Table 8), of `q`, `sarsa` and `iql` Linear + LayerNorm + ReLU."""
    members: CountOrZero = 1
    """Networks of these layers; their mean ranks and estimates, and the student is paid less where they differ
    (`student.pessimism`). 0 for none, as of data without rewards: students are plain then, and nothing is ranked or estimated."""
    gamma: Annotated[float, Meta(ge=0, le=1)] | None = None
    """Discount. Where a preset sets none, the paper's for hopper, walker2d and halfcheetah (B.2), else 0.99."""
    termination_penalty: Annotated[float, Meta(ge=-1e12, le=1e12)] | None = None
    """Added to the reward where an episode ends by a failure (B.2), never at a success or a time limit; 0 switches it off.
    Where a preset sets none, the paper's -100 for rewards of 1 to 10 a step, and at the scale of others."""
    action_noise: NotNegative = 0.0
    """Standard deviation of noise added to the scaled actions (a planner's: states) it is trained on: a smoother model
    misleads the student less."""
    n_step: Count = 1
    """Logged rewards that are summed before another value is taken: of the kinds `sarsa` and `iql`."""
    expectile: Annotated[float, Meta(ge=0.5, lt=1)] = 0.7
    """Of `iql`: 0.5 values what the data does on average, towards 1 the best that it does."""
    validation_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.05
    """Share of the episodes held out to measure the model's error."""
    optimization: Optimization = field(
        default_factory=lambda: Optimization(steps=6_000, batch_size=512, learning_rate=1e-3)
    )
    """How it is trained."""
