"""Folding: a policy whose times are folded into its weights acts the same, faster, and says when it has to be folded anew."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_policy import OBS, A, make, observations, written_out
from torch import Tensor, nn

from ractd.envs import Context
from ractd.export.graph import PolicyGraph, batch_first, graph_of
from ractd.networks.mlp import MLP
from ractd.networks.unet import UNet
from ractd.policies import Policy
from ractd.policies.policy import FEW

NETWORKS = pytest.mark.parametrize(
    "network", [MLP(width=16, blocks=1, embed_dim=8), UNet((16, 32), 16)], ids=["mlp", "unet"]
)


def acted(policy: Policy) -> np.ndarray:
    return policy.reset(3).act_chunk(observations(5, OBS))


def by_the_network(policy: Policy) -> np.ndarray:
    """What the policy's network says at the moment, evaluation by evaluation."""
    return written_out(policy, observations(5, OBS), policy.reset(3).draw_noise(5))


def close(found: np.ndarray, expected: np.ndarray, why: str = "") -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6, err_msg=why)


def calls(policy: Policy) -> list[int]:
    """Of the whole network, which a folded policy never calls."""
    called: list[int] = []
    policy.network.register_forward_hook(lambda *_: called.append(1))
    return called


@NETWORKS
@pytest.mark.parametrize("sampler", ["consistency", "central", "jumps"])
@pytest.mark.parametrize("steps", [1, 3, FEW + 1])
def test_a_folded_policy_is_the_policy(network: MLP | UNet, sampler: str, steps: int) -> None:
    policy = make(network=network, sampler=sampler, steps=steps)
    expected = by_the_network(policy)
    assert expected.std() > 0.1
    close(acted(policy), expected)
    called = calls(policy.fold())
    for _ in range(2):
        close(acted(policy), expected)
    assert len(called) == (0 if steps <= FEW else 2 * steps)


def test_what_is_loaded_is_folded_and_so_is_all_that_is_made_of_it(tmp_path: Path) -> None:
    policy = Policy.load(make().save(tmp_path / "saved"))
    called = calls(policy)
    acted(policy)
    policy.act(np.zeros(OBS))
    policy.reset(1).acting().in_episodes(
        np.zeros((2, 1, OBS), np.float32), Context(np.arange(2), np.zeros(2, np.int64))
    )
    policy.estimate_return(np.zeros((2, OBS)), np.zeros((2, A)))
    acted(policy.configured(candidates=4))
    acted(policy.configured(steps=2))
    acted(policy.to("cpu").eval().train(False))
    acted(copy.deepcopy(policy))
    policy.save(tmp_path / "again")
    graph_of(policy)
    assert not called


def test_a_policy_that_is_built_acts_with_the_weights_of_the_moment() -> None:
    policy = make()
    called, before = calls(policy), acted(policy)
    assert called
    change(policy)
    assert np.abs(acted(policy) - before).max() > 1e-2
    close(acted(policy), by_the_network(policy))
    close(acted(policy.configured(steps=2)), by_the_network(policy.configured(steps=2)))


def change(policy: Policy) -> None:
    with torch.no_grad():
        for weight in policy.network.parameters():
            weight.mul_(1.3)


MADE: dict[str, Callable[[Path], Policy]] = {
    "folded": lambda tmp_path: make().fold(),
    "loaded": lambda tmp_path: Policy.load(make().save(tmp_path / "saved")),
    "configured": lambda tmp_path: make().fold().configured(steps=2),
    "copied": lambda tmp_path: copy.deepcopy(make().fold()),
}


@pytest.mark.parametrize("made", MADE)
def test_new_weights_act_once_they_are_folded(made: str, tmp_path: Path) -> None:
    policy = MADE[made](tmp_path)
    before = acted(policy)
    change(policy)
    close(acted(policy.fold()), by_the_network(policy))
    assert np.abs(acted(policy) - before).max() > 1e-2


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_policy_of_another_type_is_folded_anew(made: str, dtype: torch.dtype, tmp_path: Path) -> None:
    policy = MADE[made](tmp_path)
    before = acted(policy)
    after = acted(policy.to(dtype).to(torch.float32))
    close(after, by_the_network(policy))
    assert (np.abs(after - before).max() > 1e-5) == (dtype == torch.bfloat16)


@pytest.mark.parametrize("assign", [True, False])
def test_loaded_weights_are_folded(assign: bool) -> None:
    policy, other = make().fold(), make(seed=7)
    before = acted(policy)
    policy.load_state_dict(other.state_dict(), assign=assign)
    assert np.abs(acted(policy) - before).max() > 1e-2
    close(acted(policy), by_the_network(policy))


def test_a_copy_is_its_own() -> None:
    policy = make().fold()
    twin, before = copy.deepcopy(policy), acted(policy)
    change(twin)
    np.testing.assert_array_equal(acted(policy.fold()), before)


# --- files -------------------------------------------------------------------------------------------------------


@NETWORKS
@pytest.mark.parametrize("jumps", [True, False], ids=["student", "teacher"])
def test_a_folded_policy_is_saved_as_it_was_loaded(network: MLP | UNet, jumps: bool, tmp_path: Path) -> None:
    make(jumps, network=network).save(tmp_path / "first")
    policy = Policy.load(tmp_path / "first")
    acted(policy)
    policy.save(tmp_path / "second")
    for name in ("policy.safetensors", "config.json"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    change(policy)
    policy.save(tmp_path / "third")
    close(acted(Policy.load(tmp_path / "third")), acted(policy.fold()))


def test_a_policy_can_be_opened_in_inference_mode(tmp_path: Path) -> None:
    make().save(tmp_path / "saved")
    expected = acted(Policy.load(tmp_path / "saved"))
    with torch.inference_mode():
        policy = Policy.load(tmp_path / "saved")
        close(acted(policy), expected)
    close(acted(policy), expected)


# --- any network -------------------------------------------------------------------------------------------------


class Third(nn.Module):
    """A network of somebody else's, which can't be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4 * A + OBS + 2, 4 * A)
        nn.init.normal_(self.layer.weight, std=0.4)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
        times = torch.stack([t.log(), torch.zeros_like(t) if s is None else s], dim=1)
        return self.layer(torch.cat([x.flatten(1), condition, times.expand(x.shape[0], -1)], dim=1)).tanh().view_as(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("options", [{}, {"steps": 3, "candidates": 4}], ids=str)
@pytest.mark.parametrize("jumps", [True, False], ids=["student", "teacher"])
def test_a_network_that_can_not_be_folded_works_unfolded(jumps: bool, options: dict[str, Any]) -> None:
    built = make(jumps)
    torch.manual_seed(0)
    policy = Policy(
        built.sequence,
        Third(),
        built.sampling,
        network_settings=built.network_settings,
        critic=built.critic,
    ).configured(**options)
    expected = acted(policy)
    close(acted(policy.fold()), expected)
    seen, noise = torch.from_numpy(observations(5, 1, OBS)), policy.reset(3).draw_noise(5)
    graph = graph_of(policy)
    assert isinstance(graph, PolicyGraph)
    with torch.inference_mode():
        found = graph(seen, batch_first(noise, policy.sampling.candidates))
    np.testing.assert_allclose(found.numpy(), policy.sample(seen, noise).numpy(), rtol=0, atol=1e-5)
    if jumps and not options:
        close(expected, by_the_network(policy))
