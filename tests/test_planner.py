"""Plans: what is learnt of the data, its coordinates, the goal reward, the inverse dynamics, and the policy that plans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_factory import make
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_factory import goal_reward, policy_of, sampling_of, states_of
from scipy.interpolate import BSpline

from ractd.critics.goal import GoalRewardObjective
from ractd.data.dataset import OfflineDataset
from ractd.diffusion.ctm import bound_excess
from ractd.envs.context import Context
from ractd.errors import RactdError
from ractd.export import verify
from ractd.export.graph import draws_first
from ractd.policies import Planner, Policy
from ractd.policies.files import describe_policy
from ractd.sequences.dynamics import DynamicsObjective, InverseDynamics
from ractd.sequences.spline import Spline, bspline_weights
from ractd.sequences.states import PlanSamples, States, StatesPart
from ractd.settings import Optimization

HORIZON = 6
EVERY = Optimization(steps=1, batch_size=512)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plans_of(data: OfflineDataset, points: int = 0, horizon: int = HORIZON) -> PlanSamples:
    return states_of(data, horizon, points).samples(data)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 2**20))
def test_a_plan_is_what_followed_until_its_goal_and_then_the_goal(lengths: list[int], seed: int) -> None:
    data = make(tuple(lengths))
    plans = plans_of(data)
    draws = plans.draw(32, generator(seed))
    condition, x = plans.gather(draws)
    normalizer = plans.sequence.normalizer
    states = normalizer.raw_state(x).numpy()
    observation = (condition * normalizer.observation_std + normalizer.observation_mean).numpy()
    S, ends = data.observation_dim, data.episode_ends
    for b, n in enumerate(draws["index"].tolist()):
        last = int(ends[np.searchsorted(ends, n, side="right")]) - 1
        np.testing.assert_allclose(observation[b, :S], data.observations[n], rtol=1e-4, atol=1e-4)
        later = [np.allclose(state, observation[b, S:], atol=1e-4) for state in data.observations[n : last + 1]]
        assert any(later), "the goal is a state that came later in the episode, or the last one"
        goal = n + later.index(True)
        for k in range(HORIZON):
            np.testing.assert_allclose(states[b, k], data.observations[min(n + 1 + k, goal)], rtol=1e-4, atol=1e-3)


def test_near_goals_are_likely_and_far_ones_known() -> None:
    """How much later a goal is reached is exponential, half a horizon on average."""
    data = make((1000,))
    plans = plans_of(data)
    draws = plans.draw(20_000, generator()) | {"index": torch.zeros(20_000, dtype=torch.long)}
    _, x = plans.gather(draws)
    moving = (x[:, 1:] != x[:, :-1]).any(2).sum(1)  # steps before the goal is held
    for k in range(1, HORIZON):
        assert (moving >= k).float().mean() == pytest.approx(np.exp(-k / (HORIZON / 2)), abs=0.02)


@pytest.mark.parametrize(("horizon", "points"), [(128, 33), (16, 5), (12, 4), (10, 11)])
def test_spline_weights_are_scipy_s(horizon: int, points: int) -> None:
    t = torch.arange(1, horizon + 1).double() / horizon
    knots = np.concatenate([np.zeros(3), np.linspace(0, 1, points - 2), np.ones(3)])
    expected = BSpline.design_matrix(t.numpy(), knots, 3).toarray()
    np.testing.assert_allclose(bspline_weights(t, points), expected, atol=1e-12)


def test_a_spline_begins_at_its_start_and_comes_nearest_to_the_data() -> None:
    spline = Spline(32, 8, 2)
    sequences = torch.randn(4000, 32, 2, generator=generator()).cumsum(1) * torch.tensor([1.0, 50.0]) + 3
    start = torch.full((4000, 1, 2), 3.0)
    spline.fit(sequences, start)
    x = spline.encode(sequences, start)
    torch.testing.assert_close(x.mean((0, 1)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std((0, 1)), torch.full((2,), 0.5), atol=1e-4, rtol=1e-4)
    made = spline.decode(x, start)
    torch.testing.assert_close(spline.encode(made, start), x, atol=1e-3, rtol=1e-3)
    error = (made - sequences).square().sum()
    for _ in range(5):
        moved = x + 0.01 * torch.randn(x.shape, generator=generator())
        assert (spline.decode(moved, start) - sequences).square().sum() > error, "least squares"
    weights = bspline_weights(torch.zeros(1, dtype=torch.double), 9)
    torch.testing.assert_close(weights, torch.eye(9, dtype=torch.double)[:1])


def test_the_value_of_a_plan_is_the_sum_over_its_states() -> None:
    torch.manual_seed(0)
    sequence = States(StatesPart(2, 1, 5))
    R = goal_reward(sequence).double()
    condition, x = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, 5, 2, dtype=torch.float64)
    by_hand = sum(R.row(condition[:, 2:], x[:, k].clamp(-1, 1)) for k in range(5))
    torch.testing.assert_close(R.value(condition, x), by_hand)
    excess = (x.abs() - 1).clamp(min=0).square().sum((1, 2))
    torch.testing.assert_close(bound_excess(x, sequence.rewarded), excess)


def test_the_gradient_of_a_plan_s_value_is_the_finite_difference() -> None:
    torch.manual_seed(0)
    R, spline = goal_reward(States(StatesPart(2, 1, 12, 4)), (8, 8)).double(), Spline(12, 4, 2).double()
    condition, start = torch.randn(3, 4, dtype=torch.float64) / 3, torch.randn(3, 1, 2, dtype=torch.float64) / 3
    x = (torch.randn(3, 4, 2, dtype=torch.float64) / 8).requires_grad_()

    def value(x: torch.Tensor) -> torch.Tensor:
        return R.value(condition, spline.decode(x, start)).sum()

    assert torch.autograd.gradcheck(value, (x,))


def straight_lines(rows: int = 4000) -> OfflineDataset:
    """A point that its action moves: s' = s + 0.1 a, in episodes of 100 steps."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
    steps = 0.1 * actions.reshape(-1, 100, 2)
    positions = np.concatenate([np.zeros_like(steps[:, :1]), steps[:, :-1].cumsum(1)], axis=1).reshape(rows, 2)
    ends = np.arange(rows) % 100 == 99
    return OfflineDataset("lines", positions, actions, np.zeros(rows, np.float32), np.zeros(rows, bool), ends)


