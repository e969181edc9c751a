"""What makes an environment besides its id: values from files, made by this machine's Gymnasium alone; nothing of a file runs."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from conftest import Answer
from dataset_factory import make
from export_factory import make_policy

from ractd.data import load_dataset, write_hdf5
from ractd.data.dataset import describe
from ractd.data.environment import REGISTERED, EnvironmentSettings, WrapperSettings, settings_for
from ractd.data.formats.minari import environment_of
from ractd.envs import evaluate, make_vector
from ractd.envs.environments import Environment, environments_of
from ractd.envs.maze import MAZES, maze_vector
from ractd.errors import RactdError
from ractd.export.contract import control_hz
from ractd.policies import Policy

pytest.importorskip("envpool")

CANARY = """
from pathlib import Path
Path("ran").touch()
def call(*arguments, **options):
    Path("ran").touch()
class Env:
    def __init__(self, *arguments, **options):
        Path("ran").touch()
"""


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module named `canary` that could be imported; the test fails where anything imported it."""
    (tmp_path / "canary.py").write_text(CANARY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    assert not (tmp_path / "ran").exists()
    assert "canary" not in sys.modules


def still(observations: Any) -> Any:
    return np.zeros((len(observations), 1, 1))


def test_arguments_limits_and_wrappers_make_the_environment_that_they_name() -> None:
    settings = EnvironmentSettings(
        {"g": 1.0}, 30, (WrapperSettings("RescaleAction", {"min_action": -0.5, "max_action": 0.5}),)
    )
    ours = make_vector("Pendulum-v1", 2, 5, settings)
    assert (ours.backend, ours.max_episode_steps) == ("gymnasium", 30)
    np.testing.assert_array_equal([ours.action_low, ours.action_high], [[-0.5], [0.5]])
    theirs = gymnasium.wrappers.RescaleAction(gymnasium.make("Pendulum-v1", g=1.0, max_episode_steps=30), -0.5, 0.5)
    observation, _ = theirs.reset(seed=6)
    np.testing.assert_allclose(ours.reset()[1], observation, rtol=1e-6)
    for k in range(30):
        action = np.array([np.sin(k) / 2], np.float32)
        observation, reward, *ended, _ = theirs.step(action)
        seen, rewards, *over = ours.step(np.stack([action, action]))
        np.testing.assert_allclose(seen[1], observation, rtol=1e-6)
        assert rewards[1] == pytest.approx(reward)
        assert [bool(flags[1]) for flags in over] == [bool(flag) for flag in ended]
    assert ended[1], "it ends at its limit"


def test_envpool_is_used_only_where_it_has_the_same_environment() -> None:
    def played(settings: EnvironmentSettings) -> tuple[str, list[int]]:
        data = replace(make(env_id="Pendulum-v1"), env_settings=settings)
        result = evaluate(still, "Pendulum-v1", episodes=2, make=environments_of(data, data.source))
        return result.backend, result.lengths.tolist()

    assert played(REGISTERED) == ("envpool", [200, 200])
    assert played(EnvironmentSettings(max_episode_steps=7)) == ("envpool", [7, 7])
    assert played(EnvironmentSettings({"g": 3.0}, 7)) == ("gymnasium", [7, 7])
    wrapped = EnvironmentSettings(wrappers=(WrapperSettings("RepeatAction", {"num_repeats": 4}),))
    assert played(wrapped) == ("gymnasium", [50, 50])


def test_an_environment_of_ones_own_is_not_envpools_of_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    from gymnasium.envs.classic_control.pendulum import PendulumEnv

    assert make_vector("Pendulum-v1", 1, 0).backend == "envpool"
    theirs = gymnasium.registry["Pendulum-v1"]
    monkeypatch.setitem(gymnasium.registry, "Pendulum-v1", replace_entry(theirs, PendulumEnv))
    assert make_vector("Pendulum-v1", 1, 0).backend == "gymnasium"


def replace_entry(spec: Any, entry_point: Any) -> Any:
    changed = copy.copy(spec)
    changed.entry_point = entry_point
    return changed


def test_mazes_have_their_own_limit() -> None:
    maze = MAZES["maze2d-umaze"]
    same = EnvironmentSettings(max_episode_steps=maze.max_episode_steps)
    maze_vector(maze, same)(maze.env_id, 1, 0).close()
    for settings in (EnvironmentSettings(max_episode_steps=5), EnvironmentSettings({"g": 1.0})):
        with pytest.raises(RactdError, match="ractd/maze2d-umaze has its own step limit, 300"):
            make_vector(maze.env_id, 1, 0, settings)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"arguments": {"xml_file": "/tmp/evil.xml"}},
            "'xml_file' with '/tmp/evil.xml', which could name a file or code",
        ),
        ({"arguments": {"xml_file": "~root.xml"}}, "could name a file or code"),
        ({"arguments": {"xml_file": "..\\evil.xml"}}, "could name a file or code"),
        ({"arguments": {"env_id": "canary:Id-v0"}}, "'canary:Id-v0', which could name a file or code"),
        ({"arguments": {"a": [{"b": ["canary:call"]}]}}, "'canary:call'"),
        ({"arguments": {"a": {"canary:call": 1}}}, "'canary:call'"),
        ({"arguments": {"a": float("nan")}}, "expected finite numbers"),
        ({"arguments": {"a": print}}, "of type builtin_function_or_method, expected plain values"),
        ({"arguments": {"a": np.zeros(2)}}, "of type ndarray, expected plain values"),
        ({"arguments": {"render_mode": "human"}}, "pictures are the report's to ask for"),
        ({"arguments": {"id": "Hopper-v5"}}, "'id' can't be set here"),
        ({"arguments": {"disable_env_checker": True}}, "can't be set here"),
        ({"arguments": {"max_episode_steps": 5}}, "the step limit is a field of its own"),
        ({"max_episode_steps": 0}, "step limit of the environment is 0"),
        ({"max_episode_steps": -1}, "step limit of the environment is -1"),
        ({"max_episode_steps": True}, "step limit of the environment is True"),
    ],
)
def test_values_that_are_not_plain_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RactdError) as raised:
        EnvironmentSettings(**values)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "name",
    [
        "subprocess:call",
        "canary:Env",
        "canary",
        "RecordVideo",
        "TransformObservation",
        "vector",
        "__class__",
        "NormalizeReward",
    ],
)
def test_wrappers_are_gymnasiums_that_values_make_again(name: str) -> None:
    with pytest.raises(RactdError, match="can't be made from a file, expected one of ClipAction, "):
        WrapperSettings(name)


