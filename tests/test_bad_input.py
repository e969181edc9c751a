"""Every bad input ends with exit code 2 and one sentence that names what is wrong, and leaves nothing behind."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Answer, Trained, options, pendulum_data
from dataset_factory import make

from ractd.data import write_hdf5

Cli = Callable[..., Answer]


def assert_refused(answer: Answer, *named: str) -> None:
    """Exit code 2 and one error line that names all of `named`."""
    assert answer.code == 2, answer.out + answer.err
    lines = answer.err.splitlines()
    assert len(lines) == 1, answer.err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in answer.out + answer.err
    for name in named:
        assert name in lines[0]


def assert_train_refused(cli: Cli, tmp_path: Path, words: list[str | Path], *named: str) -> None:
    """Refused before there is a run directory."""
    out = tmp_path / "refused"
    assert_refused(cli("train", *words, "--out", out), *named)
    assert not out.exists(), "nothing is to be left of a run that could not begin"


# Datasets.


def truncated(path: Path) -> list[str]:
    write_hdf5(path, pendulum_data(200))
    path.write_bytes(path.read_bytes()[:-500])
    return [str(path), "cut off"]


def not_hdf5(path: Path) -> list[str]:
    path.write_text("observations,actions\n")
    return [str(path), "not an HDF5 file"]


def not_a_number(path: Path) -> list[str]:
    data = make()
    data.observations[7, 1] = np.nan
    write_hdf5(path, data)
    return [str(path), "'observations'", "row 7", "NaN"]


def wrong_rank(path: Path) -> list[str]:
    import h5py

    write_hdf5(path, make())
    with h5py.File(path, "r+") as file:
        actions = file["actions"][:]
        del file["actions"]
        file["actions"] = actions[:, :, None]
    return [str(path), "'actions'", "(15, 2, 1)"]


def missing_field(path: Path) -> list[str]:
    import h5py

    write_hdf5(path, make())
    with h5py.File(path, "r+") as file:
        file.move("rewards", "reward")
    return [str(path), "'rewards'", "rename 'reward'"]


def different_lengths(path: Path) -> list[str]:
    import h5py

    write_hdf5(path, make())
    with h5py.File(path, "r+") as file:
        rewards = file["rewards"][:-1]
        del file["rewards"]
        file["rewards"] = rewards
    return [str(path), "rewards 14", "observations 15"]


@pytest.mark.parametrize(
    "damage",
    [truncated, not_hdf5, not_a_number, wrong_rank, missing_field, different_lengths],
    ids=lambda f: f.__name__,
)
def test_bad_files(damage: Callable[[Path], list[str]], cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    named = damage(path)
    assert_train_refused(cli, tmp_path, [path], *named)
    assert_refused(cli("data", "inspect", path), *named)
    found = cli("data", "validate", path)
    assert found.code == 2
    assert any(line.startswith("error: ") and all(name in line for name in named) for line in found.out.splitlines())


def test_pickled_objects_are_never_opened(cli: Cli, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (Path(tmp_path / "exploded"),)

    path = tmp_path / "data.npz"
    arrays = {name: getattr(make(), name) for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    np.savez(path, **arrays | {"rewards": np.array([Bomb()] * 15, dtype=object)})
    assert_train_refused(cli, tmp_path, [path], str(path), "'rewards'", "object")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("nowhere/data.hdf5", ["nowhere/data.hdf5", "no such file"]),
        ("hoper-mixed", ["'hoper-mixed'", "did you mean hopper-mixed"]),
        ("data.csv", ["'data.csv'", "not known"]),
        (".", ["folder"]),
    ],
)
def test_names_of_nothing(name: str, named: list[str], cli: Cli, tmp_path: Path) -> None:
    assert_train_refused(cli, tmp_path, [name], *named)


def test_a_recipe_that_does_not_exist(cli: Cli, tmp_path: Path) -> None:
    assert_refused(cli("data", "make", "hoper-mixed", "--directory", tmp_path), "hoper-mixed", "hopper-mixed")
    assert_refused(cli("data", "make", "hopper-mixed", "--steps", "0", "--directory", tmp_path), "--steps")
    assert_refused(cli("data", "make", "hopper-mixed", "--seed", "-1", "--directory", tmp_path), "--seed")
    assert not list(tmp_path.iterdir())


# Environments.


def test_a_directory_that_is_a_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    answer = cli("data", "make", "hopper-mixed", "--steps", "10", "--directory", tmp_path / "mine")
    assert_refused(answer, str(tmp_path / "mine"), "is a file")
    assert ".partial" not in answer.err


def test_an_unknown_environment(pendulum: Path, cli: Cli, tmp_path: Path) -> None:
    words: list[str | Path] = [pendulum, "--env", "InvertedPendulm-v5", *options()]
    assert_train_refused(cli, tmp_path, words, "'InvertedPendulm-v5'", "InvertedPendulum-v5")


@pytest.mark.parametrize(
    ("env_id", "named"),
    [
        ("Hopper-v5", ["'Hopper-v5'", "4 dimensions", "11"]),
        ("CartPole-v1", ["CartPole-v1", "continuous actions"]),
    ],
)
def test_an_environment_that_does_not_fit(
    env_id: str, named: list[str], pendulum: Path, cli: Cli, tmp_path: Path
) -> None:
    assert_train_refused(cli, tmp_path, [pendulum, "--env", env_id, *options()], *named)


def test_an_environment_in_the_file_that_does_not_fit(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    write_hdf5(path, pendulum_data(200, env_id="Hopper-v5"))
    assert_train_refused(cli, tmp_path, [path, *options()], "'Hopper-v5'", "4 dimensions")


# Options.


@pytest.mark.parametrize(
    "option",
    [
        "--teacher.optimization.steps=-5",
        "--student.optimization.steps=0",
        "--return-model.optimization.batch-size=0",
        "--teacher.optimization.learning-rate=nan",
        "--horizon=0",
        "--history=0",
        "--diffusion.bins=1",
        "--diffusion.sigma-min=90",
        "--teacher.optimization.ema=1",
        "--student.optimization.ema=-0.1",
        "--student.reward-weight=-0.5",
        "--student.ctm-weight=-1",
        "--return-model.gamma=2",
        "--return-model.termination-penalty=nan",
        "--teacher.network.width=0",
        "--teacher.network.embed-dim=5",
        "--diffusion.bins=1001",
        "--evaluation.episodes=0",
        "--evaluation.execute=5",
        "--evaluation.checkpoints=0",
        "--seed=-1",
    ],
)
def test_settings_out_of_range(option: str, pendulum: Path, cli: Cli, tmp_path: Path) -> None:
    name, _, value = option.partition("=")
    assert_train_refused(cli, tmp_path, [pendulum, *options(**{name: value})], name, value)


def test_a_negative_reward_weight_by_its_short_name(pendulum: Path, cli: Cli, tmp_path: Path) -> None:
    assert_train_refused(cli, tmp_path, [pendulum, "--reward-weight", "-1"], "reward-weight", "-1")


@pytest.mark.parametrize("option", ["--evaluation.checkpoints", "--evaluation.checkpoint_episodes=2"])
@pytest.mark.parametrize("method", ["ractd", "bc"])
def test_checkpoints_that_nobody_plays(option: str, method: str, pendulum: Path, cli: Cli, tmp_path: Path) -> None:
    words: list[str | Path] = [pendulum, "--method", method, *(option.split("=") if "=" in option else [option, "2"])]
    said = (option.partition("=")[0].replace("_", "-"), "with --evaluation.select last; add --evaluation.select online")
    assert_train_refused(cli, tmp_path, words, *said)


def test_an_even_kernel(pendulum: Path, cli: Cli, tmp_path: Path) -> None:
    words: list[str | Path] = [pendulum, "--preset", "mujoco", "--teacher.network.kernel-size", "4"]
    assert_train_refused(cli, tmp_path, words, "--teacher.network.kernel-size", "4", "odd")


def test_a_horizon_that_the_network_cannot_halve(pendulum: Path, cli: Cli, tmp_path: Path) -> None:
    assert_train_refused(cli, tmp_path, [pendulum, "--preset", "mujoco", "--horizon", "10"], "horizon", "10", "8 or 12")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train data.hdf5 --no-such-option 1", ["--no-such-option"]),
        ("train data.hdf5 --horizon many", ["--horizon", "many"]),
        ("train data.hdf5 --preset gpu", ["preset", "'gpu'", "did you mean 'cpu'"]),
        ("eval", ["RUN"]),
        ("fly", ["fly"]),
    ],
)
def test_words_that_are_no_command(words: str, said: list[str], cli: Cli) -> None:
    answer = cli(*words.split())
    assert answer.code == 2
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert all(word in answer.err for word in said), answer.err


# Run directories.


def test_out_is_a_file(pendulum: Path, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("mine")
    assert_refused(cli("train", pendulum, "--out", path, *options()), str(path))
    assert path.read_text() == "mine"


def test_out_holds_something_else(pendulum: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert_refused(cli("train", pendulum, "--out", tmp_path, *options()), str(tmp_path), "'thesis.tex'", "--out")
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"], "not even a lock"


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"--horizon": "8"}, "config.horizon"),
        ({"--seed": "1"}, "config.seed"),
        ({"--teacher.network.width": "64"}, "config.teacher.network.width"),
        ({"--student.reward-weight": "0.5"}, "config.student.reward_weight"),
        ({"--evaluation.episodes": "5"}, "config.evaluation.episodes"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(
    changed: dict[str, str], field: str, trained: Trained, cli: Cli
) -> None:
    before = (trained.directory / "config.json").read_bytes()
    answer = cli("train", trained.dataset, "--out", trained.directory, *options(**changed))
    assert_refused(answer, str(trained.directory / "config.json"), field, "--out")
    assert (trained.directory / "config.json").read_bytes() == before


def test_a_run_does_not_go_on_with_other_data(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "pendulum.hdf5"
    write_hdf5(path, pendulum_data(500))
    answer = cli("train", path, "--out", trained.directory, *options())
    assert_refused(answer, str(trained.directory / "config.json"), "dataset.")


def test_a_damaged_run(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.directory, run)
    for text in ('{"format": "ractd-run", "form', '{"some": "settings"}', "[]"):
        (run / "config.json").write_text(text)
        assert_refused(cli("train", trained.dataset, "--out", run, *options()), str(run / "config.json"))
        assert (run / "config.json").read_text() == text


# Teachers.


def test_a_teacher_that_is_not_there(pendulum: Path, cli: Cli, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (empty, tmp_path / "missing"):
        assert_train_refused(cli, tmp_path, [pendulum, "--teacher", path, *options()], str(path))


@pytest.mark.parametrize("stage", ["return", "teacher"])
def test_a_stage_that_another_run_is_to_give(stage: str, trained: Trained, cli: Cli, tmp_path: Path) -> None:
    words: list[str | Path] = [trained.dataset, "--teacher", trained.directory, "--only", stage, *options()]
    assert_train_refused(cli, tmp_path, words, f"--only {stage}", f"--teacher {trained.directory}")


def test_a_return_model_of_another_discount(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    words: list[str | Path] = [
        trained.dataset,
        "--teacher",
        trained.directory,
        "--return-model.gamma",
        "0.5",
        *options(),
    ]
    said = f"--return-model.gamma is 0.5, and the return model of {trained.directory} has learnt returns"
    assert_train_refused(cli, tmp_path, words, said, "expected the same: --return-model.gamma 0.9")


def test_a_teacher_whose_critic_is_of_another_kind(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    words: list[str | Path] = [trained.dataset, "--teacher", trained.directory, "--return-model.kind", "sarsa"]
    said = f"--return-model.kind is 'sarsa', and the critic of {trained.directory} is of kind 'return-to-go'"
    assert_train_refused(cli, tmp_path, [*words, *options()], said, "leave it out")


def test_a_teacher_for_a_student_from_scratch(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    words: list[str | Path] = [trained.dataset, "--preset", "following", "--teacher", trained.directory]
    said = f"--teacher {trained.directory}: the settings train a student from scratch"
    assert_train_refused(cli, tmp_path, words, said, "use --preset cpu, or leave --teacher out")


def test_a_teacher_of_other_dimensions(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    write_hdf5(path, make(lengths=(30, 30), obs=5, act=2))
    words: list[str | Path] = [path, "--teacher", trained.directory, *options()]
    assert_train_refused(cli, tmp_path, words, str(trained.directory), "4 observations to 1 actions", "5 and 2")


# Policies.


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--candidates", "0"], ["candidates", "0"]),
        (["--steps", "0"], ["steps", "0"]),
        (["--policy", "teacher", "--steps", "1"], ["steps", "1", "2 to"]),
        (["--execute", "0"], ["execute", "0"]),
        (["--execute", "5"], ["execute", "5", "4 actions"]),
        (["--episodes", "0"], ["episodes", "0"]),
        (["--seed", "-1"], ["--seed", "-1"]),
        (["--policy", "studnet"], ["'studnet'", "plain, plain-last, student, student-last, teacher"]),
        (["--env", "Hopper-v5"], ["Hopper-v5", "11", "4"]),
        (["--env", "Nothing-v0"], ["'Nothing-v0'"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_eval_refuses(words: list[str], named: list[str], trained: Trained, cli: Cli) -> None:
    before = sorted(trained.directory.rglob("*"))
    assert_refused(cli("eval", trained.directory, *words), *named)
    assert sorted(trained.directory.rglob("*")) == before


def test_eval_without_a_run(cli: Cli, tmp_path: Path) -> None:
    assert_refused(cli("eval", tmp_path / "nowhere"), str(tmp_path / "nowhere"))


def test_eval_without_an_environment(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    run = copied_policy(trained, tmp_path)
    edit(run, {"environment": None})
    assert_refused(cli("eval", run, "--episodes", "1"), str(run), "--env")


def copied_policy(trained: Trained, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    shutil.copytree(trained.directory / "policy" / "student", run / "policy" / "student")
    return run


def edit(run: Path, changes: dict[str, Any]) -> Path:
    """Change fields of a policy's description, in its sections where `changes` has some."""
    path = run / "policy" / "student" / "config.json"
    content = json.loads(path.read_text())
    for name, value in changes.items():
        content[name] = content[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format_version": 99}, ["99", "newer ractd"]),
        ({"format_version": "x"}, ["'x'", "damaged"]),
        ({"format": "other"}, ["not a ractd policy"]),
        ({"sampling": {"sampler": "euler"}}, ["'euler'", "consistency"]),
        ({"sequence": {"horizon": "four"}}, ["horizon", "'four'"]),
        ({"extra": 1}, ["'extra'"]),
        ({"sampling": {"extra": 1}}, ["'extra'"]),
        ({"sequence": {"observation_dim": 7}}, ["shape"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_policy_files_that_do_not_fit(
    changes: dict[str, Any], named: list[str], trained: Trained, cli: Cli, tmp_path: Path
) -> None:
    run = copied_policy(trained, tmp_path)
    path = edit(run, changes)
    assert_refused(cli("eval", run, "--episodes", "1"), str(path.parent), *named)


def test_a_pickle_is_no_policy(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "exploded",)

    run = copied_policy(trained, tmp_path)
    weights = run / "policy" / "student" / "policy.safetensors"
    weights.write_bytes(pickle.dumps(Bomb()))
    assert_refused(cli("eval", run, "--episodes", "1"), str(weights))
    weights.unlink()
    assert_refused(cli("eval", run, "--episodes", "1"), str(weights), "not found")
    assert not (tmp_path / "exploded").exists()


def test_errors_of_a_process_are_on_stderr_alone(command: Callable[..., Answer], tmp_path: Path) -> None:
    answer = command("train", tmp_path / "missing.hdf5", "--out", tmp_path / "run")
    assert_refused(answer, "missing.hdf5")
    assert answer.out == ""
    assert not (tmp_path / "run").exists()


def test_brackets_in_names_are_no_markup(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "[red]data.hdf5"
    write_hdf5(path, make(lengths=(30, 30)))
    assert_refused(cli("data", "inspect", tmp_path / "[red]missing.hdf5"), "[red]missing.hdf5")
    shown = cli("data", "inspect", path)
    assert shown.code == 0, shown.err
    assert "[red]data" in shown.out.splitlines()[0]
    valid = cli("data", "validate", path)
    assert f"{path}: 0 errors" in valid.out
