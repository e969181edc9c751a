"""Environments on the command line: of a module of one's own, with a step limit, none at all, and those that fail."""

# mypy: disallow-subclassing-any=False

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from conftest import ENV_ID, Answer, options, pendulum_data, rows_of

from ractd import validate
from ractd.data import write_hdf5
from ractd.envs import modules
from ractd.report import video
from ractd.report.contents import read_runs

Cli = Callable[..., Answer]

REGISTRATION = """
import gymnasium
gymnasium.register("Pole-v0", "pole_parts:Pole")
gymnasium.register("Pole-v1", "pole_nowhere:Pole")
"""
POLE = """
from pathlib import Path
import gymnasium
import numpy as np

class Pole(gymnasium.Env):
    "Never ends. Where a file 'broken' is there, it breaks in its tenth step."
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,))
    action_space = gymnasium.spaces.Box(-3.0, 3.0, (1,))
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.np_random.normal(size=4).astype(np.float32), {}

    def step(self, action):
        self.count += 1
        if self.count == 10 and Path("broken").exists():
            raise ConnectionError("the cable came off")
        return np.full(4, np.sin(self.count), np.float32), np.array([1.0]), False, False, {}

    def render(self):
        picture = np.zeros((49, 65, 3), np.uint8)
        picture[:, : 3 * self.count] = 255
        return picture
"""
SHORT = {f"--{stage}.optimization.steps": "10" for stage in ("return-model", "teacher", "student")}
QUICK = [*options(**SHORT, **{"--evaluation.checkpoints": "1", "--evaluation.episodes": "2"}), "--no-plain"]


