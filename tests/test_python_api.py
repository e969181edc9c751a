"""The same things from Python: load a dataset, train, act."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Trained, assert_same_tensors, environment, pendulum_data
from dataset_factory import make

import ractd
from ractd.data.returns import resolved_penalty
from ractd.methods.ractd_settings import PRESETS, Config
from ractd.networks.mlp import MLP
from ractd.policies.files import describe_policy
from ractd.settings import Optimization

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
    for name in ractd.__all__:
        assert getattr(ractd, name) is not None
    with pytest.raises(AttributeError, match="'ractd' has no attribute 'trian'"):
        _ = ractd.trian


def test_load_train_act(tmp_path: Path, pendulum: Path) -> None:
    dataset = ractd.load_dataset(pendulum)
    assert (dataset.observation_dim, dataset.action_dim) == (4, 1)
    result = ractd.train(
        replace(dataset, env_id=None), out=tmp_path / "run", config=small(), plain=False, checkpoint_seconds=1e9
    )
    assert result.complete
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
