"""A maze from its data to its plans, by the commands that a user types."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import STEPS, Answer, call_command, rows_of
from dataset_factory import make

import ractd
from ractd.cli import parse
from ractd.commands.train import Train
from ractd.data import write_hdf5
from ractd.errors import RactdError
from ractd.export.contract import contract, open_source
from ractd.export.graph import batch_first
from ractd.methods.ractd import METHOD
from ractd.methods.ractd_settings import PRESETS, Config
from ractd.policies import Planner, Policy

TINY = {
    "--horizon": "16",
    "--sequence.points": "5",
    "--teacher.network.width": "32",
    "--diffusion.bins": "10",
    "--evaluation.episodes": "4",
    "--evaluation.select": "online",
    "--evaluation.checkpoints": "2",
    "--evaluation.checkpoint-episodes": "2",
    **{f"--{stage}.optimization.steps": str(STEPS) for stage in ("return-model", "sequence", "teacher", "student")},
    **{f"--{stage}.optimization.batch-size": "32" for stage in ("return-model", "sequence", "teacher", "student")},
}
OPTIONS = ["--no-report", *(word for pair in TINY.items() for word in pair)]
OWN = "#####\n#S.G#\n#####\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of two mazes, one of them the user's own."""
    folder = tmp_path_factory.mktemp("datasets")
    (folder / "mine.txt").write_text(OWN)
    for words in (["maze2d-umaze"], ["mine", "--maze", folder / "mine.txt"]):
        answer = call_command("data", "make", *words, "--steps", "3000", env={"RACTD_DATA": str(folder)})
        assert answer.code == 0, answer.err
    return folder


