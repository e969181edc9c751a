"""Action values learnt from logged transitions by temporal differences, before a student: SARSA's and implicit Q-learning's.

A return-to-go knows one future of each action, the one that was logged. These values pass what is known of a state on to all that
comes before it, in other episodes too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ractd.critics.critic import CriticObjective
from ractd.critics.q import QFunction
from ractd.critics.return_to_go import ReturnToGoPart, discount_and_penalty
from ractd.critics.settings import ReturnModel
from ractd.data import OfflineDataset, return_to_go
from ractd.data.windows import Transitions, Windows
from ractd.networks.ensemble import Ensemble
from ractd.sequences import Sequence
from ractd.settings import Optimization

LARGEST_WEIGHT = 100.0
"""Of a transition by its advantage, as in the code of IQL's authors."""


@dataclass(frozen=True)
class SarsaPart(ReturnToGoPart):
    """What a policy file says of SARSA's values, whose layers are Linear + LayerNorm + ReLU."""

    kind: ClassVar[str] = "sarsa"
    layer_norm: ClassVar[bool] = True


@dataclass(frozen=True)
class ImplicitPart(SarsaPart):
    """What a policy file says of IQL's values."""

    kind: ClassVar[str] = "iql"


class Sarsa(QFunction):
    """Q(s_n, a_n) of a sequence's *first* action, where what comes after it is what the data did (Rummery and Niranjan, 1994)."""

    kind = "sarsa"
    Part = SarsaPart
    fitted_before = True
    asks_next_action: ClassVar[bool] = True
    """Whether the value of what comes after a transition depends on the action that was logged there."""

    def __init__(self, part: SarsaPart, condition_dim: int, action_dim: int) -> None:
        super().__init__(part, condition_dim, action_dim)
        self.mean = part.mean

    @classmethod
    def fit(
        cls, config: ReturnModel, sequence: Sequence, dataset: OfflineDataset, rows: Tensor
    ) -> tuple[Sarsa, TDObjective]:
        """Return untrained values in units of the dataset's returns-to-go, and what they minimise on the transitions `rows [N]`."""
        gamma, penalty = discount_and_penalty(config)
        returns = return_to_go(dataset, gamma, penalty)
        mean, std = float(returns.mean(dtype=np.float64)), float(returns.std(dtype=np.float64)) or 1.0
        critic = cls.build(cls.Part(tuple(config.layers), config.members, mean, std, gamma), sequence)  # type: ignore[arg-type, call-arg]
        windows = Windows(dataset, 1, sequence.history, rows.device)
        transitions = Transitions(windows, config.n_step, gamma, penalty)
        return critic, TDObjective(critic, sequence, transitions, rows, config.expectile)

    def largest(self, config: ReturnModel, dataset: OfflineDataset) -> float:
        """Return the standardised value of the data's largest reward in each step of its longest episode.

        Values pass from one episode to another, so that the largest return-to-go is no bound.
        """
        gamma, length, reward = self.part.gamma, int(dataset.episode_lengths.max()), float(dataset.rewards.max())
        steps = length if gamma == 1 else (1 - gamma**length) / (1 - gamma)
        return (max(reward, 0.0) * steps - self.mean) / self.std

    def value_after(self, next_condition: Tensor, next_action: Tensor) -> Tensor:
        """Return the value of what comes after transitions, `[B]`: that of the logged action there."""
        return self.row(next_condition, next_action)

    def state_loss(self, target: Sarsa, condition: Tensor, action: Tensor, expectile: float) -> Tensor:
        """Return what is minimised besides the temporal difference: nothing."""
        return condition.new_zeros(())


