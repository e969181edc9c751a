"""Sequences of states on the way to a goal, and the inverse dynamics that finds their actions (paper, sections 3.2 and 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ractd.data import OfflineDataset
from ractd.data.ranges import within
from ractd.data.windows import Windows
from ractd.errors import RactdError
from ractd.sequences.dynamics import DynamicsObjective, InverseDynamics
from ractd.sequences.normalizer import PlanNormalizer
from ractd.sequences.sequence import LearntDecoder, Samples, Sequence, SequencePart
from ractd.sequences.settings import StatesSettings
from ractd.settings import Count, CountOrZero, Optimization

PLANS_FITTED = 20_000
"""Plans of the data that tell how far their control points spread."""


@dataclass(frozen=True)
class StatesPart(SequencePart):
    """What a policy file says of sequences of states."""

    kind: ClassVar[str] = "states"

    state_dim: Count
    action_dim: Count
    horizon: Count
    points: CountOrZero = 0
    """Control points of a spline that x is, 0 where x is the states."""
    dynamics_layers: tuple[Count, ...] = ()
    """Layers of the inverse dynamics."""


class States(Sequence):
    """x is the H states after the present one, or the control points of a spline through them; the condition is state and goal.

    What critics value are all the states, scaled to [-1, 1]; the inverse dynamics says which action leads from each to the next.
    """

    kind = "states"
    Part = StatesPart
    Settings = StatesSettings
    critic = "goal"
    decoder_stage = "dynamics"
    history = 1
    normalizer: PlanNormalizer

    def __init__(self, part: StatesPart) -> None:
        super().__init__()
        self.part = part
        self.state_dim, self.action_dim, self.horizon = part.state_dim, part.action_dim, part.horizon
        self.observation_dim, self.rewarded = 2 * part.state_dim, part.horizon
        self.shape = (part.points or part.horizon, part.state_dim)
        self.entries = (part.horizon, part.state_dim)
        self.normalizer = PlanNormalizer(part.state_dim, part.action_dim, part.horizon, part.points)
        self.dynamics = InverseDynamics(part.state_dim, part.action_dim, part.dynamics_layers)
        self.optimization: Optimization | None = None

    @property
    def environment_dim(self) -> int:
        """S."""
        return self.state_dim

    @classmethod
    def describe(cls, config: Any, dataset: OfflineDataset) -> States:
        """Return sequences of `config.horizon` states, or of the control points that `config.sequence` asks for."""
        settings, S = config.sequence, dataset.observation_dim
        part = StatesPart(S, dataset.action_dim, config.horizon, settings.points, tuple(settings.dynamics_layers))
        return cls(part)

    @classmethod
    def fit(cls, config: Any, dataset: OfflineDataset, device: torch.device) -> States:
        """Return the same, scaled as the data is; a spline by a sample of the data's plans."""
        sequence, settings = cls.describe(config, dataset), config.sequence
        statistics = within(dataset.statistics(), config.action_range)
        sequence.normalizer = PlanNormalizer.of_states(statistics, config.horizon, settings.points)
        sequence.optimization = settings.optimization
        sequence.to(device)
        spline = sequence.normalizer.spline
        if spline is not None:
            samples = sequence.samples(dataset)
            condition, states = samples.states(samples.draw(PLANS_FITTED, torch.Generator().manual_seed(config.seed)))
            spline.fit(states, sequence.normalizer.start(condition))
        return sequence

    def samples(self, dataset: OfflineDataset) -> PlanSamples:
        """Return a dataset's ways to states that it came to later."""
        return PlanSamples(self, dataset)

    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the states `[B, H, S]`, in [-1, 1] where the data is, of sequences x."""
        return self.normalizer.decode(x, condition)

    def plan(self, x: Tensor, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw states `[B, H, S]` and the raw actions `[B, H, A]` that lead to them, of x and raw `[B, 1, 2 S]`."""
        now = self.normalizer.state(observations[:, :, : self.state_dim])
        states = self.normalizer.decode_from(x, now).clamp(-1, 1)
        before = torch.cat([now, states[:, :-1]], dim=1)
        return states, self.normalizer.raw_action(self.dynamics(before, states))

    def to_actions(self, x: Tensor, observations: Tensor) -> Tensor:
        """Return the actions that lead along the states of x."""
        return self.plan(x, observations)[1]

    def outputs(self, x: Tensor, observations: Tensor) -> dict[str, Tensor]:
        """Return `actions` and the raw `states` that they lead to."""
        states, actions = self.plan(x, observations)
        return {"actions": actions, "states": self.normalizer.raw_state(states)}

    def describe_outputs(self) -> dict[str, dict[str, Any]]:
        """Describe `states`."""
        meaning = "the state that each action leads to, as planned, in the environment's units"
        return {"states": {"shape": ["batch", *self.entries], "dtype": "float32", "meaning": meaning}}

    def scaled(self, raw: Tensor) -> Tensor:
        """Scale raw states `[..., S]` to [-1, 1]."""
        return self.normalizer.state(raw)

    def with_goal(self, state: NDArray[Any], goal: NDArray[Any]) -> NDArray[np.float32]:
        """Return the observation that a state `[S]` or `[B, S]` and a goal `[G]` or `[B, G]` make.

        A goal is the first G <= S entries of a state; the others are zero: to be there at rest.

        Raises:
            RactdError: For a wrong shape.
        """
        S = self.state_dim
        try:
            states, goals = np.asarray(state, np.float32), np.asarray(goal, np.float32)
        except (TypeError, ValueError):
            raise RactdError("state or goal is no array of numbers") from None
        if states.ndim not in (1, 2) or states.shape[-1] != S:
            raise RactdError(f"state has shape {list(states.shape)}, expected [{S}] or ['B', {S}]")
        if goals.ndim not in (1, 2) or not 1 <= goals.shape[-1] <= S:
            raise RactdError(f"goal has shape {list(goals.shape)}, expected [G] or ['B', G] with G up to {S}")
        whole = np.zeros((*states.shape[:-1], S), np.float32)
        try:
            whole[..., : goals.shape[-1]] = goals
        except ValueError:
            raise RactdError(f"{list(goals.shape)} goals were given for {list(states.shape)} states") from None
        return np.concatenate([states, whole], axis=-1)

    def learnt_decoder(self, samples: Samples) -> LearntDecoder:
        """Return the inverse dynamics."""
        assert self.optimization is not None, "fit() has not been called"
        network = InverseDynamics(self.state_dim, self.action_dim, self.part.dynamics_layers)
        data = cast(PlanSamples, samples).windows
        objective = DynamicsObjective(network, self.normalizer, data.observations, data.last, data.actions)
        return LearntDecoder(network, objective, self.optimization)

    def use_decoder(self, network: nn.Module) -> None:
        """Find actions with this inverse dynamics from now on."""
        self.dynamics = cast(InverseDynamics, network).requires_grad_(False).eval()


