"""Constants, outliers and the robot's own range, from the data to the actions of an exported policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_factory import make
from export_factory import TINY_UNET, held, limited, make_policy, observations
from parts_factory import actions_of, return_model, states_of
from rich.console import Console

import ractd
from ractd.commands.train import settings_of
from ractd.data import OfflineDataset, write_hdf5
from ractd.data.ranges import within
from ractd.diffusion.ctm import bound_excess
from ractd.diffusion.settings import DDPM
from ractd.errors import RactdError
from ractd.export import export_policy
from ractd.methods.ractd_settings import PRESETS, Config
from ractd.networks.mlp import MLP
from ractd.networks.tensors import read_tensors
from ractd.policies import Policy
from ractd.policies.files import WEIGHTS
from ractd.sequences.normalizer import Normalizer, PlanNormalizer
from ractd.settings import Optimization
from ractd_runtime import Policy as Deployed

pytestmark = pytest.mark.usefixtures("short_scoring")
CONSTANT = np.float32(0.04)


# --- constant actions ---------------------------------------------------------------------------------------------

POLICIES: dict[str, dict[str, Any]] = {
    "one step": {},
    "four steps": {"steps": 4},
    "candidates": {"candidates": 8},
    "U-Net": {"network": TINY_UNET},
    "teacher": {"jumps": False, "steps": 6},
    "DDPM teacher": {"jumps": False, "ddpm": DDPM(timesteps=10), "steps": 5},
}


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("value", [0.04, -3e-7, 1e6, 0.0])
def test_a_constant_action_comes_out_to_the_bit(kind: str, value: float, tmp_path: Path) -> None:
    policy = held(make_policy(**POLICIES[kind]), value)
    again = Policy.load(policy.save(tmp_path))
    actions = again.reset(1).act_chunk(observations(policy, 64).squeeze(1).numpy())
    assert (actions[..., 1] == np.float32(value)).all()
    assert np.unique(actions[..., 0]).size > 30


def test_scaled_constants_are_zero_and_other_actions_are_what_they_were() -> None:
    data = make([300], act=3)
    data.actions[:, 1] = CONSTANT
    normalizer = Normalizer.of(data.statistics())
    actions = torch.from_numpy(data.actions)
    x = normalizer.action(actions)
    assert (x[:, 1] == 0).all()
    low, high = actions.amin(0), actions.amax(0)
    plain = 2 * (actions - low) / (high - low) - 1
    assert x[:, [0, 2]].equal(plain[:, [0, 2]])
    assert (normalizer.raw_action(torch.randn(300, 3))[:, 1] == float(CONSTANT)).all()


def test_what_a_network_makes_of_a_constant_action_is_not_judged() -> None:
    data = make([300], act=3)
    data.actions[:, 1] = CONSTANT
    condition, x = torch.zeros(16, 3), torch.randn(16, 4, 3, requires_grad=True)
    entries = actions_of(data).decode(x, condition)
    value = return_model(3, 3).value(condition, entries)
    (value + bound_excess(entries)).sum().backward()
    assert x.grad is not None
    assert (x.grad[..., 1] == 0).all()
    assert (x.grad[:, 0, [0, 2]] != 0).any()
    assert actions_of(make([300], act=3)).decode(x, condition).equal(x)


def test_a_file_of_before_with_a_range_around_its_constant_acts_as_before(tmp_path: Path) -> None:
    policy = make_policy()
    policy.sequence.normalizer.action_low[1], policy.sequence.normalizer.action_high[1] = -0.96, 1.04
    tensors, _ = read_tensors(policy.save(tmp_path) / WEIGHTS)
    assert {name for name in tensors if name.startswith("sequence.")} == {
        f"sequence.normalizer.{name}" for name in ("observation_mean", "observation_std", "action_low", "action_high")
    }, "a policy of sound data has the tensors that it always had"
    seen, noise = observations(policy, 16), policy.reset(0).draw_noise(16)
    x = policy.make_sequence(policy.sequence.condition(seen), noise)
    expected = -0.96 + (x[..., 1].clamp(-1, 1) + 1)
    torch.testing.assert_close(Policy.load(tmp_path).sample(seen, noise)[..., 1], expected, rtol=0, atol=1e-6)


# --- outliers ----------------------------------------------------------------------------------------------------


def test_an_outlying_observation_is_seen_as_the_end_of_the_range(tmp_path: Path) -> None:
    policy = limited(make_policy())
    policy = Policy.load(policy.save(tmp_path))
    seen = observations(policy, 8).squeeze(1).numpy()
    seen[:4, 0], seen[4:, 0] = 1e9, -1e9
    ends = seen.copy()
    ends[:4, 0], ends[4:, 0] = 2.5, -0.5
    assert (policy.reset(0).act_chunk(seen) == policy.reset(0).act_chunk(ends)).all()
    seen[:, 0] = 1.0
    policy.sequence.normalizer.limit(None, None)
    without = policy.reset(0).act_chunk(seen)
    assert (limited(policy).reset(0).act_chunk(seen) == without).all()


def test_training_sees_outliers_at_the_ends_of_the_ranges() -> None:
    data = make([2000])
    low, high = data.actions.min(0), data.actions.max(0)
    data.observations[[5, 9], 1], data.actions[7, 0] = [1e9, -1e9], -1e4
    samples = actions_of(data).samples(data)
    condition, x = samples.gather({"index": torch.arange(2000)})
    assert condition.abs().max() < 10
    assert x.abs().max() <= 1
    assert x[7, 0, 0] == -1
    np.testing.assert_allclose(
        samples.sequence.normalizer.raw_action(x)[100:1000, 0], data.actions[100:1000], atol=1e-6
    )
    assert samples.sequence.normalizer.action_low.numpy().tolist() == pytest.approx(low.tolist(), abs=1e-2)
    assert samples.sequence.normalizer.action_high.numpy().tolist() == pytest.approx(high.tolist(), abs=1e-2)


@pytest.mark.parametrize("points", [0, 4])
def test_a_planner_sees_outliers_at_the_ends_of_the_ranges(points: int) -> None:
    data = make([500, 500], obs=4)
    data.observations[[5, 700], 2], data.actions[7, 0] = [1e9, -1e9], 1e4
    plans = states_of(data, 12, points).samples(data)
    condition, x = plans.gather(plans.draw(2000, torch.Generator().manual_seed(0)))
    assert condition.abs().max() < 10
    assert plans.sequence.decode(x, condition).abs().max() < (1.0001 if not points else 3)
    normalizer = plans.sequence.normalizer
    assert normalizer.state(plans.windows.observations).abs().max() <= 1
    assert normalizer.goal(plans.windows.observations).abs().max() < 10
    assert normalizer.action(torch.from_numpy(data.actions)).abs().max() <= 1


def small(**changes: Any) -> Config:
    """Settings that train in a second or two."""
    config, optimization = PRESETS["cpu"], Optimization(steps=60, batch_size=32)
    return replace(
        config,
        diffusion=replace(config.diffusion, bins=6),
        return_model=replace(config.return_model, layers=(16,), optimization=optimization),
        teacher=replace(config.teacher, network=MLP(width=16, blocks=1), optimization=optimization),
        student=replace(config.student, optimization=optimization),
        **changes,
    )


def logs(rows: int = 2000) -> OfflineDataset:
    """Logs without an environment: the third action is constant."""
    data = make([50] * (rows // 50), act=3, terminal=[False] * (rows // 50))
    data.actions[:, 2] = CONSTANT
    return data


@pytest.mark.slow
def test_a_policy_trained_on_a_constant_and_outliers(tmp_path: Path) -> None:
    data = logs()
    sound = data.statistics()
    broken = replace(data, observations=data.observations.copy(), actions=data.actions.copy())
    broken.observations[[77, 1200], 1] = 1e9
    broken.actions[[301, 1400], 0] = 1e4, -1e4
    write_hdf5(tmp_path / "logs.hdf5", broken)
    result = ractd.train(str(tmp_path / "logs.hdf5"), out=tmp_path / "run", config=small(), plain=False)
    estimate = result.row("RACTD").offline
    assert all(np.isfinite(value) and abs(value) < 1e3 for value in estimate.values())
    policy = result.policy()
    actions = policy.act_chunk(np.repeat(data.observations[:500], 2, 0))
    assert (actions[..., 2] == CONSTANT).all()
    assert (actions[..., :2] >= sound.action_low[:2]).all()
    assert (actions[..., :2] <= sound.action_high[:2] + 1e-6).all()
    seen = data.observations[:1].copy()
    seen[0, 1] = 1e9
    assert np.isfinite(policy.act(seen)).all()

    export_policy(tmp_path / "run", tmp_path / "out")
    contract = Deployed.load(tmp_path / "out").contract.content
    bounds = contract["outputs"]["actions"]
    assert max(np.abs(bounds["low"] + bounds["high"])) <= 1
    assert bounds["low"][2] == bounds["high"][2] == CONSTANT
    assert bounds["low_and_high_are"] == "smallest and largest of the training data, its 2 outliers left out"
    seen_range = contract["inputs"]["observation"]
    assert np.abs(seen_range["high"]).max() < 10
    assert seen_range["low_and_high_are"] == "smallest and largest of the training data, its 2 outliers left out"


# --- the robot's own range ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "--action-range is empty, expected LOW HIGH"),
        ((1.0,), "--action-range is 1, expected LOW HIGH"),
        ((-1.0, 1.0, 0.0), "expected LOW HIGH"),
        ((1.0, -1.0), "--action-range is 1 -1, expected LOW HIGH, once or for each dimension, with LOW below HIGH"),
        ((0.0, 1.0, 2.0, 2.0), "with LOW below HIGH"),
        ((-1.0, float("inf")), "--action-range is inf"),
        ((float("nan"), 1.0), "--action-range is nan"),
        ((-1.0, 1.0, -1.0, 1.0), r"--action-range has 4 numbers, expected 2 \(LOW HIGH for every dimension\) or 6"),
    ],
)
def test_a_range_that_is_none_is_refused_before_anything_is_written(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RactdError, match=message):
        ractd.train(logs(), out=tmp_path / "run", config=small(action_range=given))
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_a_range_for_all_dimensions_or_for_each() -> None:
    assert settings_of(["train", "x.hdf5", "--action-range", "-1", "1", "--seed", "3"]).action_range == (-1, 1)
    assert settings_of(["train", "x.hdf5", "--action-range", "-1", "1", "0", ".5"]).action_range == (-1, 1, 0, 0.5)
    assert settings_of(["train", "x.hdf5"]).action_range is None


def test_a_given_range_replaces_the_datas_and_leaves_constants() -> None:
    found = logs().statistics()
    whole, each = within(found, (-2, 3)), within(found, (-2, 3, 0, 0.5, -1, 0.01))
    assert within(found, None) is found
    assert whole.action_low.tolist() == [-2, -2, CONSTANT]
    assert whole.action_high.tolist() == [3, 3, CONSTANT]
    assert each.action_low.tolist() == [-2, 0, np.float32(0.01)]
    assert each.action_high.tolist() == [3, 0.5, np.float32(0.01)]
    assert whole.action_low.dtype == whole.action_high.dtype == np.float32
    assert whole.observation_mean is found.observation_mean


def test_a_run_with_the_robots_own_range(tmp_path: Path) -> None:
    data = logs()
    data.actions[[30, 60], 0] = 1e4
    said = Console(record=True, width=400)
    config = small(action_range=(-0.5, 0.25, -2.0, 2.0, -1.0, 1.0))
    result = ractd.train(data, out=tmp_path / "run", config=config, plain=False, console=said)
    outside = np.flatnonzero((data.actions[:, 0] < -0.5) | (data.actions[:, 0] > 0.25))
    text = said.export_text()
    assert f"actions outside --action-range (dimension 0: {len(outside):,} rows, the first {outside[0]}, with" in text
    assert "they are clipped to it" in text
    policy = result.policy()
    assert policy.sequence.normalizer.action_low.tolist() == [-0.5, -2, CONSTANT]
    assert policy.sequence.normalizer.action_high.tolist() == [0.25, 2, CONSTANT]
    actions = policy.act_chunk(np.repeat(data.observations[:500], 2, 0))
    assert (actions[..., 0] >= -0.5).all()
    assert (actions[..., 0] <= 0.25).all()
    assert policy.provenance["scaling"]["action_range"] == [-0.5, 0.25, -2.0, 2.0, -1.0, 1.0]

    export_policy(tmp_path / "run", tmp_path / "out")
    bounds = Deployed.load(tmp_path / "out").contract.content["outputs"]["actions"]
    assert bounds["low"] == [-0.5, -2, float(CONSTANT)]
    assert bounds["high"] == [0.25, 2, float(CONSTANT)]
    assert bounds["low_and_high_are"].startswith("given with --action-range")

    with pytest.raises(RactdError, match=r"config\.action_range is .* there and .* now; go on with the old setting"):
        ractd.train(data, out=tmp_path / "run", config=replace(config, action_range=(-1.0, 1.0)), plain=False)
    with pytest.raises(
        RactdError, match=r"--action-range can't be given with --teacher .*: the range is the teacher's"
    ):
        ractd.train(
            data, out=tmp_path / "b", config=replace(config, action_range=(-1.0, 1.0)), teacher=tmp_path / "run"
        )
    of_teacher = ractd.train(data, out=tmp_path / "c", config=small(), teacher=tmp_path / "run", plain=False)
    assert of_teacher.policy().sequence.normalizer.action_high.tolist() == [0.25, 2, CONSTANT]
    assert of_teacher.policy().provenance["scaling"]["action_range"] == [-0.5, 0.25, -2.0, 2.0, -1.0, 1.0]


def test_a_planners_actions_have_the_given_range() -> None:
    data = make([500, 500], obs=4)
    normalizer = PlanNormalizer.of_states(within(data.statistics(), (-3.0, 2.0)), 12, 4)
    assert normalizer.raw_action(torch.tensor([-9.0, 9.0])).tolist() == [-3, 2]
    assert normalizer.state_low.equal(torch.from_numpy(data.observations.min(0)))