class ImplicitQ(Sarsa):
    """Q(s_n, a_n) of a sequence's *first* action where good actions of the data follow it (Kostrikov et al., 2021, 4.2)."""

    kind = "iql"
    Part = ImplicitPart
    asks_next_action = False

    def __init__(self, part: ImplicitPart, condition_dim: int, action_dim: int) -> None:
        super().__init__(part, condition_dim, action_dim)
        self.state_value = Ensemble(1, condition_dim, part.layers, layer_norm=True)

    def value_after(self, next_condition: Tensor, next_action: Tensor) -> Tensor:
        """Return the value of what comes after transitions, `[B]`: V, an expectile over the actions logged in such states."""
        return self.state_value(next_condition)[0]  # type: ignore[no-any-return]

    def state_loss(self, target: Sarsa, condition: Tensor, action: Tensor, expectile: float) -> Tensor:
        """Return the expectile loss `|tau - 1(u < 0)| u^2` of `u = min Q'(s, a) - V(s)`."""
        with torch.no_grad():
            q = target.each(condition, action).amin(0)
        u = q - self.state_value(condition)[0]
        loss: Tensor = (torch.where(u > 0, expectile, 1 - expectile) * u.square()).mean()
        return loss

    @torch.no_grad()
    def advantage_weights(self, sequence: Sequence, dataset: OfflineDataset, temperature: float) -> Tensor:
        """Return how much each transition counts, float32 `[N]` of mean 1: `exp(temperature A / std A)`, `A = Q(s, a) - V(s)`.

        No weight is above `LARGEST_WEIGHT` before they are scaled; where all advantages are the same, all are 1.
        """
        windows = Windows(dataset, 1, sequence.history, sequence.normalizer.action_low.device)
        advantages = []
        for index in torch.arange(len(windows), device=windows.device).split(65_536):
            observations, actions = windows.gather(index)
            condition = sequence.condition(observations)
            advantages.append(self.row(condition, sequence.scaled(actions[:, 0])) - self.state_value(condition)[0])
        advantage = torch.cat(advantages)
        unit = advantage.std().clamp(min=1e-6)
        weights = (temperature * advantage / unit).exp().clamp(max=LARGEST_WEIGHT)
        return weights / weights.mean()


class TDObjective(CriticObjective):
    """Squared error of every member against `R + gamma^n Q'(after)`, all in standard deviations of the data's returns-to-go.

    Q' is the moving average. Transitions that were cut where no action is known any more are left out where Q' asks for one.
    """

    best_by_error = False
    average: Sarsa

    def __init__(
        self, network: Sarsa, sequence: Sequence, transitions: Transitions, rows: Tensor, expectile: float
    ) -> None:
        super().__init__()
        self.network, self.sequence, self.transitions, self.expectile = network, sequence, transitions, expectile
        self.rows = transitions.rows[torch.isin(transitions.rows, rows.cpu())]

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: transitions of the training episodes, `[B]`."""
        return {"index": self.transitions.windows.draw(optimization.batch_size, generator, self.rows)}

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        error, state = self.errors(self.network, draws["index"])
        td = error.mean()
        return {"loss": td + state, "td_error": td.detach()}

    def errors(self, network: Sarsa, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared temporal differences of transitions `index [B]`, `[members, B]`, and the loss of state values."""
        found, target = self.transitions.gather(index), self.average
        condition, action = self.sequence.condition(found.observations), self.sequence.scaled(found.actions[:, 0])
        known = found.continued | (found.discounts == 0) | (not network.asks_next_action)
        with torch.no_grad():
            next_condition = self.sequence.condition(found.next_observations)
            after = target.value_after(next_condition, self.sequence.scaled(found.next_actions))
            value = (found.rewards + found.discounts * target.data_units(after) - network.mean) / network.std
        error = known * (network.each(condition, action) - value).square()
        return error, network.state_loss(target, condition, action, self.expectile)

    @torch.no_grad()
    def error(self, network: Sarsa, index: Tensor) -> float:
        """Return the mean squared temporal difference of a critic on transitions `index [N]`."""
        rows = self.transitions.rows[torch.isin(self.transitions.rows, index.cpu())]
        sums = [self.errors(network, some)[0].mean(0).sum().cpu() for some in rows.split(65_536)]
        return float(torch.stack(sums).sum()) / len(rows) if sums else 0.0