def dynamics_objective(network: InverseDynamics, plans: PlanSamples, actions: np.ndarray) -> DynamicsObjective:
    normalizer = plans.sequence.normalizer
    return DynamicsObjective(
        network, normalizer, plans.windows.observations, plans.windows.last, torch.from_numpy(actions)
    )


def fit(objective: torch.nn.Module, steps: int, rate: float) -> None:
    optimizer = torch.optim.Adam(objective.network.parameters(), lr=rate)  # type: ignore[union-attr]
    for step in range(steps):
        optimizer.zero_grad()
        objective(objective.draw(generator(step), EVERY))["loss"].backward()  # type: ignore[operator]
        optimizer.step()


def test_the_inverse_dynamics_finds_the_action_between_two_states() -> None:
    data = straight_lines()
    plans = plans_of(data)
    torch.manual_seed(0)
    network = InverseDynamics(2, 2, (32,))
    objective = dynamics_objective(network, plans, data.actions)
    steps = np.diff(data.observations, axis=0)[~data.timeouts[:-1]]
    half = ((plans.sequence.normalizer.state_high - plans.sequence.normalizer.state_low) / 2).numpy()
    np.testing.assert_allclose(network.step_std.numpy(), steps.std(0) / half, rtol=1e-2)
    fit(objective, 400, 1e-2)
    state = torch.zeros(2, 2)
    wanted = torch.tensor([[0.5, -0.25], [0.0, 1.0]])
    after = plans.sequence.normalizer.state(plans.sequence.normalizer.raw_state(state) + 0.1 * wanted)
    found = plans.sequence.normalizer.raw_action(network(state, after))
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0)


def test_actions_against_a_wall_do_not_bend_the_inverse_dynamics_elsewhere() -> None:
    data = straight_lines()
    blocked = np.random.default_rng(1).random(len(data.actions)) < 0.1
    logged = data.actions.copy()
    logged[blocked] = 1  # it was pushed further than the next state tells
    torch.manual_seed(0)
    network = InverseDynamics(2, 2, (32,))
    objective = dynamics_objective(network, plans_of(data), logged)
    fit(objective, 400, 1e-2)
    index, normalizer = objective.rows, objective.normalizer
    state, after = (normalizer.state(objective.states[rows]) for rows in (index, index + 1))
    error = (normalizer.raw_action(network(state, after)) - torch.from_numpy(data.actions[index])).abs()
    assert error.median() < 0.01  # squared errors would draw all actions a tenth of the way to 1
    assert error.mean() < 0.02