@pytest.fixture
def pole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module that registers an environment made by another one, and data; nothing is imported."""
    (tmp_path / "pole_robot.py").write_text(REGISTRATION)
    (tmp_path / "pole_parts.py").write_text(POLE)
    (tmp_path / "pole_wrong.py").write_text("import pole_missing_part\n")
    write_hdf5(tmp_path / "logs.hdf5", pendulum_data(300, env_id=None))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(modules, "_imported", set())
    before = list(sys.path)
    yield tmp_path
    assert sys.path == before, "the working directory is searched for that import alone"
    for name in ("pole_robot", "pole_parts"):
        sys.modules.pop(name, None)
    for name in ("Pole-v0", "Pole-v1"):
        gymnasium.registry.pop(name, None)


def assert_refused(answer: Answer, *said: str) -> None:
    assert answer.code == 2, answer.out + answer.err
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1, answer.err
    for words in said:
        assert words in answer.err


def test_an_environment_of_a_module_breaks_is_repaired_and_goes_on(
    pole: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["train", "logs.hdf5", "--out", "run", "--env", "pole_robot:Pole-v0", "--env-steps", "25", *QUICK]
    (pole / "broken").touch()
    assert_refused(
        cli(*train), "pole_robot:Pole-v0 failed in step 10 of an episode of", "ConnectionError: the cable came off"
    )
    assert (pole / "run" / "checkpoints" / "teacher" / "last.safetensors").exists()
    (pole / "broken").unlink()
    done = cli(*train)
    assert done.code == 0, done.err
    assert "teacher: training" not in done.out, "it is trained already"
    row = rows_of(pole / "run")["RACTD"]
    assert (row.lengths, row.returns) == ((25, 25), (25, 25))
    policy = json.loads((pole / "run" / "policy" / "student" / "config.json").read_text())["environment"]
    assert policy["env_id"] == "pole_robot:Pole-v0"
    assert policy["env_settings"]["max_episode_steps"] == 25

    # Another process has imported nothing, and a policy's file does not make it.
    monkeypatch.setattr(modules, "_imported", set())
    assert_refused(cli("eval", "run", "--episodes", "1"), "if you trust it, give --env pole_robot:Pole-v0")
    answer = cli("eval", "run", "--episodes", "1", "--env", "pole_robot:Pole-v0")
    assert answer.code == 0, answer.err
    answer = cli("eval", "run", "--episodes", "1", "--env", "pole_robot:Pole-v0", "--env-steps", "7")
    assert answer.code == 0, answer.err
    assert "7 steps on average of at most 7" in " ".join(answer.out.replace("│", " ").split())
    measured = {path.name: json.loads(path.read_text()) for path in (pole / "run" / "evaluations").iterdir()}
    name = "student-e1-x1-n1-consistency-k1-s0"
    lengths = {key: [length for row in result["rows"] for length in row["lengths"]] for key, result in measured.items()}
    assert lengths == {f"{name}.json": [25], f"{name}-l7.json": [7]}

    pytest.importorskip("av")
    monkeypatch.setattr(video, "EPISODES", 2)
    best, _ = video.best_and_worst(read_runs([pole / "run"])[0], lambda what: None)
    assert best.caption.startswith("25 steps, ended by the time limit; return 25;")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--env", "pole_robot:Pole-v7"],
            "module 'pole_robot' registers no environment 'Pole-v7'; it registers Pole-v0, Pole-v1",
        ),
        (["--env", "pole_robot:Pole-v1"], "its entry point 'pole_nowhere:Pole' can't be imported (ModuleNotFoundError"),
        (["--env", "pole_absent:Pole-v0"], "module 'pole_absent' can't be imported (ModuleNotFoundError"),
        (
            ["--env", "pole_wrong:Pole-v0"],
            "module 'pole_wrong' can't be imported (ModuleNotFoundError: No module named 'pole_m",
        ),
        (
            ["--env", "subprocess:call"],
            "module 'subprocess' registers no environment 'call'; call gymnasium.register in it",
        ),
        (
            ["--env", "pole_robot:Pole-v0", "--env-steps", "0"],
            "step limit of the environment is 0, expected at least 1",
        ),
        (["--env-steps", "5"], "--env-steps is of an environment, and the data names none; give one with --env"),
        (["--no-env", "--env", ENV_ID], "--no-env scores nothing: leave it out, or --env"),
        (["--no-env", "--env-steps", "5"], "--no-env scores nothing: leave it out, or --env-steps"),
        (["--no-env", "--preset", "maze2d-umaze-cpu"], "--no-env: a planner plans in the maze of its data"),
    ],
)
def test_train_refuses(words: list[str], said: str, pole: Path, cli: Cli) -> None:
    assert_refused(cli("train", "logs.hdf5", "--out", "run", *words), said)
    assert not (pole / "run").exists()


def test_validate_takes_a_module_too(pole: Path, cli: Cli) -> None:
    answer = cli("data", "validate", "logs.hdf5", "--env", "pole_robot:Pole-v0")
    assert answer.code == 0, answer.out
    assert "not checked" not in answer.out


def test_without_an_environment_nothing_is_scored_and_no_simulator_imported(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hdf5(tmp_path / "logs.hdf5", pendulum_data(300))
    for name in ("gymnasium", "envpool", "mujoco"):
        monkeypatch.setitem(sys.modules, name, None)
    train = ["train", tmp_path / "logs.hdf5", "--out", tmp_path / "run", "--no-env", *QUICK]
    for _ in range(2):
        answer = cli(*train)
        assert answer.code == 0, answer.err
        assert "can't be used" not in answer.out + answer.err
        assert "estimates of the" in answer.out
    rows = rows_of(tmp_path / "run").values()
    assert rows
    assert not any(row.protocol for row in rows)


class Odd(gymnasium.Env):  # type: ignore[misc]
    """The pendulum's spaces; every observation is NaN."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,))
    action_space = gymnasium.spaces.Box(-3.0, 3.0, (1,))
    value = np.nan

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.full(4, self.value, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.full(4, self.value, np.float32), 0.0, False, False, {}


class Endless(Odd):
    """Never ends."""

    value = 0.0


@pytest.fixture
def registered() -> Iterator[None]:
    gymnasium.register("ractd/Odd-v0", Odd, disable_env_checker=True)
    gymnasium.register("ractd/Endless-v0", Endless)
    yield
    for name in ("ractd/Odd-v0", "ractd/Endless-v0"):
        del gymnasium.registry[name]


def found(env_id: str, asked: bool) -> dict[str, list[str]]:
    """What is found about data of an environment, by its level."""
    data = pendulum_data(50, env_id=None if asked else env_id)
    findings = validate(data, env_id if asked else None)
    return {level: [each.message for each in findings if each.level == level] for level in ("error", "warning")}


@pytest.mark.usefixtures("registered")
def test_an_environment_is_tried_before_training() -> None:
    fault = "ractd/Odd-v0 gave an observation that is NaN or infinite in the reset of episode 0"
    named = found("ractd/Odd-v0", asked=False)
    assert named["error"] == []
    assert any(f"can't be used, so nothing is scored in it: {fault}" in message for message in named["warning"])
    assert any(f"can't be used: {fault}" in message for message in found("ractd/Odd-v0", asked=True)["error"])


@pytest.mark.usefixtures("registered")
def test_an_environment_without_a_limit_is_a_warning() -> None:
    without = found("ractd/Endless-v0", asked=True)
    assert without["error"] == []
    assert any("ractd/Endless-v0 has no step limit" in message for message in without["warning"])


def test_an_environment_that_cannot_be_used_costs_the_scores_and_not_the_training(tmp_path: Path, cli: Cli) -> None:
    write_hdf5(tmp_path / "logs.hdf5", pendulum_data(300, env_id="Nowhere-v9"))
    answer = cli("train", tmp_path / "logs.hdf5", "--out", tmp_path / "run", *QUICK)
    assert answer.code == 0, answer.err
    assert "environment 'Nowhere-v9' can't be used, so nothing is scored in it" in answer.out
    assert "estimates of the" in answer.out
