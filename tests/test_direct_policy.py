"""A policy that draws nothing and has no critic: acts, is saved, exported and served, and says what it can't do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from export_factory import OBSERVATIONS, assert_equal, logs, observations
from parts_factory import actions_of, policy_of, sampling_of

from ractd.errors import RactdError
from ractd.export import export_policy
from ractd.export.formats import Format
from ractd.export.verify import evaluate_both
from ractd.networks.actor import Actor
from ractd.policies import Policy
from ractd.serve.served import checked, torch_policy
from ractd_runtime import Policy as Deployed

pytest.importorskip("onnxscript")


def direct(history: int = 1) -> Policy:
    """A deterministic actor with random weights."""
    torch.manual_seed(0)
    data = logs()
    return policy_of(actions_of(data, 4, history), sampling_of("direct"), Actor(layers=(16, 16)), 0.3)


def test_the_seed_changes_nothing_and_a_file_keeps_it(tmp_path: Path) -> None:
    policy = direct()
    seen = observations(policy, 5)[:, 0].numpy()
    actions = policy.reset(0).act_chunk(seen)
    np.testing.assert_array_equal(policy.reset(1).act_chunk(seen), actions)
    np.testing.assert_array_equal(Policy.load(policy.save(tmp_path)).act_chunk(seen), actions)
    acting = policy.acting()
    assert acting.noise.at(np.arange(5), np.zeros(5, np.int64)).shape == (0, 5, 4, 2)


@pytest.mark.parametrize("format", ["onnx", "openvino", "pt2"])
@pytest.mark.parametrize("history", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_its_graph_takes_no_noise_and_is_the_policy(tmp_path: Path, format: Format, history: int) -> None:
    policy = direct(history)
    exported = export_policy(policy.save(tmp_path / "policy"), tmp_path / "out", format=format)
    assert exported.contract["inputs"].keys() == {"observation"}
    assert exported.difference.largest <= 1e-5
    if format != "pt2":
        deployed = Deployed.load(tmp_path / "out")
        assert_equal(policy, deployed)
        seen = observations(policy, 3).numpy().reshape(3, *deployed.contract.observation_shape)
        np.testing.assert_allclose(deployed.act_chunk(seen), policy.act_chunk(seen), rtol=0, atol=1e-5)


def test_both_are_scored_in_an_environment() -> None:
    """With PyTorch itself in place of a graph."""
    from test_envs_context import Ledger

    policy = direct()

    def sample(seen: np.ndarray, noise: np.ndarray) -> np.ndarray:
        assert noise.shape == (len(seen), 0, 1, 4, 2)
        return policy.sample(torch.from_numpy(seen), torch.empty(0)).numpy()

    scores = evaluate_both(policy, sample, "by hand", 5, 2, lambda *progress: None, lambda _, n, seed: Ledger(n, seed))
    np.testing.assert_array_equal(scores[0].returns, scores[1].returns)


def test_the_server_samples_it(tmp_path: Path) -> None:
    policy = direct(history=2)
    served = checked(torch_policy(policy.save(tmp_path), "cpu"), None, 8)
    assert served.noise_shape == (0, 1, 4, 2)
    seen = observations(policy, 6).numpy()
    np.testing.assert_allclose(
        served.sample(seen, np.empty((6, *served.noise_shape), np.float32), None), policy.act_chunk(seen), atol=1e-6
    )


def test_candidates_and_estimates_are_refused_in_a_sentence() -> None:
    with pytest.raises(RactdError, match="candidates is 4, expected 1: the mean sampler draws no noise"):
        direct().configured(candidates=4)
    with pytest.raises(RactdError, match="there is no estimate of returns: the policy has no critic"):
        direct().estimate_return(np.zeros((1, OBSERVATIONS)), np.zeros((1, 2)))