def test_steps_across_an_episode_s_end_are_not_learnt() -> None:
    data = straight_lines()
    objective = dynamics_objective(InverseDynamics(2, 2, (4,)), plans_of(data), data.actions)
    assert not set(objective.rows.tolist()) & set(np.flatnonzero(data.timeouts).tolist())
    assert len(objective.rows) == len(data.actions) - data.timeouts.sum()


def test_without_two_transitions_in_a_row_there_is_no_inverse_dynamics() -> None:
    data = make((1, 1, 1))
    with pytest.raises(RactdError, match="no episode has two transitions"):
        dynamics_objective(InverseDynamics(data.observation_dim, 2, (4,)), plans_of(data), data.actions)


def test_the_goal_reward_is_one_at_the_goal_and_zero_away_from_it() -> None:
    data = straight_lines(8000)
    plans = plans_of(data)
    torch.manual_seed(0)
    network = goal_reward(plans.sequence, (64, 64))
    rows = torch.arange(len(data.actions))
    objective = GoalRewardObjective(network, plans.sequence.normalizer, plans.windows.observations, rows, noise=0.0)
    before = objective.error(network, rows[:2000])
    fit(objective, 1500, 3e-3)
    assert objective.error(network, rows[:2000]) < 0.05 < before
    goal = torch.zeros(3, 2)
    states = torch.tensor([[0.0, 0.0], [0.2, 0.1], [1.6, 0.0]])
    estimate = network.row(plans.sequence.normalizer.goal(goal), plans.sequence.normalizer.state(states))
    assert estimate[0] > 0.7
    assert estimate[1] > 0.7
    assert estimate[2] < 0.3


@pytest.fixture
def planner() -> Planner:
    torch.manual_seed(0)
    sequence = States(StatesPart(4, 2, 12, 5, (8,)))
    sequence.normalizer.state_low, sequence.normalizer.state_high = torch.full((4,), -3.0), torch.full((4,), 3.0)
    policy = policy_of(sequence, sampling_of("student"), spread=0.2, env_id="ractd/maze2d-umaze")
    policy.critic = goal_reward(sequence).requires_grad_(False)
    assert isinstance(policy, Planner)
    return policy


def test_a_plan_is_the_same_whoever_asks(planner: Planner) -> None:
    states = np.array([[1, 1, 0, 0], [3, 3, 1, -1], [3, 1.2, 0, 0.5]], np.float32)
    goals = np.array([[1.0, 1.0], [1.0, 2.5], [3.0, 2.0]])
    planned, actions = planner.reset(3).plan(states, goals)
    assert planned.shape == (3, 12, 4)
    assert actions.shape == (3, 12, 2)
    assert (np.abs(planned[:, 0] - states).max(1) < np.abs(planned[:, -1] - states).max(1)).all(), "they begin here"
    again, _ = planner.reset(3).plan(states, goals)
    assert (planned == again).all()
    one, action = planner.reset(3).plan(states[0], goals[0])
    assert one.shape == (12, 4)
    assert action.shape == (12, 2)
    observation = planner.sequence.with_goal(states, goals)
    assert (planner.reset(3).act_chunk(observation) == actions).all()
    same_goal, _ = planner.reset(3).plan(states, np.array([1.0, 1.0, 0.0, 0.0]))
    np.testing.assert_allclose(same_goal[0], planned[0], atol=1e-5)
    acting, context = planner.reset(3).acting(), Context(np.arange(3), np.zeros(3, np.int64))
    executed = acting.in_episodes(states[:, None], context)
    noise, asked = acting.noise.at(context.episodes, 0), torch.from_numpy(planner.observe(states[:, None]))
    np.testing.assert_array_equal(executed, planner.sample(asked, noise).numpy())
    assert planner.maze is not None
    assert planner.observe(states[:, None])[0, 0].tolist() == pytest.approx([*states[0], *planner.maze.goal, 0, 0])


