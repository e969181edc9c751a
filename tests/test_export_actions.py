"""The actions of an exported policy: bounds, constants, limits of what it sees, NaN; one export serves all questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from export_factory import TINY_MLP, TINY_UNET, assert_equal, exported, held, limited, make_policy, observations

from ractd.errors import RactdError
from ractd.networks import Network
from ractd.networks.mlp import MLP
from ractd.policies import Policy
from ractd_runtime import Policy as Deployed

CONSTANT = np.float32(0.04)
CASES: list[tuple[Network, int, str, str]] = [
    (TINY_MLP, 1, "onnx", "fp32"),
    (TINY_UNET, 1, "onnx", "fp32"),
    (TINY_MLP, 1, "openvino", "fp32"),
    (TINY_MLP, 1, "onnx", "fp16"),
    (MLP(width=128, blocks=1), 1, "onnx", "int8"),
]
SLOW: list[tuple[Network, int, str, str]] = [
    (TINY_MLP, 2, "onnx", "fp32"),
    (TINY_MLP, 2, "openvino", "fp32"),
    (TINY_UNET, 1, "openvino", "fp32"),
]


@dataclass(frozen=True)
class Export:
    """A policy that looks back one step, holds its second action constant and limits its first observation; its graph."""

    policy: Policy
    deployed: Deployed
    precision: str


@pytest.fixture(
    scope="module",
    params=[*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)],
    ids=lambda case: f"{type(case[0]).__name__}-{case[1]}-{case[2]}-{case[3]}",
)
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Export:
    network, steps, format, precision = request.param
    if format == "openvino":
        pytest.importorskip("openvino")
    policy = limited(held(make_policy(network, steps=steps, history=2)))
    options: dict[str, Any] = {"format": format, "precision": precision}
    done = exported(policy, tmp_path_factory.mktemp("export"), **options)
    return Export(policy, Deployed.load(done.directory), precision)


def test_they_are_pytorchs(export: Export) -> None:
    assert_equal(export.policy, export.deployed, {"fp32": 1e-5, "fp16": 0.02, "int8": 0.5}[export.precision])


def test_they_never_leave_their_bounds(export: Export) -> None:
    """Noise far out of the ordinary asks for actions far out of their range."""
    normalizer = export.policy.sequence.normalizer
    low, high = normalizer.action_low.numpy(), normalizer.action_high.numpy()
    actions = export.deployed.sample(observations(export.policy, 64).numpy(), 1000 * export.deployed.draw_noise(64))
    rounding = 1e-6 * (high - low)
    assert ((low - rounding <= actions) & (actions <= high + rounding)).all()
    assert (np.isclose(actions, low, rtol=0, atol=1e-6))[..., 0].any()
    assert (np.isclose(actions, high, rtol=0, atol=1e-6))[..., 0].any()


def test_nan_gets_through(export: Export) -> None:
    """What is NaN in the graph must not be clipped into an action, which a robot would execute."""
    noise = export.deployed.draw_noise(64)
    noise[3] = np.nan
    with pytest.raises(RactdError, match="NaN"):
        export.deployed.sample(observations(export.policy, 64).numpy(), noise)


def test_a_constant_one_comes_out_to_the_bit(export: Export) -> None:
    actions = export.deployed.sample(observations(export.policy, 64).numpy(), export.deployed.draw_noise(64))
    assert (actions[..., 1] == CONSTANT).all()
    assert np.unique(actions[..., 0]).size > 30
    bounds = export.deployed.contract.content["outputs"]["actions"]
    assert bounds["low"][1] == bounds["high"][1] == CONSTANT


def test_an_outlying_observation_is_seen_as_the_end_of_the_range(export: Export) -> None:
    seen, noise = observations(export.policy, 8).numpy(), export.deployed.draw_noise(8)
    seen[:, 0, 0] = 1e9
    ends = seen.copy()
    ends[:, 0, 0] = 2.5
    assert (export.deployed.sample(seen, noise) == export.deployed.sample(ends, noise)).all()
