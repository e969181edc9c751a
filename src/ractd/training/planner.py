"""What a planner needs besides teacher and student: the goal reward and the inverse dynamics (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ractd.errors import RactdError
from ractd.models import InverseDynamics, ReturnNetwork
from ractd.settings import Optimization
from ractd.training.samples import Plans

Reached = Callable[[Tensor, Tensor], Tensor]
"""Raw states and goals, each `[B, S]` -> True where the state is at the goal, `[B]`."""
NEAR = 50
"""Half of the goals that the reward is shown lie at most so many steps from the state: most others are far from it."""
SMALL = 0.02
"""Error of an action, of 2 from the lowest to the highest, from which on it counts by its size alone."""
STEPS_SEEN = 100_000
"""Steps that tell how far one goes."""


class GoalRewardObjective(nn.Module):
    """Squared error of R(goal, state) against the goal reward: 1 at the goal, else 0 (paper, section 4.2).

    States are shown with noise of standard deviation `noise` (of the range [-1, 1]): the edge of the goal becomes a slope.
    """

    def __init__(self, network: ReturnNetwork, plans: Plans, reached: Reached, rows: Tensor, noise: float) -> None:
        super().__init__()
        self.network, self.plans, self.reached, self.rows, self.noise = network, plans, reached, rows, noise

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: positions in `rows` of the states and of far goals, steps to near ones, noise."""
        B = optimization.batch_size
        return {
            "row": torch.randint(len(self.rows), (B,), generator=generator),
            "far": torch.randint(len(self.rows), (B,), generator=generator),
            "steps": torch.randint(-NEAR, NEAR + 1, (B,), generator=generator),
            "near": torch.rand(B, generator=generator) < 0.5,
            "noise": torch.randn(B, self.plans.shape[1], generator=generator),
        }

    def pairs(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return raw states and goals, each `[B, S]`; a near goal may be another episode's, which is as good."""
        index = self.rows[draws["row"]]
        near = (index + draws["steps"]).clamp(0, len(self.plans.states) - 1)
        goal = torch.where(draws["near"], near, self.rows[draws["far"]])
        return self.plans.states[index], self.plans.states[goal]

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        states, goals = self.pairs(draws)
        shown = self.plans.normalizer.state(states) + self.noise * draws["noise"]
        estimates = self.network.each(self.plans.normalizer.goal(goals), shown)
        loss = (estimates - self.reached(states, goals).float()).square().mean()
        return {"loss": loss, "return_mse": loss.detach()}

    @torch.no_grad()
    def error(self, network: nn.Module, index: Tensor) -> float:
        """Return the mean squared error of a network on clean pairs of transitions `index [N]`: near ones, and as many far."""
        goals = torch.cat([(index + NEAR // 2).clamp(max=len(self.plans.states) - 1), index.flip(0)])
        state, goal = self.plans.states[index.repeat(2)], self.plans.states[goals]
        estimate = network(self.plans.normalizer.goal(goal), self.plans.normalizer.state(state))
        return float((estimate - self.reached(state, goal).float()).square().mean())


class DynamicsObjective(nn.Module):
    """Absolute error (squared below `SMALL`) of the action between two consecutive states, both in [-1, 1].

    Of an action against a wall the states say little. Squared, the few errors there would rule the many that could be none.
    """

    def __init__(self, network: InverseDynamics, plans: Plans, actions: Tensor) -> None:
        super().__init__()
        self.network, self.plans, self.actions = network, plans, actions
        index = torch.arange(len(plans.states), device=plans.states.device)
        self.rows = torch.nonzero(index < plans.last).flatten()
        if not len(self.rows):
            raise RactdError("no episode has two transitions, so there is no step to learn the inverse dynamics from")
        network.step_std.copy_(self._steps().std(0).clamp(min=1e-6))

    def _steps(self) -> Tensor:
        """Return a sample of steps in [-1, 1], enough to know their spread."""
        rows = self.rows[:: max(1, len(self.rows) // STEPS_SEEN)]
        state, after = (self.plans.normalizer.state(self.plans.states[r]) for r in (rows, rows + 1))
        return after - state

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: transitions whose next state is logged, as positions `[B]`."""
        return {"row": torch.randint(len(self.rows), (optimization.batch_size,), generator=generator)}

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        index, normalizer = self.rows[draws["row"]], self.plans.normalizer
        state, after = (normalizer.state(self.plans.states[rows]) for rows in (index, index + 1))
        found, action = self.network(state, after), normalizer.action(self.actions[index])
        loss = nn.functional.smooth_l1_loss(found, action, beta=SMALL)
        return {"loss": loss, "action_error": (found.detach() - action).abs().mean()}
