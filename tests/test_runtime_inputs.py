"""Graphs that take no noise, and graphs that need to know the past: written, opened, asked, refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_factory import ACTIONS, HORIZON, OBSERVATIONS, K, compared, write_graph

from ractd.export.formats import Format
from ractd_runtime import Contract, Past, Policy, RactdError

FORMATS: tuple[Format, ...] = ("onnx", "openvino")


@pytest.fixture(scope="module")
def noiseless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph("without noise", tmp_path_factory.mktemp("graphs") / "noiseless")


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graph("with past", tmp_path_factory.mktemp("graphs") / "knowing")


def expected(seen: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """The closed form, of all steps of an episode."""
    last, t = actions[-K:], len(actions)
    weighted = (np.arange(K - len(last) + 1, K + 1)[:, None] * last).sum(0)
    told = 10 * rewards[-K:].sum() + 100 * t + 1000 * rewards.sum()
    actions_of: np.ndarray = seen[:ACTIONS] + np.arange(HORIZON)[:, None] + weighted + told
    return actions_of.astype(np.float32)


def test_a_graph_without_noise_acts_and_the_seed_changes_nothing(noiseless: Path) -> None:
    policy = Policy.load(noiseless)
    seen = np.array([1, 2, 3], np.float32)
    actions = policy.reset(1).act_chunk(seen)
    np.testing.assert_array_equal(actions, [[1, 2], [2, 3], [3, 4], [4, 5]])
    np.testing.assert_array_equal(policy.reset(2).act_chunk(seen), actions)
    np.testing.assert_array_equal(policy.act_chunk(np.stack([seen, -seen]))[1], -seen[:2] + np.arange(4)[:, None])
    assert [policy.act(seen * t)[0] for t in range(4)] == [0, 1, 2, 3]
    assert policy.contract.noise_shape == (0, 1, HORIZON, ACTIONS)
    assert policy.draw_noise(3).shape == (3, 0, 1, HORIZON, ACTIONS)
    np.testing.assert_array_equal(policy.sample(seen[None, None], policy.draw_noise(1))[0], actions)


@pytest.mark.parametrize("format", ["onnx", "openvino", "pt2"])
def test_a_graph_without_noise_is_verified_in_every_format(tmp_path: Path, format: Format) -> None:
    write_graph("without noise", tmp_path / "out", format, compared)
    assert json.loads((tmp_path / "out" / "policy.json").read_text())["graph"]["verification"] == {"compared": True}


SIGNALLED = """
import signal, sys
from ractd_runtime import Policy
signal.signal(signal.SIGINT, lambda *_: print("heard"))
first, second = Policy.load(sys.argv[1]), Policy.load(sys.argv[1])
del first
del second
signal.raise_signal(signal.SIGINT)
"""


def test_openvino_policies_that_are_gone_leave_signals_as_they_were(tmp_path: Path) -> None:
    path = write_graph("without noise", tmp_path / "out", "openvino")
    done = subprocess.run([sys.executable, "-c", SIGNALLED, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


SUBNORMAL = """
import sys
import numpy as np
from ractd_runtime import Policy
Policy.load(sys.argv[1]).act(np.zeros(3))
print((np.array([5e-324]) * 1.0)[0] > 0)
"""


@pytest.mark.parametrize("format", FORMATS)
def test_a_policy_leaves_the_arithmetic_of_its_process_as_it_was(tmp_path: Path, format: Format) -> None:
    path = write_graph("without noise", tmp_path / "out", format)
    done = subprocess.run([sys.executable, "-c", SUBNORMAL, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.parametrize("format", FORMATS)
def test_a_policy_is_told_the_last_steps_and_sums_over_all(tmp_path: Path, format: Format) -> None:
    policy = Policy.load(write_graph("with past", tmp_path / "out", format))
    assert policy.contract.past_steps == K
    rng = np.random.default_rng(0)
    seen = rng.normal(size=OBSERVATIONS)
    for t in (0, 1, K - 1, K, K + 1, 40):
        actions, rewards = rng.integers(-3, 4, (t, ACTIONS)) / 4, rng.integers(-3, 4, t) / 4
        got = policy.act_chunk(seen, past_actions=actions, past_rewards=rewards)
        np.testing.assert_allclose(got, expected(seen, actions, rewards), rtol=1e-6)
    actions, rewards = rng.integers(-3, 4, (3, 7, ACTIONS)) / 4, rng.integers(-3, 4, (3, 7)) / 4
    batch = policy.act_chunk(np.stack([seen] * 3), past_actions=actions, past_rewards=rewards)
    for row in range(3):
        np.testing.assert_allclose(batch[row], expected(seen, actions[row], rewards[row]), rtol=1e-6)
    parts = [Past.of(actions[row, row:], rewards[row, row:], K, ACTIONS, None) for row in range(3)]
    observations = np.tile(seen.astype(np.float32), (3, 1, 1))
    joined = policy.sample(observations, policy.draw_noise(3), Past.join(parts))
    for row in range(3):
        np.testing.assert_allclose(joined[row], expected(seen, actions[row, row:], rewards[row, row:]), rtol=1e-6)


def test_the_past_is_as_of_the_observation_that_a_sequence_is_planned_at(knowing: Path) -> None:
    policy, seen = Policy.load(knowing, execute=2), np.zeros(OBSERVATIONS)
    done: list[np.ndarray] = []
    for t in range(6):
        now = {"past_actions": np.reshape(done, (t, ACTIONS)), "past_rewards": np.ones(t)}
        planned = np.reshape(done[: t - t % 2], (t - t % 2, ACTIONS))
        action = policy.act(seen, **now)
        np.testing.assert_allclose(action, expected(seen, planned, np.ones(len(planned)))[t % 2], rtol=1e-6)
        done.append(action / 1e6)


@pytest.mark.parametrize(
    ("past", "said"),
    [
        ({}, "the policy needs past_actions, the actions that were executed in the episode so far, of shape"),
        ({"past_actions": np.zeros((2, ACTIONS))}, "the policy needs past_rewards, the rewards of the episode so far"),
        ({"past_actions": [[0, 0]], "past_rewards": np.zeros(1)}, "past_actions is list, expected a numeric array"),
        ({"past_actions": np.zeros((2, 3)), "past_rewards": np.zeros(2)}, r"past_actions has shape \[2, 3\], expected"),
        (
            {"past_actions": np.zeros((2, 2)), "past_rewards": np.zeros(3)},
            r"past_rewards has shape \[3\], expected \[2\]",
        ),
        ({"past_actions": np.full((1, 2), np.nan), "past_rewards": np.zeros(1)}, "past_actions holds NaN"),
        ({"past_actions": np.zeros((1, 2)), "past_rewards": np.full(1, 1e39)}, "past_rewards holds NaN or infinite"),
        ({"past_actions": np.array([["a", "b"]]), "past_rewards": np.zeros(1)}, "past_actions is an array of <U1"),
    ],
)
def test_a_missing_or_wrong_past_is_one_sentence(knowing: Path, past: dict[str, Any], said: str) -> None:
    policy = Policy.load(knowing)
    for act in (policy.act, policy.act_chunk):
        with pytest.raises(RactdError, match=said):
            act(np.zeros(OBSERVATIONS), **past)
    with pytest.raises(RactdError, match="needs to know the past of its episodes, and it was not given"):
        policy.sample(np.zeros((1, 1, OBSERVATIONS), np.float32), policy.draw_noise(1))


def test_a_policy_that_needs_no_past_ignores_it(noiseless: Path) -> None:
    seen = np.zeros(OBSERVATIONS)
    actions = Policy.load(noiseless).act_chunk(seen, past_actions="anything", past_rewards=np.zeros(9))
    np.testing.assert_array_equal(actions[:, 0], np.arange(HORIZON))


def edited(directory: Path, to: Path, **inputs: Any) -> Path:
    content = json.loads((directory / "policy.json").read_text())
    content["inputs"] |= inputs
    to.mkdir()
    for path in directory.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    (to / "policy.json").write_text(json.dumps(content))
    return to


def test_an_input_that_the_runtime_does_not_know_asks_for_a_newer_one(noiseless: Path, tmp_path: Path) -> None:
    changed = edited(noiseless, tmp_path / "a", mood={"shape": ["batch", 2], "dtype": "float32"})
    with pytest.raises(RactdError, match="needs the input 'mood', which this runtime doesn't know; install a newer"):
        Contract.read(changed)


def test_pasts_of_different_lengths_are_refused(knowing: Path, tmp_path: Path) -> None:
    changed = edited(knowing, tmp_path / "a", past_rewards={"shape": ["batch", K + 1], "dtype": "float32"})
    with pytest.raises(RactdError, match="of one length"):
        Contract.read(changed)


def test_a_number_of_steps_alone_is_no_past(noiseless: Path, tmp_path: Path) -> None:
    changed = edited(noiseless, tmp_path / "a", steps={"shape": ["batch"], "dtype": "float32"})
    with pytest.raises(RactdError, match="inputs of the past are past_actions or past_rewards"):
        Contract.read(changed)