def test_an_export_may_be_off_by_what_the_inverse_dynamics_makes_of_rounding_and_no_more(planner: Planner) -> None:
    """One step moves a state by little, so an action magnifies what single precision rounds: PyTorch's is off, too."""
    observations, noise = verify.random_observations(planner, 64, generator()), planner.reset(0).draw_noise(64)
    assert 0 < verify.rounding(planner, observations, noise) < verify.EXACT
    planner.sequence.dynamics.step_std.fill_(2e-4)
    assert verify.rounding(planner, observations, noise) > verify.EXACT

    def off_by(error: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        def sample(observations: np.ndarray, noise: np.ndarray) -> np.ndarray:
            draws = draws_first(torch.from_numpy(noise))
            with torch.inference_mode():
                return planner.sample(torch.from_numpy(observations), draws).numpy() + error

        return sample

    accepted = verify.compare(planner, off_by(1.1 * verify.EXACT), None, "fp32")
    assert verify.EXACT < accepted.largest <= accepted.limit < 1e-3
    with pytest.raises(RactdError, match=r"differs from PyTorch by up to \S+ on random"):
        verify.compare(planner, off_by(10 * accepted.limit), None, "fp32")


def test_a_saved_planner_plans_the_same(planner: Planner, tmp_path: Path) -> None:
    loaded = Policy.load(planner.save(tmp_path / "planner"))
    assert isinstance(loaded, Planner)
    assert describe_policy(loaded) == describe_policy(planner)
    state, goal = np.array([1.0, 2.0, 0.0, 0.0]), np.array([3.0, 1.0])
    for mine, theirs in zip(planner.fold().reset(1).plan(state, goal), loaded.reset(1).plan(state, goal), strict=True):
        assert (mine == theirs).all()


def test_the_best_of_many_plans_is_the_goal_reward_s_favourite(planner: Planner) -> None:
    observation = planner.sequence.with_goal(np.zeros((1, 4)), np.array([1.0, 1.0]))
    many = planner.configured(candidates=16)
    noise = many.reset(0).draw_noise(1)
    each = planner.outputs(torch.from_numpy(observation)[:, None].repeat(16, 1, 1), noise)["states"]
    best = many.outputs(torch.from_numpy(observation)[:, None], noise)["states"]
    returns = planner.estimate_return(np.repeat(observation, 16, 0), each.numpy())
    assert (best[0] == each[int(returns.argmax())]).all()


@pytest.mark.parametrize(
    ("state", "goal", "message"),
    [
        (np.zeros(3), np.zeros(2), r"state has shape \[3\], expected \[4\]"),
        (np.zeros(4), np.zeros(5), r"goal has shape \[5\], expected \[G\]"),
        (np.zeros((3, 4)), np.zeros((2, 2)), r"\[2, 2\] goals were given for \[3, 4\] states"),
        (np.array([0, np.nan, 0, 0]), np.zeros(2), "NaN"),
        (np.array([2, 1, 0, 0]), np.array([1, 1]), r"state \(2, 1\) is inside a wall of maze 'maze2d-umaze'"),
        (np.array([1, 1, 0, 0]), np.array([[1, 1], [2, 2]]), "goals were given"),
        (np.array([[1, 1, 0, 0]] * 2), np.array([[1, 1], [2, 2]]), r"goal \(2, 2\), number 1, is inside a wall"),
    ],
)
def test_wrong_states_and_goals_are_named(planner: Planner, state: object, goal: object, message: str) -> None:
    with pytest.raises(RactdError, match=message):
        planner.plan(state, goal)  # type: ignore[arg-type]


def test_a_loaded_planner_is_folded_and_folds_new_weights_when_told_to(planner: Planner, tmp_path: Path) -> None:
    loaded = Policy.load(planner.save(tmp_path / "planner"))
    assert isinstance(loaded, Planner)
    observation = loaded.sequence.with_goal(np.array([[1.0, 1, 0, 0]]), np.array([2.0, 2.0]))
    asked, noise = torch.from_numpy(observation)[:, None], loaded.draw_noise(1)
    expected = planner.sample(asked, noise)
    torch.testing.assert_close(loaded.sample(asked, noise), expected, rtol=0, atol=5e-5)
    for weights in (planner.network, loaded.network):
        for weight in weights.parameters():
            weight.data.mul_(1.2)
    changed = planner.sample(asked, noise)
    assert (changed - expected).abs().max() > 1e-3
    torch.testing.assert_close(loaded.fold().sample(asked, noise), changed, rtol=0, atol=5e-5)