@pytest.fixture(autouse=True)
def _here(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACTD_DATA", str(data))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planner of the user's own maze, trained without naming a preset."""
    directory = tmp_path_factory.mktemp("runs") / "mine"
    answer = call_command("train", "mine", "--out", directory, *OPTIONS, env={"RACTD_DATA": str(data)})
    assert answer.code == 0, answer.out + answer.err
    assert "reached" in answer.out
    assert "ms/plan" in answer.out
    return directory


def settings(*words: str | Path) -> Config:
    """What `ractd train` with these words trains with."""
    train = parse(["train", *map(str, words)])
    assert isinstance(train, Train)
    config: Config = train.config
    return config


def python_settings(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> Config:
    """What `ractd.train` with these arguments trains with."""
    seen: list[Config] = []

    def look(config: Config, *_: Any) -> Config:
        seen.append(config)
        raise RactdError("seen")

    with monkeypatch.context() as patched:
        patched.setattr("ractd.methods.ractd.METHOD", replace(METHOD, resolve=look))
        with pytest.raises(RactdError, match="seen"):
            ractd.train(*arguments, **options)
    return seen[0]


UMAZE = PRESETS["maze2d-umaze-cpu"]
"""What the maze `mine` asks for as well: its episodes are as long."""


@pytest.fixture
def published(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """D4RL's own file of a maze, which says nothing of its environment."""
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    with (
        h5py.File(data / "maze2d-umaze.hdf5") as made,
        h5py.File(tmp_path / "maze2d-umaze-sparse-v1.hdf5", "w") as file,
    ):
        for name in made:
            made.copy(name, file)
    return "maze2d-umaze-v1"


def test_the_preset_is_that_of_the_dataset_s_environment(
    data: Path, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("maze2d-umaze", "mine", data / "mine.hdf5", published):
        assert settings(name) == settings(name, "--out", "x", "--seed", "0") == UMAZE
        assert python_settings(monkeypatch, str(name)) == UMAZE
        assert python_settings(monkeypatch, ractd.load_dataset(name)) == UMAZE
    assert settings("maze2d-umaze-v1", "--preset", "cpu") == PRESETS["cpu"]
    assert python_settings(monkeypatch, "mine", config=PRESETS["maze2d-large-cpu"]) == PRESETS["maze2d-large-cpu"]
    for preset in ("maze2d-large", "mujoco", "demo"):
        for words in (["--preset", preset], [f"--preset={preset}"]):
            assert settings("mine", *words) == settings(*words, "mine") == PRESETS[preset]


def test_words_that_are_no_dataset_pick_no_preset(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.hdf5"
    write_hdf5(path, make(lengths=(9, 9), obs=4))
    for words in (["--out", "maze2d-umaze"], ["--track", "wandb"], ["--env", "Hopper-v5"]):
        assert settings(path, *words) == settings(*words, path) == PRESETS["following"]
    assert settings(path, "--teacher", "mine") == settings("--teacher=mine", path) == PRESETS["cpu"], "it is distilled"
    assert settings(path, "--env", "ractd/maze2d-medium") == PRESETS["maze2d-medium-cpu"]
    assert python_settings(monkeypatch, str(path)) == PRESETS["following"]
    assert python_settings(monkeypatch, str(path), env_id="ractd/maze2d-medium") == PRESETS["maze2d-medium-cpu"]
    assert settings("mine", "--env", "PointMaze_UMaze-v3") == PRESETS["following"]
    assert settings("no-such-dataset") == PRESETS["following"], "training says that there is none"


def test_data_without_rewards_has_a_teacher_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = replace(make(lengths=(9, 9), obs=4), has_rewards=False)
    path = tmp_path / "log.hdf5"
    write_hdf5(path, data)
    assert settings(path) == PRESETS["cpu"]
    for dataset in (str(path), data):
        assert python_settings(monkeypatch, dataset) == PRESETS["cpu"]


def test_d4rl_s_mazes_are_known_before_they_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    monkeypatch.setattr(
        "ractd.data.formats.network.download", lambda *_: pytest.fail("nothing is to be downloaded for a preset")
    )
    assert settings("maze2d-medium-v1") == PRESETS["maze2d-medium-cpu"]
    assert settings("hopper-medium-v2") == settings("maze2d-eval-umaze-v1") == PRESETS["following"]
    assert settings("mujoco/hopper/medium-v0") == PRESETS["following"], "nor from Minari"


def test_help_opens_no_dataset(cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ractd.methods.presets.find_source", lambda *_, **__: pytest.fail("help needs no data"))
    for words in ((), ("mine",), ("--preset", "maze2d-large"), ("mine", "--preset", "mujoco")):
        answer = cli("train", *words, "--help-all")
        assert answer.code == 0
        assert ("--sequence.points" in answer.out) == ("maze2d-large" in words)
        assert ("--teacher.network.down-dims" in answer.out) == ("--preset" in words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--sequence.points", "9", "LOG"],
            ["--sequence.points", "'following', which is the default for dataset", "maze2d-umaze-cpu"],
        ),
        (["LOG", "--sequence.points=9", "--horizon", "16"], ["--sequence.points", "maze2d-umaze-cpu"]),
        (
            ["mine", "--preset", "cpu", "--sequence.points", "9"],
            ["--sequence.points", "the preset 'cpu' has no such option"],
        ),
        (["mine", "--teacher.network.kernel-size", "3"], ["kernel-size", "'maze2d-umaze-cpu', which is the", "mujoco"]),
        (["gone.hdf5", "--sequence.points", "9"], ["gone.hdf5: no such file"]),
    ],
)
def test_options_of_another_preset(
    words: list[str], said: list[str], tmp_path: Path, cli: Callable[..., Answer]
) -> None:
    path = tmp_path / "log.hdf5"
    write_hdf5(path, make(lengths=(9, 9)))
    answer = cli("train", *[str(path) if word == "LOG" else word for word in words], "--out", tmp_path / "run")
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1, answer.err
    assert all(part in answer.err for part in said), answer.err
    assert not (tmp_path / "run").exists()


def test_the_result_has_what_a_planner_is_judged_by(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert result["complete"]
    row = rows_of(run)["RACTD"]
    assert row.protocol is not None
    assert row.success_rate == (np.array(row.returns) > 0).mean()
    plans = int(np.ceil(max(row.lengths) / 16))
    assert row.ms_per_action is not None
    assert row.plan_ms_per_episode == pytest.approx(row.ms_per_action * plans)
    assert row.protocol.execute == 16, "open loop"
    assert row.nfe == 1
    assert row.mean_score is None, "nobody knows the reference returns of this maze"
    assert result["stages"].keys() >= {"return", "dynamics", "teacher", "plain", "student"}
    assert (run / "plans.png").stat().st_size > 10_000


def test_it_plans_in_python(run: Path) -> None:
    policy = Policy.load(run)
    assert isinstance(policy, Planner)
    states, actions = policy.plan(np.array([[1.0, 1.0, 0.0, 0.0]] * 5), np.array([1.0, 3.0]))
    assert states.shape == (5, 16, 4)
    assert actions.shape == (5, 16, 2)
    assert np.abs(actions).max() <= 1


def test_closed_loop_is_one_option(run: Path, cli: Callable[..., Answer]) -> None:
    answer = cli("eval", run, "--replan", "4", "--episodes", "3")
    assert answer.code == 0, answer.err
    assert "first 4 actions of each sequence" in answer.out
    assert "reached the goal" in answer.out
    assert (run / "evaluations" / "student-e3-x4-n1-consistency-k1-s0.json").exists()


@pytest.mark.slow
def test_a_student_of_another_run_s_teacher(run: Path, tmp_path: Path, cli: Callable[..., Answer]) -> None:
    words = [*OPTIONS, "--teacher", str(run), "--reward-weight", "0.5"]
    answer = cli("train", "mine", "--out", tmp_path / "second", *words)
    assert answer.code == 0, answer.out + answer.err
    assert (tmp_path / "second" / "policy" / "student").is_dir()


@pytest.mark.slow
def test_stages_one_by_one_end_with_the_same_weights(run: Path, tmp_path: Path, cli: Callable[..., Answer]) -> None:
    for stage in ("return", "dynamics", "teacher", "student"):
        answer = cli("train", "mine", "--out", tmp_path / "run", *OPTIONS, "--only", stage)
        assert answer.code == 0, answer.out + answer.err
    mine, theirs = (place / "policy" / "student" / "policy.safetensors" for place in (run, tmp_path / "run"))
    assert mine.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_the_paper_s_networks_are_for_mazes_too(cli: Callable[..., Answer], tmp_path: Path) -> None:
    words = ["--preset", "maze2d-umaze", "--teacher.network.down-dims", "8", "16", "--no-plain", "--no-report"]
    few = {"--horizon": "8", "--evaluation.episodes": "2", "--evaluation.checkpoints": "1", "--diffusion.bins": "5"}
    small = {name: "10" if name.endswith("steps") else value for name, value in (TINY | few).items()}
    for name in ("--sequence.points", "--teacher.network.width"):
        del small[name]
    answer = cli(
        "train", "mine", "--out", tmp_path / "unet", *words, *(word for pair in small.items() for word in pair)
    )
    assert answer.code == 0, answer.out + answer.err
    sequence = Policy.load(tmp_path / "unet").sequence
    assert (sequence.part.points, sequence.shape) == (0, (8, 4))


@pytest.mark.parametrize("candidates", ["1", pytest.param("4", marks=pytest.mark.slow)])
def test_a_planner_leaves_the_lab(run: Path, tmp_path: Path, candidates: str, cli: Callable[..., Answer]) -> None:
    import ractd_runtime

    words = ["--candidates", candidates, "--check-episodes", "2"]
    answer = cli("export", run, "-o", tmp_path / "deployed", *words)
    assert answer.code == 0, answer.err
    content = json.loads((tmp_path / "deployed" / "policy.json").read_text())
    assert content["outputs"]["states"]["shape"] == ["batch", 16, 4]
    assert content["execution"]["execute"] == 16
    assert contract(open_source(run / "policy" / "student", None, None))["execution"]["execute"] == 16
    deployed = ractd_runtime.Policy.load(tmp_path / "deployed")
    policy = Policy.load(run).configured(candidates=int(candidates))
    assert isinstance(policy, Planner)
    observation = policy.sequence.with_goal(np.array([[1.0, 2.0, 0.5, 0.0]]), np.array([1.0, 3.0]))[:, None]
    noise = policy.reset(5).draw_noise(1)
    mine = policy.sample(torch.from_numpy(observation), noise).numpy()
    theirs = deployed.sample(observation, batch_first(noise, int(candidates)).numpy())
    np.testing.assert_allclose(theirs, mine, atol=1e-5)
    assert deployed.act(observation[0, 0]).shape == (2,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "maze2d-umaze", "--horizon", "130"], "horizon 130 can't be halved 2 times"),
        (["--preset", "maze2d-umaze", "--horizon", "130"], "use 128 or 132"),
        (["--history", "2"], "--history is 2, expected 1 for a planner"),
        (["--horizon", "8"], "--sequence.points is 16, expected 3 to 7 for the horizon 8"),
        (["--preset", "cpu", "--only", "dynamics"], "only a planner has inverse dynamics"),
        (["--only", "student"], "its return is not trained"),
    ],
)
def test_settings_that_make_no_planner(
    words: list[str], message: str, tmp_path: Path, cli: Callable[..., Answer]
) -> None:
    answer = cli("train", "maze2d-umaze", "--out", tmp_path / "run", *words)
    assert answer.code == 2
    assert message in " ".join(answer.err.split())


def test_a_planner_needs_a_maze(trained: object, tmp_path: Path, cli: Callable[..., Answer]) -> None:
    answer = cli("train", trained.dataset, "--preset", "maze2d-umaze-cpu", "--out", tmp_path / "run")  # type: ignore[attr-defined]
    assert answer.code == 2
    assert "is of InvertedPendulum-v5, and a planner needs a maze" in answer.err


def test_planners_stay_in_their_maze_and_others_out_of_it(
    run: Path, trained: object, cli: Callable[..., Answer]
) -> None:
    answer = cli("eval", run, "--env", "InvertedPendulum-v5")
    assert answer.code == 2
    assert "plans in 'ractd/maze/mine', whose goal and walls it knows, and not in 'InvertedPendulum-v5'" in answer.err
    answer = cli("eval", trained.directory, "--env", "ractd/maze2d-umaze")  # type: ignore[attr-defined]
    assert answer.code == 2
    assert "environment 'ractd/maze2d-umaze' has 4 and 2" in answer.err


def test_teachers_are_not_mixed_up(run: Path, trained: object, tmp_path: Path, cli: Callable[..., Answer]) -> None:
    answer = cli("train", "mine", "--teacher", trained.directory, "--out", tmp_path / "a")  # type: ignore[attr-defined]
    assert answer.code == 2
    assert "its teacher makes sequences of actions, and the settings are those of states" in answer.err


def test_a_damaged_map_is_named(run: Path, tmp_path: Path, cli: Callable[..., Answer]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    path = copy / "policy" / "student" / "config.json"
    content = json.loads(path.read_text())
    content["environment"]["maze"] = "#####\n#S..#\n#####"
    path.write_text(json.dumps(content))
    answer = cli("eval", copy, "--episodes", "2")
    assert answer.code == 2
    assert "has no goal" in answer.err
