"""The same things from Python: load a dataset, train, act."""

from __future__ import annotations

import pydoc
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Trained, assert_same_tensors, environment, pendulum_data
from dataset_factory import make

import ractd
from ractd.data.returns import resolved_penalty
from ractd.methods.ractd_settings import PRESETS, Config
from ractd.networks.mlp import MLP
from ractd.policies.files import describe_policy
from ractd.runs.directory import read_run
from ractd.runs.rows import read_result
from ractd.settings import Optimization, to_json

pytestmark = pytest.mark.usefixtures("short_scoring")


def small(steps: int = 50) -> Config:
    """A configuration that trains in a second or two."""
    config = PRESETS["cpu"]
    optimization = Optimization(steps=steps, batch_size=16)
    return replace(
        config,
        diffusion=replace(config.diffusion, bins=6),
        return_model=replace(config.return_model, layers=(16,), optimization=optimization),
        teacher=replace(config.teacher, network=MLP(width=16, blocks=1), optimization=optimization),
        student=replace(config.student, optimization=optimization),
    )


def test_importing_ractd_imports_no_torch() -> None:
    code = (
        "import sys, ractd, ractd.settings, ractd.cli\n"
        "assert ractd.__version__ and not {'torch', 'h5py', 'numpy'} & sys.modules.keys(), sys.modules.keys()\n"
        "ractd.load_dataset\n"
        "assert 'torch' not in sys.modules, 'loading data takes no torch'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there() -> None:
    assert dir(ractd) == sorted(ractd.__all__)
    for name in ractd.__all__:
        assert getattr(ractd, name) is not None
    helped = re.sub(".\b", "", pydoc.render_doc(ractd))
    for name in ("class OfflineDataset", "class Policy", "class Result", "load_dataset(", "settings_of(", "    train("):
        assert name in helped
    with pytest.raises(AttributeError, match="'ractd' has no attribute 'trian'"):
        _ = ractd.trian


def test_load_train_act(tmp_path: Path, pendulum: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = ractd.load_dataset(pendulum)
    assert (dataset.observation_dim, dataset.action_dim) == (4, 1)
    result = ractd.train(
        replace(dataset, env_id=None), out=tmp_path / "run", config=small(), plain=False, checkpoint_seconds=1e9
    )
    assert result.complete
    assert "student: step 50 of 50, loss " in capsys.readouterr().out, "progress is shown"
    assert result.row("RACTD").nfe == 1
    policy = ractd.Policy.load(tmp_path / "run")
    assert describe_policy(policy) == describe_policy(result.policy("student"))
    assert policy.act(dataset.observations[0]).shape == (1,)
    assert policy.act(dataset.observations[:7]).shape == (7, 1)
    chunk = policy.act_chunk(dataset.observations[:7])
    assert chunk.shape == (7, policy.sequence.horizon, 1)
    assert chunk.dtype == np.float32
    low, high = dataset.actions.min(), dataset.actions.max()
    assert (chunk >= low).all()
    assert (chunk <= high).all()


def test_settings_by_their_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps: dict[str, Any] = {"bc.optimization.steps": 5, "bc.network.layers": [8, 8]}
    result = ractd.train(make(), out=tmp_path / "run", method="bc", preset="best-tenth", seed=3, quiet=True, **steps)
    assert capsys.readouterr().out == ""
    expected = ractd.settings_of("bc", "best-tenth", seed=3, **steps)
    assert read_run(tmp_path / "run")["config"] == to_json(expected)
    bc = replace(expected.bc, optimization=replace(expected.bc.optimization, steps=5))
    assert replace(expected, bc=bc) == expected
    assert (expected.bc.network.layers, expected.bc.share, expected.seed) == ((8, 8), 0.1, 3)
    again = ractd.train(make(), out=tmp_path / "run", method="bc", config=expected, quiet=True)
    assert again.rows == result.rows
    other: dict[str, Any] = {"teacher.network.down_dims": (8,), "teacher.network.kind": "unet"}
    unet = ractd.settings_of(**other)
    assert (unet.teacher.network.kind, unet.teacher.network.down_dims) == ("unet", (8,))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "bc", "student.optimization.steps": 5}, "but of ractd; did you mean 'bc.optimization.steps'?"),
        (
            {"student.optimisation.steps": 5},
            "'student.optimisation.steps' .*; did you mean 'student.optimization.steps'?",
        ),
        ({"presett": "demo"}, "'presett' is no option of method 'ractd'; did you mean 'preset'?"),
        ({"student.optimization.steps": 0}, "student.optimization.steps is 0, expected a whole number from 1 to"),
        ({"method": "bc", "preset": "demo"}, "unknown preset of bc 'demo', .*; it is one of ractd"),
        ({"preset": "demo", "config": PRESETS["cpu"]}, "preset is 'demo', and config is given too"),
        ({"method": "bc", "config": PRESETS["cpu"]}, "config is a Config, .*as ractd.settings_of\\('bc'\\) returns it"),
        (
            {"evaluation.checkpoints": 2},
            "'evaluation.checkpoints': no checkpoint is played with 'evaluation.select' last; ",
        ),
        (
            {"teacher.loss": "square"},
            "'teacher.loss': no teacher is trained; name a preset that has one, as cpu, or leave",
        ),
        ({"sequence.points": 3}, "the preset 'following' has no such option; .* as maze2d-umaze"),
        ({"teacher.network.kind": "unett"}, "teacher.network.kind: unknown network 'unett'.*; did you mean 'unet'?"),
    ],
)
def test_a_wrong_setting_is_answered_with_the_nearest(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ractd.RactdError, match=said):
        ractd.train(make(), out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_result_prints_as_its_table(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = read_result(trained.directory)
    assert result is not None
    lines = str(result).splitlines()
    assert max(map(len, lines)) <= 80
    assert repr(result) == str(result)
    page = result._repr_html_()
    names = re.findall(r"<tr[^>]*><th>([^<]+)</th>", page)
    assert names[1:] == ["behaviour data", *(row.variant for row in result.rows)]
    words = {word for line in lines for word in line.replace("│", " ").split()}
    assert {word for name in names for word in name.split()} <= words, "no word is broken"
    assert str(ractd.Result(Path("runs/x"), {})) == "runs/x: no result yet"


def test_arrays_of_ones_own(tmp_path: Path) -> None:
    data = make(lengths=(20, 30, 25), obs=5, act=3)
    again = ractd.OfflineDataset("mine", data.observations, data.actions, data.rewards, data.terminals, data.timeouts)
    result = ractd.train(again, out=tmp_path / "run", config=small(), only="teacher")
    assert result.content == {}, "one stage has no result yet"
    assert not result.complete
    finished = ractd.train(again, out=tmp_path / "run", config=small())
    assert finished.complete
    assert {row.variant for row in finished.rows} >= {"teacher", "plain student", "RACTD", "RACTD, 4 steps"}


def test_rewards_all_alike_are_no_collapse(tmp_path: Path) -> None:
    data = make(lengths=(30, 30), terminal=[False, False])
    data.rewards[:] = 0
    result = ractd.train(data, out=tmp_path / "run", config=small(), plain=False)
    assert "collapse" not in result.content["stages"]["student"]
    assert "collapsing" not in (tmp_path / "run" / "log.txt").read_text()


def test_same_seed_same_actions_and_other_seed_others(trained: Trained) -> None:
    observations = pendulum_data(20).observations
    policy = ractd.Policy.load(trained.directory)
    first, second = policy.act(observations), policy.act(observations)
    assert not np.array_equal(first, second), "noise goes on"
    np.testing.assert_array_equal(policy.reset(0).act(observations), first)
    np.testing.assert_array_equal(ractd.Policy.load(trained.directory).act(observations), first)
    assert not np.array_equal(policy.reset(1).act(observations), first)


def test_save_and_load_again(trained: Trained, tmp_path: Path) -> None:
    policy = ractd.Policy.load(trained.directory / "policy" / "teacher")
    policy.save(tmp_path / "copy")
    weights = "policy.safetensors"
    assert_same_tensors(tmp_path / "copy" / weights, trained.directory / "policy" / "teacher" / weights)
    observation = pendulum_data(3).observations[0]
    np.testing.assert_array_equal(ractd.Policy.load(tmp_path / "copy").act(observation), policy.act(observation))


def test_errors_are_ractd_errors(trained: Trained, tmp_path: Path) -> None:
    policy = ractd.Policy.load(trained.directory)
    with pytest.raises(ractd.RactdError, match=r"shape \[3\], expected \[4\]"):
        policy.act(np.zeros(3))
    with pytest.raises(ractd.RactdError, match="a dict of state, image, expected an array of 4 numbers"):
        policy.act({"state": np.zeros(4), "image": np.zeros(9)})  # type: ignore[arg-type]
    with pytest.raises(ractd.RactdError, match="no array of numbers, expected an array of 4"):
        policy.act([[1, 2], [3]])  # type: ignore[arg-type]
    with pytest.raises(ractd.RactdError, match="NaN"):
        policy.act(np.array([0, np.nan, 0, 0]))
    with pytest.raises(ractd.RactdError, match="no policy here"):
        ractd.Policy.load(tmp_path)
    broken = make()
    broken.observations[7, 1] = np.nan
    with pytest.raises(ractd.RactdError, match=r"dataset 'toy': field 'observations' .*row 7, dimension 1 is NaN"):
        ractd.train(broken, out=tmp_path / "run", config=small())
    teacher = small().teacher
    bad = replace(small(), teacher=replace(teacher, optimization=replace(teacher.optimization, batch_size=0)))
    with pytest.raises(ractd.RactdError, match="batch-size"):
        ractd.train(make(), out=tmp_path / "run", config=bad)
    assert not (tmp_path / "run").exists()


def test_estimated_returns_are_in_the_data_s_units(trained: Trained) -> None:
    data = ractd.load_dataset(trained.dataset)
    returns = ractd.data.return_to_go(data, 0.99, resolved_penalty(data, None))
    estimates = ractd.Policy.load(trained.directory).estimate_return(data.observations, data.actions)
    assert estimates.shape == (data.num_transitions,)
    assert np.abs(estimates - returns).mean() < np.abs(returns - returns.mean()).mean()