def test_the_wrappers_that_are_offered_exist() -> None:
    from ractd.data.environment import WRAPPERS

    for name in WRAPPERS:
        assert issubclass(getattr(gymnasium.wrappers, name), gymnasium.Wrapper)


def test_an_environment_asked_for_by_another_id_is_as_it_is_registered() -> None:
    own = EnvironmentSettings({"g": 1.0}, 9)
    assert settings_for("A-v0", own, None, None) == settings_for("A-v0", own, "A-v0", None) == own
    assert settings_for("A-v0", own, "B-v0", None) == REGISTERED
    assert settings_for("A-v0", own, None, 5) == replace(own, max_episode_steps=5)
    assert settings_for("A-v0", EnvironmentSettings(fault="lost"), "A-v0", None) == REGISTERED


# Files of strangers.

HOSTILE: list[dict[str, Any]] = [
    {"env_id": "canary:Id-v0"},
    {"env_id": "subprocess:call"},
    {"env_id": "os:system"},
    {"env_id": "canary:Env:Id-v0"},
    {"env_id": "canary"},
    {"env_settings": {"wrappers": [{"name": "canary:Env"}]}},
    {"env_settings": {"wrappers": [{"name": "subprocess:call", "arguments": {"args": "touch ran"}}]}},
    {"env_settings": {"wrappers": [{"name": "RecordVideo", "arguments": {"video_folder": "ran"}}]}},
    {"env_settings": {"wrappers": [{"name": "TransformReward", "arguments": {"func": "canary:call"}}]}},
    {"env_settings": {"wrappers": [{"name": "ClipAction", "entry_point": "canary:Env"}]}},
    {"env_settings": {"arguments": {"entry_point": "canary:Env"}}},
    {"env_settings": {"arguments": {"xml_file": "../evil.xml"}}},
    {"env_settings": {"entry_point": "canary:Env"}},
    {"entry_point": "canary:Env"},
]


@pytest.mark.parametrize("changes", HOSTILE, ids=lambda changes: json.dumps(changes))
def test_a_policy_of_a_stranger_runs_nothing(
    changes: dict[str, Any], canary: None, tmp_path: Path, cli: Callable[..., Answer]
) -> None:
    directory = make_policy(env_id="Pendulum-v1").save(tmp_path / "run" / "policy" / "student")
    path = directory / "config.json"
    content = json.loads(path.read_text())
    content["environment"] |= changes
    path.write_text(json.dumps(content))
    answer = cli("eval", tmp_path / "run", "--episodes", "1")
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1, answer.err
    try:
        policy = Policy.load(directory)
    except RactdError:
        return
    with pytest.raises(RactdError):
        environments_of(policy.environment, directory)(policy.environment.env_id, 1, 0)  # type: ignore[arg-type, union-attr]
    assert control_hz(policy.environment) is None


