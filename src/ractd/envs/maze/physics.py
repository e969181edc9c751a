"""The point mass: a frictionless ball pushed by two motors, stepped for many mazes at once by `mujoco.rollout`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.envs.maze.maps import Floats, Maze
from ractd.errors import RactdError

TIMESTEP = 0.01
"""Seconds of one environment step."""
RADIUS = 0.1
DENSITY = 1000.0
DAMPING = 1.0
GEAR = 100.0
"""Force of an action of 1."""
MAX_SPEED = 5.0
"""Each velocity is clipped to this before a step, so that after one it is at most a step's push above it."""


def mjcf(maze: Maze) -> str:
    """Return the MuJoCo model of a maze, as XML: a ball on two slides and a box for each wall cell.

    Masses, motors, damping and contacts are those of D4RL's generated model (D4RL, `pointmaze/maze_model.py`). Its
    ground plane is left out: the ball can't leave its height, so the plane pushes against nothing.
    """
    boxes = "".join(
        f'<geom type="box" pos="{row + 1} {column + 1} 0" size="0.5 0.5 0.2" contype="2"/>'
        for row, column in np.argwhere(maze.walls)
    )
    motors = "".join(f'<motor joint="{axis}" gear="{GEAR}" ctrlrange="-1 1" ctrllimited="true"/>' for axis in "xy")
    # At position 0 the ball is at 1.2, where the walls' grid has its first centre at 1: the 0.2 of `maps.CENTRE`.
    return f"""
<mujoco model="maze">
  <option timestep="{TIMESTEP}" gravity="0 0 0" integrator="Euler" iterations="20"/>
  <default>
    <joint type="slide" damping="{DAMPING}"/>
    <geom density="{DENSITY}" margin="0.002" condim="1" conaffinity="1"/>
  </default>
  <worldbody>
    <body pos="1.2 1.2 0">
      <geom type="sphere" size="{RADIUS}" contype="1"/>
      <joint name="x" axis="1 0 0"/>
      <joint name="y" axis="0 1 0"/>
    </body>
    {boxes}
  </worldbody>
  <actuator>{motors}</actuator>
</mujoco>"""


class PointMass:
    """Steps states [B, 4] of (x, y, vx, vy), positions in cells and velocities in cells a second.

    A step depends on its state and action only: not on the batch, the number of threads or what was stepped before.
    `threads` share a batch; raises RactdError where MuJoCo is not installed.
    """

    def __init__(self, maze: Maze, threads: int) -> None:
        try:
            import mujoco
            from mujoco.rollout import Rollout
        except ImportError:
            raise RactdError('mazes need MuJoCo, which is not installed: pip install "ractd[envs]"') from None
        self._model = mujoco.MjModel.from_xml_string(mjcf(maze))
        # A pool of one thread only costs a switch: 0 steps on the caller's.
        self._pool = Rollout(nthread=threads if threads > 1 else 0)
        self._data = [mujoco.MjData(self._model) for _ in range(threads)]
        full = mujoco.mjtState.mjSTATE_FULLPHYSICS
        self._size = mujoco.mj_stateSize(self._model, full)
        self._first = mujoco.mj_stateSize(self._model, mujoco.mjtState.mjSTATE_TIME)

    def step(self, states: Floats, actions: NDArray[np.floating[Any]]) -> Floats:
        """Return the states [B, 4] after one step of actions [B, 2], which are clipped to [-1, 1]."""
        before = np.zeros((len(states), self._size))
        before[:, self._first : self._first + 4] = states
        velocities = before[:, self._first + 2 : self._first + 4]
        np.clip(velocities, -MAX_SPEED, MAX_SPEED, out=velocities)
        after, _ = self._pool.rollout(self._model, self._data, before, actions[:, None])
        stepped: Floats = after[:, 0, self._first : self._first + 4]
        return stepped

    def close(self) -> None:
        """Free the threads."""
        self._pool.close()
