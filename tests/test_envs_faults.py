"""Environments that fail, diverge or speak in arrays: one sentence that names environment, step and episode."""

# mypy: disallow-subclassing-any=False

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from ractd.envs import GymnasiumVector, evaluate, make_vector
from ractd.envs.evaluate import probe
from ractd.errors import RactdError


class Cart(gymnasium.Env):
    """An episode of five steps, each paid 1; `fault(what, step)` changes what a reset (step 0) or a step gives."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))

    def __init__(self, fault: Any = None) -> None:
        self.fault = fault or (lambda what, step, value: value)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeded, self.count = seed, 0
        return self.fault("observation", 0, np.zeros(2, np.float32)), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.count += 1
        observation = self.fault("observation", self.count, np.full(2, self.count, np.float32))
        return observation, self.fault("reward", self.count, 1.0), self.count >= 5, False, {}


def still(observations: Any) -> Any:
    return np.zeros((len(observations), 1, 1))


@pytest.fixture
def register() -> Iterator[Any]:
    """Register a cart with a fault and return its id."""
    ids: list[str] = []

    def add(fault: Any) -> str:
        ids.append(f"ractd/Cart{len(ids)}-v0")
        gymnasium.register(ids[-1], Cart, kwargs={"fault": fault}, disable_env_checker=True)
        return ids[-1]

    yield add
    for env_id in ids:
        del gymnasium.registry[env_id]


def at(what: str, step: int, broken: Any) -> Any:
    """A fault of one kind at one step."""

    def fault(kind: str, count: int, value: Any) -> Any:
        if (kind, count) != (what, step):
            return value
        if isinstance(broken, Exception):
            raise broken
        return broken

    return fault


@pytest.mark.parametrize(
    ("what", "step", "broken", "said"),
    [
        ("observation", 3, ZeroDivisionError("no wheel"), "failed in step 3 .*seed 7: ZeroDivisionError: no wheel"),
        ("observation", 0, OSError("no joystick\nat all"), r"failed in reset\(seed=7\): OSError: no joystick$"),
        ("observation", 2, KeyError(), "failed in step 2 .*seed 7: KeyError: no message"),
        ("observation", 4, np.zeros(3), "failed in step 4 .*the observation has 3 numbers, its space 2"),
        ("observation", 4, np.zeros(1), "failed in step 4 .*the observation has 1 numbers, its space 2"),
        ("observation", 0, np.zeros(1), "failed in reset.*the observation has 1 numbers, its space 2"),
        ("reward", 2, np.zeros(2), r"failed in step 2 .*the reward has shape \[2\], expected one number"),
        ("reward", 2, None, "a reward that is NaN or infinite in step 2 of episode 0"),
        ("reward", 5, np.nan, r"a reward that is NaN or infinite in step 5 of episode 0 \(seed 7\)"),
        ("reward", 1, -np.inf, "a reward that is NaN or infinite in step 1"),
        ("observation", 0, [np.nan, 0], r"an observation that is NaN or infinite in the reset of episode 0 \(seed 7\)"),
        ("observation", 4, [0, np.inf], "an observation that is NaN or infinite in step 4 of episode 0"),
    ],
)
@pytest.mark.parametrize("number", [1, 3])
def test_a_fault_is_one_sentence_with_environment_step_and_episode(
    register: Any, what: str, step: int, broken: Any, said: str, number: int
) -> None:
    env_id = register(at(what, step, broken))
    with pytest.raises(RactdError, match=f"^{env_id} .*{said}") as raised:
        evaluate(still, env_id, episodes=number, seed=7)
    assert "\n" not in str(raised.value)


def test_the_episode_at_fault_is_the_one_that_is_named(register: Any) -> None:
    def second_wave(kind: str, count: int, value: Any) -> Any:
        seen.append(kind)
        # Resets come first: 2 of the first wave, 2 of the second; the fourth episode's third step is at fault.
        return np.nan if kind == "reward" and seen.count("reward") == 10 + 2 * 2 + 2 else value

    seen: list[str] = []
    env_id = register(second_wave)
    with pytest.raises(RactdError, match=r"in step 3 of episode 3 \(seed 13\)"):
        evaluate(still, env_id, episodes=4, num_envs=2, seed=10)


def test_nan_in_an_observation_that_ends_an_episode_harms_nobody(register: Any) -> None:
    result = evaluate(still, register(at("observation", 5, np.full(2, np.nan))), episodes=2, seed=7)
    assert result.returns.tolist() == [5, 5]


@pytest.mark.parametrize("form", [np.array([0.5]), np.array(0.5), np.float32(0.5), np.array([[0.5]]), [0.5], 0.5])
def test_rewards_come_as_numbers_or_as_arrays_of_one(register: Any, form: Any) -> None:
    result = evaluate(still, register(at("reward", 2, form)), episodes=2)
    assert result.returns.tolist() == [4.5, 4.5]


class Broken:
    """EnvPool with a fault of its own."""

    def reset(self, ids: Any) -> Any:
        raise MemoryError("no room")

    def step(self, actions: Any, ids: Any) -> Any:
        raise RuntimeError("a thread died")


def test_envpools_faults_are_sentences_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("envpool")
    env = make_vector("Pendulum-v1", 2, 0)
    monkeypatch.setattr(env, "_env", Broken())
    with pytest.raises(RactdError, match=r"^Pendulum-v1 failed in a reset: MemoryError: no room$"):
        env.reset()
    with pytest.raises(RactdError, match=r"^Pendulum-v1 failed in a step: RuntimeError: a thread died$"):
        env.step(np.zeros((2, 1)))


def test_a_policys_nan_is_still_the_policys(register: Any) -> None:
    with pytest.raises(RactdError, match="the policy gave NaN or infinite actions at step 0"):
        evaluate(lambda seen: np.full((len(seen), 1, 1), np.nan), register(None), episodes=1)


def test_a_probe_finds_what_is_broken_from_the_start(register: Any) -> None:
    probe(GymnasiumVector(register(None), 2, 0), "fine")
    for what, step, broken in [("observation", 0, [0, np.nan]), ("observation", 1, 5.0), ("reward", 3, [1, 2])]:
        env_id = register(at(what, step, broken))
        env = GymnasiumVector(env_id, 1, 0)
        with pytest.raises(RactdError, match=f"^{env_id} "):
            probe(env, env_id)


class Narrow(Cart):
    """Refuses actions outside of bounds in which 0 is not."""

    action_space = gymnasium.spaces.Box(2.0, 3.0, (1,))

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(np.asarray(action, np.float32))
        return super().step(action)


def test_a_probe_acts_within_the_bounds() -> None:
    gymnasium.register("ractd/Narrow-v0", Narrow, disable_env_checker=True)
    try:
        probe(GymnasiumVector("ractd/Narrow-v0", 1, 0), "ractd/Narrow-v0")
    finally:
        del gymnasium.registry["ractd/Narrow-v0"]