@pytest.mark.parametrize("env_id", ["canary:Id-v0", "subprocess:call"])
def test_a_dataset_of_a_stranger_imports_nothing(
    env_id: str, canary: None, tmp_path: Path, cli: Callable[..., Answer]
) -> None:
    write_hdf5(tmp_path / "a.hdf5", make(env_id=env_id))
    answer = cli("data", "validate", tmp_path / "a.hdf5")
    assert f"if you trust it, give --env {env_id}" in answer.out


def test_policies_and_runs_of_before_go_by_the_id_alone(tmp_path: Path) -> None:
    policy = make_policy(env_id="Pendulum-v1")
    path = policy.save(tmp_path / "policy") / "config.json"
    content = json.loads(path.read_text())
    del content["environment"]["env_settings"]
    path.write_text(json.dumps(content))
    assert Policy.load(tmp_path / "policy").environment == policy.environment
    assert "env_settings" not in describe(make(env_id="Pendulum-v1"))
    limited = replace(make(env_id="Pendulum-v1"), env_settings=EnvironmentSettings(max_episode_steps=5))
    assert describe(limited)["env_settings"]["max_episode_steps"] == 5


def test_a_policy_carries_its_environment(tmp_path: Path) -> None:
    settings = EnvironmentSettings(
        {"g": 1.5, "nested": {"a": [1, None, "b"]}}, 40, (WrapperSettings("RepeatAction", {"num_repeats": 2}),)
    )
    policy = make_policy(env_id="Pendulum-v1")
    policy.environment = Environment("Pendulum-v1", settings)
    again = Policy.load(policy.save(tmp_path / "policy")).environment
    assert again == policy.environment


# Minari.


def spec_of(*wrappers: dict[str, Any], **changes: Any) -> Any:
    """An `EnvSpec` as it comes from a file's JSON."""
    content = json.loads(gymnasium.spec("InvertedPendulum-v5").to_json())
    return gymnasium.envs.registration.EnvSpec.from_json(
        json.dumps(content | {"additional_wrappers": list(wrappers)} | changes)
    )


def test_minaris_specification_is_used_where_it_is_safe() -> None:
    env = gymnasium.make("InvertedPendulum-v5", 50, reset_noise_scale=0.1, render_mode="rgb_array")
    env = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.wrappers.RescaleAction(env, -1.0, 1.0))
    spec = gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json())
    rescaled = WrapperSettings("RescaleAction", {"min_action": -1.0, "max_action": 1.0})
    assert environment_of(spec) == (
        "InvertedPendulum-v5",
        EnvironmentSettings({"reset_noise_scale": 0.1}, 50, (rescaled,)),
    )
    env_id, settings = environment_of(spec)
    ours = make_vector(str(env_id), 1, 3, settings)
    np.testing.assert_allclose(ours.reset()[0], env.reset(seed=3)[0], rtol=1e-6)
    np.testing.assert_allclose(
        ours.step(np.array([[0.3]], np.float32))[0][0], env.step(np.array([0.3], np.float32))[0], rtol=1e-6
    )
    assert environment_of(None) == (None, REGISTERED)


def test_arguments_that_are_registered_here_are_nobodys_words(canary: None) -> None:
    gymnasium.register("ractd/Arm-v0", "canary:Env", kwargs={"model": "/home/me/arm.xml"})
    try:
        assert environment_of(spec_of(id="ractd/Arm-v0", kwargs={"model": "/home/me/arm.xml"}))[1].fault == ""
        assert "could name a file" in environment_of(spec_of(id="ractd/Arm-v0", kwargs={"model": "/etc"}))[1].fault
    finally:
        del gymnasium.registry["ractd/Arm-v0"]


