"""Which action leads from one state to the next (paper, section 4.2: the reverse dynamics model)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ractd.errors import RactdError
from ractd.sequences.normalizer import PlanNormalizer
from ractd.settings import Optimization

SMALL = 0.02
"""Error of an action, of 2 from the lowest to the highest, from which on it counts by its size alone."""
STEPS_SEEN = 100_000
"""Steps that tell how far one goes."""


class InverseDynamics(nn.Module):
    """Linear + ReLU layers from a state and the one after it, each `[..., S]`, to the action between them, `[..., A]`.

    All are in [-1, 1]. What the layers see of the second state is how far it is from the first, in units of `step_std [S]`:
    one step moves a state by a hundredth of its range. ReLU, since the action that a mass needs is linear in its step
    wherever it touches nothing, and so are these layers piece by piece.
    """

    def __init__(self, state_dim: int, action_dim: int, layers: tuple[int, ...]) -> None:
        super().__init__()
        widths = (2 * state_dim, *layers)
        self.hidden = nn.Sequential(*(module for i, o in pairwise(widths) for module in (nn.Linear(i, o), nn.ReLU())))
        self.output = nn.Linear(widths[-1], action_dim)
        self.step_std: Tensor
        self.register_buffer("step_std", torch.ones(state_dim))

    def forward(self, state: Tensor, after: Tensor) -> Tensor:
        return self.output(self.hidden(torch.cat([state, (after - state) / self.step_std], dim=-1)))  # type: ignore[no-any-return]


class DynamicsObjective(nn.Module):
    """Absolute error (squared below `SMALL`) of the action between two consecutive states, both in [-1, 1].

    Of an action against a wall the states say little. Squared, the few errors there would rule the many that could be none.
    `states [N, S]` and `actions [N, A]` are the data's, raw; `last [N]` is the last row of each row's episode.
    """

    def __init__(
        self, network: InverseDynamics, normalizer: PlanNormalizer, states: Tensor, last: Tensor, actions: Tensor
    ) -> None:
        super().__init__()
        self.network, self.normalizer, self.states, self.actions = network, normalizer, states, actions
        self.rows = torch.nonzero(torch.arange(len(states), device=states.device) < last).flatten()
        if not len(self.rows):
            raise RactdError("no episode has two transitions, so there is no step to learn the inverse dynamics from")
        network.step_std.copy_(self._steps().std(0).clamp(min=1e-6))

    def _steps(self) -> Tensor:
        """Return a sample of steps in [-1, 1], enough to know their spread."""
        rows = self.rows[:: max(1, len(self.rows) // STEPS_SEEN)]
        state, after = (self.normalizer.state(self.states[r]) for r in (rows, rows + 1))
        return after - state

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: transitions whose next state is logged, as positions `[B]`."""
        return {"row": torch.randint(len(self.rows), (optimization.batch_size,), generator=generator)}

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        index = self.rows[draws["row"]]
        state, after = (self.normalizer.state(self.states[rows]) for rows in (index, index + 1))
        found, action = self.network(state, after), self.normalizer.action(self.actions[index])
        loss = nn.functional.smooth_l1_loss(found, action, beta=SMALL)
        return {"loss": loss, "action_error": (found.detach() - action).abs().mean()}
