"""Which action leads from one state to the next (paper, section 4.2: the reverse dynamics model)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


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