@pytest.mark.parametrize(
    ("wrapper", "said"),
    [
        (
            {"name": "RecordVideo", "entry_point": "canary:Env", "kwargs": {}},
            "'canary:Env' is none of gymnasium.wrappers",
        ),
        ({"name": "Call", "entry_point": "subprocess:call", "kwargs": {"args": "touch ran"}}, "'subprocess:call'"),
        (
            {"name": "X", "entry_point": "gymnasium.wrappers_evil:ClipAction", "kwargs": {}},
            "none of gymnasium.wrappers",
        ),
        (
            {"name": "X", "entry_point": "gymnasium.wrappers.common:importlib", "kwargs": {}},
            "'importlib' can't be made",
        ),
        (
            {
                "name": "N",
                "entry_point": "gymnasium.wrappers.stateful_reward:NormalizeReward",
                "kwargs": {"gamma": 0.9},
            },
            "'NormalizeReward' can't be made",
        ),
    ],
)
def test_an_environment_with_another_wrapper_is_another_one_and_says_so(
    wrapper: dict[str, Any], said: str, canary: None
) -> None:
    env_id, settings = environment_of(spec_of(wrapper, entry_point="canary:Env"))
    assert said in settings.fault
    assert settings.fault.endswith("--env InvertedPendulum-v5 scores in InvertedPendulum-v5 as it is registered here")
    with pytest.raises(RactdError, match="so it is another environment"):
        make_vector(str(env_id), 1, 0, settings)


def test_the_entry_point_of_a_minari_file_is_never_used(canary: None) -> None:
    env_id, settings = environment_of(spec_of(entry_point="canary:Env", vector_entry_point="canary:Env"))
    assert settings.fault == ""
    assert make_vector(str(env_id), 1, 0, settings).backend == "envpool"
    env_id, settings = environment_of(spec_of(id="ractd/Nowhere-v0", entry_point="canary:Env"))
    with pytest.raises(RactdError, match="no environment is called 'ractd/Nowhere-v0'"):
        make_vector(str(env_id), 1, 0, settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"kwargs": None},
        {"kwargs": [1]},
        {"max_episode_steps": "9"},
        {"max_episode_steps": [9]},
        {"max_episode_steps": -1},
    ],
    ids=str,
)
def test_a_damaged_specification_is_a_fault(changes: dict[str, Any]) -> None:
    env_id, settings = environment_of(spec_of(**changes))
    assert env_id == "InvertedPendulum-v5"
    assert settings.fault.endswith("as it is registered here")
    wrapper = {"name": "Clip", "entry_point": None, "kwargs": 5}
    assert "damaged" in environment_of(spec_of(wrapper))[1].fault


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("missing", ["observation_space", "action_space"])
def test_a_minari_dataset_without_spaces_is_refused_where_minari_would_run_its_entry_point(
    missing: str, canary: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gymnasium import spaces
    from test_data_minari import minari_dataset

    box = spaces.Box(-10, 10, (3,), np.float64)
    minari_dataset(tmp_path / "minari", monkeypatch, box, lambda rng: rng.normal(size=3), "toy/box-v0")
    path = tmp_path / "minari" / "toy" / "box-v0" / "data" / "metadata.json"
    content = json.loads(path.read_text()) | {"env_spec": spec_of(entry_point="canary:Env").to_json()}
    path.write_text(json.dumps(content))
    data = load_dataset("toy/box-v0")
    assert (data.env_id, data.env_settings.max_episode_steps) == ("InvertedPendulum-v5", 1000)
    del content[missing]
    path.write_text(json.dumps(content))
    with pytest.raises(RactdError, match=f"its metadata have no '{missing}', for which Minari would run the code"):
        load_dataset("toy/box-v0")


def test_hdf5_keeps_the_settings(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    settings = EnvironmentSettings({"g": 1.5}, 40, (WrapperSettings("RepeatAction", {"num_repeats": 2}),))
    write_hdf5(tmp_path / "a.hdf5", replace(make(env_id="Pendulum-v1"), env_settings=settings))
    again = load_dataset(tmp_path / "a.hdf5")
    assert asdict(again.env_settings) == asdict(settings)
    assert load_dataset(tmp_path / "a.hdf5", env_id="Hopper-v5").env_settings == REGISTERED
    shown = cli("data", "inspect", tmp_path / "a.hdf5").out
    assert "Pendulum-v1, g=1.5, at most 40 steps, in RepeatAction" in shown


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"wrappers": [{"name": "canary:Env"}]}',
        '{"entry_point": "canary:Env"}',
        '{"arguments": {"a": "canary:Env"}}',
    ],
)
def test_hdf5_of_a_stranger_has_a_fault_and_loads(text: str, canary: None, tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", make(env_id="Pendulum-v1"), attrs={"env_settings": text})
    data = load_dataset(tmp_path / "a.hdf5")
    with pytest.raises(RactdError, match="Pendulum-v1: its settings can't be used"):
        environments_of(data, data.source)("Pendulum-v1", 1, 0)
    environments_of(load_dataset(tmp_path / "a.hdf5", env_id="Pendulum-v1"), "a.hdf5")("Pendulum-v1", 1, 0).close()