class PlanSamples:
    """The H states after a transition's own, given that and a goal: a state that the data came to later in the episode.

    From the step that reaches it, the goal is held (paper, sections 3.2 and 4.2: x is the whole state sequence, conditioned on the
    current state and the goal). How much later is ours: exponentially distributed, half a horizon on average, so that direct ways
    are the likely ones and goals out of a plan's reach are known as well.
    """

    def __init__(self, sequence: States, dataset: OfflineDataset) -> None:
        self.sequence = sequence
        self.windows = Windows(dataset, sequence.horizon, device=sequence.normalizer.state_low.device)

    def draw(self, batch: int, generator: torch.Generator, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Draw transitions, of all or of `rows`, and how much later each one's goal is reached, in units of its mean."""
        index = self.windows.draw(batch, generator, rows)
        return {"index": index, "later": torch.empty(batch).exponential_(generator=generator)}

    def observations(self, draws: dict[str, Tensor]) -> Tensor:
        """Return states and goals, raw, `[B, 1, 2 S]`."""
        index, goal = self._rows(draws)
        states = self.windows.observations
        return torch.cat([states[index], states[goal]], dim=1).unsqueeze(1)

    def gather(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return states and goals `[B, 2 S]`, and plans x `[B, n, S]`."""
        condition, states = self.states(draws)
        return condition, self.sequence.normalizer.encode(states, condition)

    @property
    def summary(self) -> str:
        """How many there are."""
        return f"{len(self.windows):,} states to plan from, to those that came after them"

    def states(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return conditions `[B, 2 S]` and the states to come in [-1, 1], `[B, H, S]`."""
        (index, goal), data = self._rows(draws), self.windows.observations
        ahead = torch.arange(1, self.sequence.horizon + 1, device=index.device)
        rows = torch.minimum(index.unsqueeze(1) + ahead, goal.unsqueeze(1))
        states = data.index_select(0, rows.flatten()).view(*rows.shape, -1)
        observation = torch.cat([data[index], data[goal]], dim=1)
        return self.sequence.normalizer.observation(observation), self.sequence.scaled(states)

    def _rows(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the rows of the state and of the goal, each `[B]`."""
        index = draws["index"].to(self.windows.device)
        later = (draws["later"].to(index.device) * self.sequence.horizon / 2).long() + 1
        return index, torch.minimum(index + later, self.windows.last[index])
