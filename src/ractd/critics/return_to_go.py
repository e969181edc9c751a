"""The return model: the discounted return-to-go of an observation and the action taken there (paper, section 3.3; Appendix B.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ractd.critics.critic import Critic, CriticObjective, CriticPart
from ractd.critics.settings import ReturnModel
from ractd.data import OfflineDataset, return_to_go
from ractd.data.windows import Windows
from ractd.networks.actor import mlp
from ractd.networks.mish import Mish
from ractd.sequences import Sequence
from ractd.settings import Count, Optimization, Positive


@dataclass(frozen=True)
class ReturnToGoPart(CriticPart):
    """What a policy file says of a return model."""

    kind: ClassVar[str] = "return-to-go"

    layers: tuple[Count, ...]
    """Widths of its Linear + Mish layers (Table 8)."""
    members: Count
    """Networks of these layers whose mean is the value; the paper has one."""
    mean: float
    """Mean of the dataset's returns-to-go: a value of 0."""
    std: Positive
    """Their standard deviation: the unit of values."""
    gamma: float
    """Discount of the returns."""


class ReturnToGo(Critic):
    """R(s_n, a_n): the return-to-go of the latest observation and a sequence's *first* action (paper, eq. 8).

    What later actions of a sequence are worth is not asked: in closed loop they are never executed.
    """

    kind = "return-to-go"
    Part = ReturnToGoPart

    def __init__(self, part: ReturnToGoPart, condition_dim: int, entry_dim: int) -> None:
        super().__init__()
        self.part, self.mean, self.std = part, part.mean, part.std
        self.condition_dim = condition_dim
        inputs = condition_dim + entry_dim
        self.members = nn.ModuleList(mlp(inputs, part.layers, 1, activation=Mish) for _ in range(part.members))

    @classmethod
    def build(cls, part: ReturnToGoPart, sequence: Sequence) -> ReturnToGo:
        """Return a critic that looks at the latest observation of a condition and at single steps of a sequence."""
        return cls(part, sequence.observation_dim, sequence.entries[1])

    @classmethod
    def fit(
        cls, config: ReturnModel, sequence: Sequence, dataset: OfflineDataset, rows: Tensor
    ) -> tuple[ReturnToGo, ReturnObjective]:
        """Return a return model in units of the dataset's returns-to-go, and what it minimises on the transitions `rows [N]`."""
        gamma, penalty = discount_and_penalty(config)
        returns = return_to_go(dataset, gamma, penalty)
        mean = float(returns.mean(dtype=np.float64))
        # A dataset whose returns are all alike has nothing to rank; one unit then keeps them at zero.
        std = float(returns.std(dtype=np.float64)) or 1.0
        part = ReturnToGoPart(tuple(config.layers), config.members, mean, std, gamma)
        critic = cls.build(part, sequence)
        targets = torch.from_numpy((returns - np.float32(mean)) / np.float32(std)).to(rows.device)
        windows = Windows(dataset, 1, sequence.history, rows.device)
        return critic, ReturnObjective(critic, sequence, windows, targets, rows, config.action_noise)

    def largest(self, config: ReturnModel, dataset: OfflineDataset) -> float:
        """Return the largest return-to-go of a dataset, standardised."""
        return float((return_to_go(dataset, *discount_and_penalty(config)).max() - self.mean) / self.std)


def discount_and_penalty(config: ReturnModel) -> tuple[float, float]:
    """Return discount and penalty of a failure, of settings that were resolved for a dataset."""
    assert config.gamma is not None, "the settings are not resolved"
    assert config.termination_penalty is not None, "the settings are not resolved"
    return config.gamma, config.termination_penalty


class ReturnObjective(CriticObjective):
    """Squared error of R(s_n, a_n) against the return-to-go, in standard deviations of the dataset's returns-to-go.

    Every member of the return model is fitted for itself: they differ in their first weights alone.
    """

    def __init__(
        self,
        network: ReturnToGo,
        sequence: Sequence,
        windows: Windows,
        targets: Tensor,
        rows: Tensor,
        action_noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.network, self.sequence, self.windows = network, sequence, windows
        self.targets, self.rows, self.action_noise = targets, rows, action_noise

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: positions in `rows` (the training episodes' transitions), `[B]`."""
        B, action_dim = optimization.batch_size, self.windows.actions.shape[1]
        return {
            "row": torch.randint(len(self.rows), (B,), generator=generator),
            "noise": torch.randn(B, action_dim, generator=generator),
        }

    def observation_and_action(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latest observation `[B, O]` and the action `[B, A]` of transitions, both scaled."""
        observations, actions = self.windows.gather(index)
        condition = self.sequence.condition(observations)
        return condition[:, -self.network.condition_dim :], self.sequence.scaled(actions[:, 0])

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        index = self.rows[draws["row"]]
        observation, action = self.observation_and_action(index)
        estimates = self.network.each(observation, action + self.action_noise * draws["noise"])
        loss = (estimates - self.targets[index]).square().mean()
        return {"loss": loss, "return_mse": loss.detach()}

    @torch.no_grad()
    def error(self, network: ReturnToGo, index: Tensor) -> float:
        """Return the mean squared error of a network on transitions `index [N]`, in variances of the returns-to-go."""
        total = torch.zeros((), dtype=torch.float64)
        for rows in index.split(65_536):
            estimate = network.row(*self.observation_and_action(rows))
            # Summed by the processor: not every accelerator has float64.
            total += (estimate - self.targets[rows]).square().cpu().sum(dtype=torch.float64)
        return float(total / len(index))
