"""A policy that plans: states on the way to a goal, and the actions that lead from each to the next."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ractd.diffusion.ctm import sequence_return
from ractd.errors import RactdError
from ractd.models import InverseDynamics, ReturnNetwork
from ractd.models.normalizer import PlanNormalizer
from ractd.policy import Policy, PolicySpec

if TYPE_CHECKING:
    from ractd.envs.maze import Maze


class Planner(Policy):
    """A policy whose sequences are states: it plans the way to a goal, and its inverse dynamics says which actions lead there.

    To `act` and `act_chunk` an observation is a state and a goal, `[2 S]` or `[B, 2 S]`; `plan` takes the two apart.
    """

    normalizer: PlanNormalizer

    def __init__(
        self,
        spec: PolicySpec,
        network: nn.Module,
        return_network: ReturnNetwork,
        normalizer: PlanNormalizer,
        dynamics: InverseDynamics,
    ) -> None:
        super().__init__(spec, network, return_network, normalizer)
        self.dynamics = dynamics.requires_grad_(False).eval()

    @cached_property
    def maze(self) -> Maze | None:
        """The maze that it plans in; raises `RactdError` where its map is damaged."""
        from ractd.envs.maze import maze_named

        return maze_named(self.spec.env_id, self.spec.maze, "the policy's 'maze'")

    def _with(self, spec: PolicySpec) -> Planner:
        return Planner(spec, self._own_network, self.return_network, self.normalizer, self.dynamics)

    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the states `[B, c, S]`, in [-1, 1] where the data is, of sequences x."""
        return self.normalizer.decode(x, condition)

    def sample_plan(self, observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw states `[B, c, S]` and the raw actions `[B, c, A]` that lead to them, for raw observations `[B, 1, 2 S]`."""
        states, actions = self._plan(observations, noise)
        return self.normalizer.raw_state(states), actions

    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Return the raw actions `[B, c, A]` of plans for raw observations `[B, 1, 2 S]`."""
        return self._plan(observations, noise)[1]

    def _plan(self, observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        condition = self.normalizer.observation(observations).flatten(1)
        now = self.normalizer.state(observations[:, :, : self.spec.state_dim])
        states = self.normalizer.decode_from(self.sequence(condition, noise), now).clamp(-1, 1)
        before = torch.cat([now, states[:, :-1]], dim=1)
        return states, self.normalizer.raw_action(self.dynamics(before, states))

    @torch.inference_mode()
    def plan(self, state: NDArray[Any], goal: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the c states that lead from `state` to `goal`, and the action that leads to each.

        `state` is `[S]` or `[B, S]`; `goal` is the first G <= S entries of a state (others are zero: to be there at rest),
        `[G]` or `[B, G]`. Returns `[c, S]`, `[c, A]` or `[B, c, S]`, `[B, c, A]`. Raises `RactdError` for a
        wrong shape or NaN, and for a state or a goal in a wall of its maze.
        """
        observation = self.observe(state, goal)
        if self.maze is not None and np.isfinite(observation).all():
            self.maze.check("state", observation[..., :2])
            self.maze.check("goal", observation[..., self.spec.state_dim : self.spec.state_dim + 2])
        batch, single = self._batch(observation)
        states, actions = (raw.cpu().numpy() for raw in self.sample_plan(batch, self.draw_noise(len(batch))))
        return (states[0], actions[0]) if single else (states, actions)

    def observe(self, state: NDArray[Any], goal: NDArray[Any]) -> NDArray[np.float32]:
        """Return the observation that a state `[S]` or `[B, S]` and a goal `[G]` or `[B, G]` make; raises `RactdError`."""
        S = self.spec.state_dim
        states, goals = np.asarray(state, np.float32), np.asarray(goal, np.float32)
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

    def seen(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an environment's states `[B, 1, S]` with the goal that the policy is scored by, `[B, 1, 2 S]`."""
        return self.observe(observations[:, -1], np.array(self.spec.goal))[:, None]

    @torch.inference_mode()
    def estimate_return(self, observation: NDArray[Any], action: NDArray[Any]) -> NDArray[np.float32]:
        """Return how many of the states `action [B, c, S]` of plans are at the goal of `observation [B, 2 S]`, as R sees it."""
        device = self.normalizer.action_low.device
        condition = self.normalizer.observation(torch.as_tensor(observation, dtype=torch.float32, device=device))
        x = self.normalizer.state(torch.as_tensor(action, dtype=torch.float32, device=device))
        given = self.return_network.given(condition)
        total = sequence_return(self.return_network, given, x, x.shape[1])
        return (total * self.spec.return_std + self.spec.return_mean).cpu().numpy()  # type: ignore[no-any-return]
