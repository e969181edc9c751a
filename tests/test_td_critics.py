"""SARSA's and IQL's values as critics of a student: a chain whose values are known, a junction, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import Answer
from parts_factory import actions_of
from rich.console import Console
from test_methods import MIDDLE, START, act, junction  # noqa: F401

from ractd.critics.settings import ReturnModel
from ractd.critics.td import ImplicitPart, ImplicitQ, Sarsa
from ractd.data import OfflineDataset
from ractd.methods import method_named
from ractd.methods.presets import settings_of
from ractd.runs.train import fitted, prepare, train
from ractd.settings import Optimization
from ractd.training.critic import train_critic
from ractd.training.log import Log
from ractd.training.metrics import Metrics

GAMMA, STATES = 0.8, 3
REWARDS = np.array([[0.2, 0.0], [0.0, -0.5], [0.1, 1.0]])
"""Of each state, staying and going on; after the last one goes on the episode ends."""


@pytest.fixture(scope="module")
def chain() -> OfflineDataset:
    """A thousand episodes of actions that are drawn by tossing a coin: 1 goes on, -1 stays; some are cut."""
    rng = np.random.default_rng(0)
    observations, actions, rewards, terminals, timeouts = [], [], [], [], []
    for _ in range(1000):
        state = 0
        for step in range(12):
            going = int(rng.integers(2))
            observations.append([state])
            actions.append([2 * going - 1])
            rewards.append(REWARDS[state, going])
            state += going
            terminals.append(state == STATES)
            timeouts.append(step == 11 and state < STATES)
            if state == STATES:
                break
    return OfflineDataset(
        name="chain",
        observations=np.array(observations, np.float32),
        actions=np.array(actions, np.float32),
        rewards=np.array(rewards, np.float32),
        terminals=np.array(terminals),
        timeouts=np.array(timeouts),
    )


def exact(expectile: float) -> np.ndarray:
    """Q of the chain: of two actions alike likely, the expectile of their values is `tau max + (1 - tau) min`."""
    q = np.zeros((STATES, 2))
    for _ in range(200):
        v = np.append(expectile * q.max(1) + (1 - expectile) * q.min(1), 0.0)
        q = REWARDS + GAMMA * np.stack([v[:-1], v[1:]], 1)
    return q


@pytest.mark.parametrize(("kind", "expectile", "n_step"), [("sarsa", 0.5, 1), ("sarsa", 0.5, 3), ("iql", 0.9, 1)])
def test_values_of_a_chain(chain: OfflineDataset, tmp_path: Path, kind: str, expectile: float, n_step: int) -> None:
    method = method_named("ractd")
    optimization = Optimization(1500, batch_size=256, learning_rate=3e-3, warmup_steps=50, ema=0.98)
    returns = ReturnModel(
        kind,
        (32, 32),
        2,
        GAMMA,
        0.0,
        n_step=n_step,
        expectile=expectile if kind == "iql" else 0.7,
        optimization=optimization,
    )
    config = fitted(method, settings_of(preset="cpu", return_model=returns, horizon=1), chain)
    run = prepare(method, config, chain, tmp_path, Accelerator(cpu=True), Metrics(None), Log(Console(quiet=True), None))
    critic = train_critic(run)
    assert isinstance(critic, Sarsa)
    states, actions = np.repeat(np.arange(STATES), 2)[:, None], np.tile([-1.0, 1.0], STATES)[:, None]
    condition = actions_of(chain, 1).condition(torch.tensor(states, dtype=torch.float32)[:, None])
    with torch.no_grad():
        values = critic.data_units(critic.value(condition, torch.tensor(actions, dtype=torch.float32)[:, None]))
    assert values.numpy().reshape(STATES, 2) == pytest.approx(exact(expectile), abs=0.06)
    assert critic.largest(returns, chain) * critic.std + critic.mean == pytest.approx(
        (1 - GAMMA**12) / (1 - GAMMA), rel=1e-5
    ), "a reward of 1, the largest, in each of twelve steps"


def test_iql_learns_from_single_steps_whose_end_was_observed(chain: OfflineDataset, tmp_path: Path) -> None:
    """V needs no action where an episode was cut, so that each step may be an episode of its own."""
    going = (chain.actions[:, 0] > 0).astype(np.float32)[:, None]
    steps = replace(
        chain, timeouts=~chain.terminals, final_observations=chain.observations + going, rewards=chain.rewards.copy()
    )
    method = method_named("ractd")
    optimization = Optimization(1500, batch_size=256, learning_rate=3e-3, warmup_steps=50, ema=0.98)
    returns = ReturnModel("iql", (32, 32), 2, GAMMA, 0.0, n_step=1, expectile=0.9, optimization=optimization)
    config = fitted(method, settings_of(preset="cpu", return_model=returns, horizon=1), steps)
    run = prepare(method, config, steps, tmp_path, Accelerator(cpu=True), Metrics(None), Log(Console(quiet=True), None))
    critic = train_critic(run)
    states, actions = np.repeat(np.arange(STATES), 2)[:, None], np.tile([-1.0, 1.0], STATES)[:, None]
    condition = run.sequence.condition(torch.tensor(states, dtype=torch.float32)[:, None])
    with torch.no_grad():
        values = critic.data_units(critic.value(condition, torch.tensor(actions, dtype=torch.float32)[:, None]))
    assert values.numpy().reshape(STATES, 2) == pytest.approx(exact(0.9), abs=0.06)


def test_iql_joins_what_no_episode_does(junction: OfflineDataset, tmp_path: Path) -> None:  # noqa: F811
    """At the start the logged return of going the good way is that of the bad halves which follow there; IQL's value isn't."""
    optimization = Optimization(600, batch_size=64, learning_rate=3e-3, warmup_steps=50, ema=0.98)
    values = {}
    for kind in ("return-to-go", "iql"):
        returns = ReturnModel(
            kind, (32, 32), 2, 0.9, expectile=0.9 if kind == "iql" else 0.7, optimization=optimization
        )
        short: dict[str, Any] = {f"{stage}.optimization.steps": 20 for stage in ("teacher", "student")}
        config = settings_of(preset="cpu", return_model=returns, horizon=1, **short)
        policy = train(junction, config=config, out=tmp_path / kind, quiet=True, plain=False).policy()
        at_start = np.array([[START]] * 2, np.float32)
        values[kind] = policy.estimate_return(at_start, np.array([[0.7], [-0.7]], np.float32))
    assert values["iql"] == pytest.approx([0.9, 0.3], abs=0.2)
    assert values["return-to-go"][0] < 0.5


def test_weights_go_by_advantage(chain: OfflineDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Q is the scaled action and V the standardised state: what each transition counts is then known."""
    sequence = actions_of(chain, 1)
    critic = ImplicitQ(ImplicitPart((8,), 2, 0.0, 1.0, GAMMA), 1, 1)
    monkeypatch.setattr(critic, "row", lambda condition, action: action[:, 0])
    monkeypatch.setattr(critic.state_value, "forward", lambda condition: condition.T)
    states = chain.observations[:, 0]
    advantage = chain.actions[:, 0] - (states - states.mean()) / states.std()
    wanted = np.minimum(np.exp(2 * advantage / advantage.std()), 100)
    weights = critic.advantage_weights(sequence, chain, 2.0).numpy()
    np.testing.assert_allclose(weights, wanted / wanted.mean(), rtol=2e-3)
    monkeypatch.setattr(critic, "row", lambda condition, action: condition[:, 0])
    assert torch.equal(critic.advantage_weights(sequence, chain, 2.0), torch.ones(len(states))), "nothing is better"


