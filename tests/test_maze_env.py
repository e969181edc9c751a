"""The maze environment and the controller, against closed forms and D4RL's own reference returns."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse.csgraph import shortest_path

from ractd.data.scores import REFERENCES
from ractd.envs import evaluate, make_vector
from ractd.envs.maze import MAZES, Maze, MazeVector, WaypointController, maze_vector, parse_maze
from ractd.envs.maze import physics as constants
from ractd.envs.maze.maps import CENTRE
from ractd.envs.maze.physics import PointMass
from ractd.envs.vector import VectorEnv
from ractd.errors import RactdError

pytest.importorskip("mujoco")

ROOM = parse_maze("\n".join(["#" * 50, "#G" + "." * 47 + "#", *["#" + "." * 48 + "#"] * 47, "#" * 50]), "room")
UMAZE = MAZES["maze2d-umaze"]


@pytest.fixture
def room() -> Iterator[PointMass]:
    physics = PointMass(ROOM, threads=1)
    yield physics
    physics.close()


def test_velocity_approaches_force_over_damping_exponentially(room: PointMass) -> None:
    # m dv/dt = gear u - d v; MuJoCo's Euler step takes the damping implicitly: (m + h d) v' = m v + h gear u.
    mass = 1000 * 4 / 3 * np.pi * 0.1**3
    step, damping, gear = 0.01, 1.0, 100.0
    start = np.array([[5, 5, 0, 0], [20, 30, 3, -2], [30, 40, -1, 0]], float)
    actions = np.array([[0.03, 0.02], [-0.03, 0.01], [0.0, -0.035]])
    states, position = start.copy(), start[:, :2].copy()
    limit = gear * actions / damping
    shrink = mass / (mass + step * damping)
    for n in range(1, 601):
        states = room.step(states, actions)
        velocity = limit + (start[:, 2:] - limit) * shrink**n
        position += step * velocity
        np.testing.assert_allclose(states[:, 2:], velocity, atol=1e-10)
        np.testing.assert_allclose(states[:, :2], position, atol=1e-9)
    exact = limit + (start[:, 2:] - limit) * np.exp(-damping / mass * step * 600)
    np.testing.assert_allclose(states[:, 2:], exact, atol=2e-2)  # the time step's own error is of order h


def test_actions_and_speeds_are_clipped(room: PointMass) -> None:
    start = np.array([[20.0, 20.0, 0.0, 0.0]])
    np.testing.assert_array_equal(room.step(start, np.array([[7.0, -9.0]])), room.step(start, np.array([[1.0, -1.0]])))
    states = start
    for _ in range(200):
        states = room.step(states, np.array([[1.0, -1.0]]))
    mass, step = constants.DENSITY * 4 / 3 * np.pi * constants.RADIUS**3, 0.01
    top = (mass * 5 + step * 100) / (mass + step)
    np.testing.assert_allclose(states[0, 2:], [top, -top], atol=1e-9)


@pytest.mark.parametrize("name", ["maze2d-umaze", "maze2d-large"])
@pytest.mark.parametrize("hold", [1, 7, 40])
def test_no_push_gets_through_a_wall(name: str, hold: int) -> None:
    maze, rng = MAZES[name], np.random.default_rng(hold)
    env = MazeVector(maze, 64, seed=hold)
    before = env.reset()
    deepest = 0.0
    for step in range(560):
        if step % hold == 0:
            actions = rng.choice([-1.0, 1.0, 1.0], (64, 2)) * rng.choice([1, 1, 0.3], (64, 1))
        after, *_ = env.step(actions)
        assert (maze.number_of(after[:, :2]) >= 0).all()
        moved = np.abs(maze.cell_of(after[:, :2]) - maze.cell_of(before[:, :2])).sum(axis=1)
        assert moved.max() <= 1  # never a diagonal, through where two walls meet
        # How far the ball's surface is inside the nearest wall cell, whose half width is 0.5.
        offset = after[:, None, :2] - (np.argwhere(maze.walls) + CENTRE)
        outside = np.linalg.norm(np.maximum(np.abs(offset) - 0.5, 0), axis=-1).min(axis=1)
        deepest = max(deepest, float((constants.RADIUS - outside).max()))
        before = after
    env.close()
    assert 0 < deepest < 0.8 * constants.RADIUS  # walls were hit, and are stiff


def test_an_environment_depends_on_its_own_seed_only() -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (60, 6, 2))

    def run(env: VectorEnv, columns: Any) -> Any:
        seen = [env.reset()]
        seen += [env.step(action[columns])[0] for action in actions]
        env.close()
        return np.stack(seen)

    every = run(MazeVector(UMAZE, 6, seed=10, threads=1), slice(None))
    np.testing.assert_array_equal(run(MazeVector(UMAZE, 6, seed=10, threads=3), slice(None)), every)
    np.testing.assert_array_equal(run(MazeVector(UMAZE, 2, seed=13), slice(3, 5)), every[:, 3:5])
    assert not np.array_equal(run(MazeVector(UMAZE, 6, seed=11), slice(None)), every)
    assert not np.array_equal(every[0, 0], every[0, 1])


def test_rows_step_alone() -> None:
    env, twin = MazeVector(UMAZE, 4, seed=1), MazeVector(UMAZE, 4, seed=1)
    first = env.reset()
    np.testing.assert_array_equal(twin.reset(np.array([2, 0])), first[[2, 0]])
    push = np.full((4, 2), 0.5)
    expected = env.step(push)
    found = twin.step(push[:2], np.array([2, 0]))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(np.asarray(a)[[2, 0]], b)
    again = twin.reset(np.array([0]))
    assert not np.array_equal(again[0], first[0])
    with pytest.raises(RactdError, match=r"actions are \[2, 3\], expected \[2, 2\]"):
        env.step(np.zeros((2, 3)), np.array([0, 1]))


def test_starts_are_d4rls() -> None:
    env = MazeVector(MAZES["maze2d-medium"], 2000, seed=0)
    states = env.reset().astype(float)
    cells = np.round(states[:, :2])
    offset = states[:, :2] - cells
    assert np.abs(offset).max() < 0.1 + 1e-6
    assert np.std(offset) == pytest.approx(0.2 / np.sqrt(12), rel=0.03)
    assert np.std(states[:, 2:]) == pytest.approx(0.1, rel=0.03)
    numbers, counts = np.unique(env.maze.number_of(cells), return_counts=True)
    assert len(numbers) == len(env.maze.cells)
    expected = 2000 / len(numbers)
    assert ((counts - expected) ** 2 / expected).sum() < 52.6  # chi-squared, 25 degrees of freedom, 0.1%
    own = parse_maze("#####\n#S.G#\n#####", "own")
    np.testing.assert_array_equal(np.round(MazeVector(own, 50).reset()[:, :2]), np.tile([1, 1], (50, 1)))


def test_reward_is_one_within_half_a_cell_of_the_goal_after_the_step() -> None:
    env = MazeVector(UMAZE, 3)
    np.testing.assert_array_equal(env.goal, [1, 1])
    # At 1.7 a step at speed 5 leads to 1.65, and so on: only the third point comes near in one step.
    env.reset_to(np.array([[1, 1.3, 0, 0], [1, 1.7, 0, 0], [1, 1.52, 0, -5]], float))
    _, rewards, terminated, truncated = env.step(np.zeros((3, 2)))
    np.testing.assert_array_equal(rewards, [1, 0, 1])
    assert not terminated.any()
    assert not truncated.any()
    with pytest.raises(RactdError, match=r"start \(2, 1\), number 1, is inside a wall"):
        env.reset_to(np.array([[1, 1, 0, 0], [2, 1, 0, 0], [1, 1, 0, 0]], float))
    with pytest.raises(RactdError, match=r"states are \[3, 2\], expected finite numbers, \[3, 4\]"):
        env.reset_to(np.ones((3, 2)))


def controller_policy(maze: Maze, seed: int = 0, starts: Any = None) -> Any:
    """The planner and controller as a policy of whole waves of episodes to the maze's goal."""
    controllers: dict[int, WaypointController] = {}

    def policy(observations: NDArray[np.float32]) -> Any:
        states = observations[:, -1].astype(np.float64)
        if not controllers:
            rows = np.arange(len(states))
            controllers[0] = WaypointController(maze, len(states), np.random.default_rng(seed))
            controllers[0].aim(rows, states[:, :2], np.tile(maze.goal, (len(states), 1)))
        return controllers[0](states)[0][:, None]

    return policy


