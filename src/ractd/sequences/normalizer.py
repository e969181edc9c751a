"""Between the environment's units and the networks': statistics that travel inside the policy file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ractd.data.ranges import Statistics, constant_held
from ractd.sequences.spline import Spline


class Normalizer(nn.Module):
    """Standardise observations per dimension and scale actions to [-1, 1] by their range.

    A dimension whose range is one value, `action_low == action_high`, is 0 when it is scaled and that value when it is scaled back.
    """

    def __init__(self, observation_dim: int, action_dim: int) -> None:
        super().__init__()
        self.observation_mean: Tensor
        self.observation_std: Tensor
        self.action_low: Tensor
        self.action_high: Tensor
        self.register_buffer("observation_mean", torch.zeros(observation_dim))
        self.register_buffer("observation_std", torch.ones(observation_dim))
        self.register_buffer("action_low", -torch.ones(action_dim))
        self.register_buffer("action_high", torch.ones(action_dim))
        self.observation_low: Tensor | None
        self.observation_high: Tensor | None
        self.register_buffer("observation_low", None)
        self.register_buffer("observation_high", None)

    @classmethod
    def of(cls, statistics: Statistics) -> Normalizer:
        """Build from a dataset's statistics."""
        normalizer = cls(len(statistics.observation_mean), len(statistics.action_low))
        for name in ("observation_mean", "observation_std", "action_low", "action_high"):
            setattr(normalizer, name, torch.as_tensor(getattr(statistics, name), dtype=torch.float32).clone())
        normalizer.limit(*limits(statistics))
        return normalizer

    def limit(self, low: Tensor | None, high: Tensor | None) -> None:
        """Limit raw observations to low and high, `[O]`; None, as it is before, does not."""
        self.observation_low, self.observation_high = low, high

    @property
    def varying(self) -> Tensor:
        """True where an action is not constant, `[A]`."""
        return self.action_high > self.action_low

    @property
    def half_range(self) -> Tensor:
        """Half of each action's range `[A]`, and 1 where it is constant: one unit of scaled actions."""
        return torch.where(self.varying, (self.action_high - self.action_low) / 2, 1)

    def limited(self, observation: Tensor, entries: slice = slice(None)) -> Tensor:
        """Return `entries` of raw observations within their limits: where the data had outliers, a new one must do no harm."""
        if self.observation_low is None or self.observation_high is None:
            return observation
        return observation.clamp(self.observation_low[entries], self.observation_high[entries])

    def observation(self, observation: Tensor) -> Tensor:
        """Standardise raw observations `[..., O]`."""
        return (self.limited(observation) - self.observation_mean) / self.observation_std

    def action(self, action: Tensor) -> Tensor:
        """Scale raw actions `[..., A]` to [-1, 1], those outside their range clipped to it."""
        return ((action - self.action_low) / self.half_range - 1).clamp(-1, 1) * self.varying

    def raw_action(self, action: Tensor) -> Tensor:
        """Clip to [-1, 1] and scale back to the environment's units."""
        return torch.addcmul(self.action_low, action.clamp(-1, 1) + 1, (self.action_high - self.action_low) / 2)


def limits(statistics: Statistics) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Return the limits of observations, `[O]` each: the data's range in dimensions with outliers, none (float32's) in others.

    (None, None) where no dimension has any: then nothing is limited, and networks get what they always got.
    """
    limited = statistics.observation_outliers > 0
    if not limited.any():
        return None, None
    largest = np.finfo(np.float32).max
    low = np.where(limited, statistics.observation_low, -largest)
    high = np.where(limited, statistics.observation_high, largest)
    return torch.from_numpy(low), torch.from_numpy(high)


class PlanNormalizer(Normalizer):
    """A planner's: an observation is a state and a goal, `[..., 2 S]`; the states of a plan are scaled to [-1, 1] as well.

    With `points` a plan is made of so many control points, see `Spline`; with 0 of its states.
    """

    def __init__(self, state_dim: int, action_dim: int, horizon: int, points: int) -> None:
        super().__init__(2 * state_dim, action_dim)
        self.spline = Spline(horizon, points, state_dim) if points else None
        self.state_low: Tensor
        self.state_high: Tensor
        self.register_buffer("state_low", -torch.ones(state_dim))
        self.register_buffer("state_high", torch.ones(state_dim))

    @classmethod
    def of_states(cls, statistics: Statistics, horizon: int, points: int) -> PlanNormalizer:
        """Build from the statistics of data whose observations are states; a spline is still to be fitted to plans."""
        normalizer = cls(len(statistics.observation_mean), len(statistics.action_low), horizon, points)
        low, high = map(torch.from_numpy, constant_held(statistics.observation_low, statistics.observation_high))
        constant = low == high
        normalizer.state_low, normalizer.state_high = low - constant.float(), high + constant.float()
        normalizer.observation_mean = torch.from_numpy(statistics.observation_mean).repeat(2)
        normalizer.observation_std = torch.from_numpy(statistics.observation_std).repeat(2)
        normalizer.action_low = torch.from_numpy(statistics.action_low.copy())
        normalizer.action_high = torch.from_numpy(statistics.action_high.copy())
        normalizer.limit(*(x if x is None else x.repeat(2) for x in limits(statistics)))
        return normalizer

    def state(self, state: Tensor) -> Tensor:
        """Scale raw states `[..., S]`, within their limits, to [-1, 1]."""
        state = self.limited(state, slice(len(self.state_low)))
        return 2 * (state - self.state_low) / (self.state_high - self.state_low) - 1

    def start(self, condition: Tensor) -> Tensor:
        """Return the states of conditions `[B, 2 S]`, in [-1, 1], `[B, 1, S]`."""
        S = len(self.state_low)
        raw = condition[:, :S] * self.observation_std[:S] + self.observation_mean[:S]
        return self.state(raw).unsqueeze(1)

    def encode(self, states: Tensor, condition: Tensor) -> Tensor:
        """Return the sequences x that are learnt, of states `[B, H, S]` in [-1, 1] and their conditions `[B, 2 S]`."""
        return states if self.spline is None else self.spline.encode(states, self.start(condition))

    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the states `[B, H, S]`, in [-1, 1] where the data is, of sequences x and their conditions `[B, 2 S]`."""
        return self.decode_from(x, self.start(condition))

    def decode_from(self, x: Tensor, start: Tensor) -> Tensor:
        """Return the same where the state `[B, 1, S]`, in [-1, 1], that sequences begin at is known."""
        return x if self.spline is None else self.spline.decode(x, start)

    def goal(self, goal: Tensor) -> Tensor:
        """Standardise raw goals `[..., S]` as they stand in an observation."""
        half = slice(len(self.state_low), None)
        return (self.limited(goal, half) - self.observation_mean[half]) / self.observation_std[half]

    def raw_state(self, state: Tensor) -> Tensor:
        """Clip to [-1, 1] and scale back to the environment's units."""
        return torch.addcmul(self.state_low, state.clamp(-1, 1) + 1, (self.state_high - self.state_low) / 2)