def test_a_student_of_weighted_data_does_what_is_better(junction: OfflineDataset, tmp_path: Path) -> None:  # noqa: F811
    """Without a reward: the data's mean in the middle is about 0, and by advantages it is the action that earns 1."""
    optimization = Optimization(600, batch_size=64, learning_rate=3e-3, warmup_steps=50, ema=0.98)
    short: dict[str, Any] = {
        "horizon": 1,
        "return_model": ReturnModel("iql", (32, 32), 2, 0.9, expectile=0.9, optimization=optimization),
        "student.optimization": replace(optimization, steps=300),
        "student.distilled": False,
        "student.ctm_weight": 0.0,
        "student.loss": "square",
        "student.reward_weight": 0.0,
        "student.pessimism": 0.0,
    }
    acted = {}
    for temperature in (0.0, 4.0):
        short["student.advantage_temperature"] = temperature
        config = settings_of(preset="cpu", **short)
        out = tmp_path / str(temperature)
        acted[temperature] = act(train(junction, config=config, out=out, quiet=True).policy(), MIDDLE)[0]
    assert acted[0.0] == pytest.approx(0.0, abs=0.25)
    assert acted[4.0] == pytest.approx(0.7, abs=0.2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--return-model.kind", "sarsa", "--return-model.expectile", "0.9"), "return-model.expectile"),
        (("--return-model.n-step", "3"), "return-model.n-step"),
        (("--return-model.kind", "iql", "--return-model.action-noise", "0.1"), "return-model.action-noise"),
        (("--return-model.kind", "iql", "--return-model.expectile", "1"), "expected"),
        (("--student.advantage-temperature", "3"), "0 without --return-model.kind iql: no other critic values states"),
    ],
)
def test_what_a_kind_does_not_read_is_refused(
    chain: OfflineDataset, tmp_path: Path, cli: Callable[..., Answer], words: tuple[str, ...], said: str
) -> None:
    answer = cli("train", "hopper-mixed", "--preset", "demo", "--out", tmp_path / "run", *words)
    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "run").exists()
