"""The goal reward: how many states of a plan are at its goal (paper, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from ractd.critics.critic import CriticObjective
from ractd.critics.return_to_go import ReturnToGo, ReturnToGoPart
from ractd.critics.settings import ReturnModel
from ractd.data import OfflineDataset
from ractd.envs.maze import GOAL_RADIUS
from ractd.sequences import Sequence
from ractd.sequences.normalizer import PlanNormalizer
from ractd.settings import Optimization, Positive

NEAR = 50
"""Half of the goals that the reward is shown lie at most so many steps from the state: most others are far from it."""


@dataclass(frozen=True)
class GoalPart(ReturnToGoPart):
    """What a policy file says of a goal reward."""

    kind: ClassVar[str] = "goal"

    mean: float = 0.0
    std: Positive = 1.0
    gamma: float = 1.0


class GoalReward(ReturnToGo):
    """R(goal, state), 1 at the goal, else 0, summed over *all* states of a sequence: a plan is worth the time it is at its goal."""

    kind = "goal"
    Part = GoalPart

    @classmethod
    def build(cls, part: ReturnToGoPart, sequence: Sequence) -> GoalReward:
        """Return a critic that looks at the goal of a condition and at every state of a sequence."""
        critic = cls(part, sequence.entries[1], sequence.entries[1])
        critic.rewarded = sequence.rewarded
        return critic

    @classmethod
    def fit(  # type: ignore[override]
        cls, config: ReturnModel, sequence: Sequence, dataset: OfflineDataset, rows: Tensor
    ) -> tuple[GoalReward, GoalRewardObjective]:
        """Return a goal reward, and what it minimises on the transitions `rows [N]`."""
        critic = cls.build(GoalPart(tuple(config.layers), config.members), sequence)
        states = torch.from_numpy(dataset.observations).to(rows.device)
        normalizer = cast(PlanNormalizer, sequence.normalizer)
        return critic, GoalRewardObjective(critic, normalizer, states, rows, config.action_noise)

    def largest(self, config: ReturnModel, dataset: OfflineDataset) -> float:
        """Return the number of states of a plan: it is at its goal at most all the time."""
        return float(self.rewarded)


def at_goal(states: Tensor, goals: Tensor) -> Tensor:
    """Tell which raw states are near enough to their goals to be paid in a maze, both `[B, S]`."""
    near: Tensor = (states[:, :2] - goals[:, :2]).norm(dim=1) <= GOAL_RADIUS
    return near


class GoalRewardObjective(CriticObjective):
    """Squared error of R(goal, state) against the goal reward: 1 at the goal, else 0 (paper, section 4.2).

    `states [N, S]` are the data's, raw. They are shown with noise of standard deviation `noise` (of the range [-1, 1]): the edge
    of the goal becomes a slope. `rows` are the training episodes' transitions.
    """

    def __init__(
        self, network: GoalReward, normalizer: PlanNormalizer, states: Tensor, rows: Tensor, noise: float
    ) -> None:
        super().__init__()
        self.network, self.normalizer, self.states, self.rows, self.noise = network, normalizer, states, rows, noise

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: positions in `rows` of the states and of far goals, steps to near ones, noise."""
        B = optimization.batch_size
        return {
            "row": torch.randint(len(self.rows), (B,), generator=generator),
            "far": torch.randint(len(self.rows), (B,), generator=generator),
            "steps": torch.randint(-NEAR, NEAR + 1, (B,), generator=generator),
            "near": torch.rand(B, generator=generator) < 0.5,
            "noise": torch.randn(B, self.states.shape[1], generator=generator),
        }

    def pairs(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return raw states and goals, each `[B, S]`; a near goal may be another episode's, which is as good."""
        index = self.rows[draws["row"]]
        near = (index + draws["steps"]).clamp(0, len(self.states) - 1)
        goal = torch.where(draws["near"], near, self.rows[draws["far"]])
        return self.states[index], self.states[goal]

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        states, goals = self.pairs(draws)
        shown = self.normalizer.state(states) + self.noise * draws["noise"]
        estimates = self.network.each(self.normalizer.goal(goals), shown)
        loss = (estimates - at_goal(states, goals).float()).square().mean()
        return {"loss": loss, "return_mse": loss.detach()}

    @torch.no_grad()
    def error(self, network: GoalReward, index: Tensor) -> float:
        """Return the mean squared error of a network on clean pairs of transitions `index [N]`: near ones, and as many far."""
        goals = torch.cat([(index + NEAR // 2).clamp(max=len(self.states) - 1), index.flip(0)])
        state, goal = self.states[index.repeat(2)], self.states[goals]
        estimate = network.row(self.normalizer.goal(goal), self.normalizer.state(state))
        return float((estimate - at_goal(state, goal).float()).square().mean())