@pytest.mark.parametrize("maze", MAZES.values(), ids=lambda maze: maze.name)
def test_the_controller_always_reaches_the_goal(maze: Maze) -> None:
    result = evaluate(controller_policy(maze), maze.env_id, episodes=120)
    assert (result.lengths == maze.max_episode_steps).all()
    assert not result.terminated.any()
    assert result.backend == "mujoco"
    # It needs at most 30 steps a cell on the way, and stays once there.
    beside = np.abs(maze.cells[:, None] - maze.cells).sum(axis=-1) == 1
    longest = int(shortest_path(beside, unweighted=True)[maze.number_of(maze.goal)].max())
    assert result.returns.min() > maze.max_episode_steps - 30 * (longest + 1)
    assert result.mean_score is not None
    assert result.mean_score > 100
    low, high = REFERENCES[maze.name]
    assert result.mean_score == pytest.approx(100 * (result.mean_return - low) / (high - low))


@pytest.mark.parametrize("maze", MAZES.values(), ids=lambda maze: maze.name)
def test_d4rls_reference_policy_earns_d4rls_reference_return(maze: Maze) -> None:
    # D4RL's "expert" is its controller, which plans for the first of 100 episodes only (the goal, which makes it plan
    # anew, never changes) and in the others pulls straight towards the goal, into the walls between.
    def straight(observations: NDArray[np.float32]) -> Any:
        states = observations[:, -1]
        return np.clip(10 * (maze.goal - states[:, :2]) - states[:, 2:], -1, 1)[:, None]

    result = evaluate(straight, maze.env_id, episodes=200, seed=500)
    error_of_theirs = result.returns.std() / np.sqrt(100)
    assert abs(result.mean_return - REFERENCES[maze.name][1]) < 3 * np.hypot(result.return_se, error_of_theirs)


def test_a_random_policy_earns_d4rls_minimum() -> None:
    rng = np.random.default_rng(0)
    result = evaluate(lambda seen: rng.uniform(-1, 1, (len(seen), 1, 2)), UMAZE.env_id, episodes=200)
    error_of_theirs = result.returns.std() / np.sqrt(100)
    assert abs(result.mean_return - 23.85) < 3 * np.hypot(result.return_se, error_of_theirs)


def test_ids() -> None:
    assert make_vector("ractd/maze2d-large", 2).max_episode_steps == 800
    own = parse_maze("#####\n#S.G#\n#####", "own")
    with pytest.raises(RactdError, match="ractd/maze/own is a maze of one's own, whose map is in its dataset"):
        make_vector(own.env_id, 1)
    result = evaluate(controller_policy(own), own.env_id, episodes=3, make=maze_vector(own))
    assert result.returns.min() > 200
    assert result.scores is None
    with pytest.raises(RactdError, match="'Hopper-v5' is not maze 'own', which is 'ractd/maze/own'"):
        maze_vector(own)("Hopper-v5", 1, 0)
    with pytest.raises(RactdError, match="num_envs is 0"):
        MazeVector(own, 0)
