"""Folding: a policy that keeps its network acts the same, faster, and never with weights that are no longer there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_policy import OBS, A, make, observations, written_out
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, prune, vector_to_parameters

from ractd.envs import Context
from ractd.export.graph import PolicyGraph, batch_first, graph_of
from ractd.networks.mlp import MLP
from ractd.networks.unet import UNet
from ractd.policy import FEW, Policy

NETWORKS = pytest.mark.parametrize(
    "network", [MLP(width=16, blocks=1, embed_dim=8), UNet((16, 32), 16)], ids=["mlp", "unet"]
)


def acted(policy: Policy) -> np.ndarray:
    return policy.reset(3).act_chunk(observations(5, OBS))


def by_the_network(policy: Policy) -> np.ndarray:
    """What the policy's network says at the moment, evaluation by evaluation; asked for last, for it gives the network away."""
    return written_out(policy, observations(5, OBS), policy.reset(3).draw_noise(5))


def close(found: np.ndarray, expected: np.ndarray, why: str = "") -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6, err_msg=why)


def calls(policy: Policy) -> list[int]:
    """Of the whole network, which a folded policy never calls; looked at without asking for it."""
    seen: list[int] = []
    policy._own_network.register_forward_hook(lambda *_: seen.append(1))
    return seen


@NETWORKS
@pytest.mark.parametrize("sampler", ["consistency", "jumps"])
@pytest.mark.parametrize("steps", [1, 3, FEW + 1])
def test_a_folded_policy_is_the_policy(network: MLP | UNet, sampler: str, steps: int) -> None:
    policy = make(network=network, sampler=sampler, steps=steps)
    expected = by_the_network(policy)
    assert expected.std() > 0.1
    close(acted(policy), expected)
    folded = policy.folded()
    called = calls(folded)
    for _ in range(2):
        close(acted(folded), expected)
    assert len(called) == (0 if steps <= FEW else 2 * steps)


@pytest.mark.parametrize("jumps", [True, False], ids=["student", "teacher"])
def test_what_keeps_a_policy_folded(jumps: bool, tmp_path: Path) -> None:
    policy = Policy.load(make(jumps).save(tmp_path / "saved"))
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
    assert "network" in repr(policy)
    if jumps:
        graph_of(policy)
        acted(policy.folded())
        assert not called
    assert policy._kept is not None


# --- never stale -------------------------------------------------------------------------------------------------

Change = Callable[[Policy], object]


def other() -> Policy:
    return make(seed=7)


def data(policy: Policy) -> None:
    for weight in policy.network.parameters():
        weight.data.mul_(1.3)


def all_data(policy: Policy) -> None:
    for weight in policy.parameters():
        weight.data.mul_(1.3)


def in_place(policy: Policy) -> None:
    with torch.no_grad():
        for weight in policy.network.parameters():
            weight.add_(0.1)


def inference(policy: Policy) -> None:
    with torch.inference_mode():
        for weight in policy.network.parameters():
            weight.data.add_(0.1)


def one_weight(policy: Policy) -> None:
    policy.get_parameter("network.embedding.t.layers.0.weight").data.mul_(3)


def vector(policy: Policy) -> None:
    vector_to_parameters(1.3 * parameters_to_vector(policy.network.parameters()), policy.network.parameters())


def whole_vector(policy: Policy) -> None:
    vector_to_parameters(1.1 * parameters_to_vector(policy.parameters()), policy.parameters())


def again(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.3)


def replaced(policy: Policy) -> None:
    policy.network = other().network


def replaced_part(policy: Policy) -> None:
    policy.network.output = other().network.output  # type: ignore[union-attr]


def replaced_tensor(policy: Policy) -> None:
    for module in policy.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(1.3 * module.weight, False)


def by_state_dict(policy: Policy) -> None:
    for tensor in policy.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1.1)


def by_children(policy: Policy) -> None:
    next(policy.children()).apply(again)


def pruned(policy: Policy) -> None:
    prune.l1_unstructured(policy.network.output, "weight", 0.5)  # type: ignore[union-attr]


def hooked(policy: Policy) -> None:
    policy.network.register_forward_hook(lambda module, given, out: 1.5 * out)


CHANGES: dict[str, Change] = {
    "data": data,
    "all data": all_data,
    "in place": in_place,
    "inference mode": inference,
    "one weight": one_weight,
    "vector_to_parameters": vector,
    "vector_to_parameters of all": whole_vector,
    "load_state_dict": lambda policy: policy.network.load_state_dict(other().network.state_dict()),
    "load_state_dict, assign": lambda policy: policy.network.load_state_dict(other().network.state_dict(), assign=True),
    "load_state_dict of all": lambda policy: policy.load_state_dict(other().state_dict()),
    "load_state_dict of all, assign": lambda policy: policy.load_state_dict(other().state_dict(), assign=True),
    "init": lambda policy: again(policy.network.input),  # type: ignore[union-attr,arg-type]
    "apply": lambda policy: policy.apply(again),
    "another network": replaced,
    "another layer": replaced_part,
    "another parameter": replaced_tensor,
    "state_dict": by_state_dict,
    "children": by_children,
    "prune": pruned,
    "hook": hooked,
    "half": lambda policy: policy.half().float(),
    "to a type and back": lambda policy: policy.to(torch.bfloat16).to(torch.float32),
}


def loaded(tmp_path: Path) -> Policy:
    return Policy.load(make().save(tmp_path / "saved"))


def given_away_and_folded(tmp_path: Path) -> Policy:
    policy = loaded(tmp_path)
    assert policy.network is not None
    return policy.folded()


MADE: dict[str, Callable[[Path], Policy]] = {
    "built": lambda tmp_path: make(),
    "built, configured": lambda tmp_path: make().configured(steps=2),
    "folded": lambda tmp_path: make().folded(),
    "loaded": loaded,
    "loaded, configured": lambda tmp_path: loaded(tmp_path).configured(steps=2),
    "loaded, copied": lambda tmp_path: copy.deepcopy(loaded(tmp_path)),
    "loaded, given away, folded": given_away_and_folded,
}


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("change", CHANGES)
def test_new_weights_act(change: str, made: str, tmp_path: Path) -> None:
    policy = MADE[made](tmp_path)
    before = acted(policy)
    torch.manual_seed(1)
    CHANGES[change](policy)
    after = acted(policy)
    assert np.abs(after - before).max() > (1e-5 if change in ("half", "to a type and back") else 1e-2)
    close(after, by_the_network(policy))
    CHANGES["in place"](policy)
    close(acted(policy), by_the_network(policy), "and again, with what was given away before")


def references(policy: Policy) -> dict[str, Callable[[], object]]:
    """What gives a weight away, by whatever way."""
    return {
        "network": lambda: policy.network,
        "getattr": lambda: getattr(policy, "network"),  # noqa: B009
        "submodule": lambda: policy.get_submodule("network.blocks"),
        "parameter": lambda: policy.get_parameter("network.output.weight"),
        "parameters": lambda: list(policy.parameters()),
        "named_parameters": lambda: dict(policy.named_parameters()),
        "modules": lambda: list(policy.modules()),
        "named_modules": lambda: dict(policy.named_modules()),
        "children": lambda: list(policy.children()),
        "named_children": lambda: dict(policy.named_children()),
        "buffers": lambda: list(policy.buffers()),
        "state_dict": lambda: policy.state_dict(),
        "parent": lambda: list(nn.ModuleList([policy]).parameters()),
        "parent's state_dict": lambda: nn.ModuleList([policy]).state_dict(),
        "requires_grad_": lambda: policy.requires_grad_(False),
    }


@pytest.mark.parametrize("way", references(make()))
def test_a_policy_that_gave_its_weights_away_keeps_nothing(way: str) -> None:
    policy = make().folded()
    sibling = policy.configured(candidates=2)
    of_both = policy._kept
    assert of_both is not None
    assert of_both is sibling._kept
    assert list(of_both.made) == [("consistency", 1)], "folded once, before it acts"
    references(policy)[way]()
    assert (policy._kept, sibling._kept) == (None, None)
    assert list(policy.state_dict()) == list(make().state_dict()), "a module like any other, in the same order"
    assert policy.network is sibling.network


@pytest.mark.parametrize("change", ["data", "load_state_dict, assign", "vector_to_parameters"])
def test_policies_of_one_network_follow_each_other(change: str, tmp_path: Path) -> None:
    policy = loaded(tmp_path)
    few = policy.configured(steps=3)
    ranked, before = few.configured(candidates=4), acted(few)
    acted(ranked)
    acted(policy)
    CHANGES[change](ranked)
    assert np.abs(acted(few) - before).max() > 1e-2
    close(acted(few), by_the_network(few))
    close(acted(policy), by_the_network(policy))


def test_a_copy_is_its_own(tmp_path: Path) -> None:
    policy = loaded(tmp_path)
    twin, before = copy.deepcopy(policy), acted(policy)
    data(twin)
    np.testing.assert_array_equal(acted(policy), before)
    assert policy._kept is not None
    built = make()
    snapshot, before = built.folded(), acted(built.folded())
    data(built)
    np.testing.assert_array_equal(acted(snapshot), before, "the weights of the moment at which it was folded")
    close(acted(built.folded()), acted(built))


def test_a_network_that_is_held_outside_is_never_folded_by_itself() -> None:
    policy = make()
    network = policy.network
    again_configured = policy.configured(steps=2)
    acted(policy), acted(again_configured)
    with torch.no_grad():
        network.output.weight.mul_(2)  # type: ignore[union-attr,operator]
    for each in (policy, again_configured):
        close(acted(each), by_the_network(each))


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
    data(policy)
    policy.save(tmp_path / "third")
    close(acted(Policy.load(tmp_path / "third")), acted(policy))


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
        return self.layer(torch.cat([x.flatten(1), condition, times], dim=1)).tanh().view_as(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("options", [{}, {"steps": 3, "candidates": 4}], ids=str)
@pytest.mark.parametrize("jumps", [True, False], ids=["student", "teacher"])
def test_a_network_that_can_not_be_folded_works_unfolded(jumps: bool, options: dict[str, int]) -> None:
    built = make(jumps)
    torch.manual_seed(0)
    policy = Policy(built.spec, Third(), built.return_network, built.normalizer).configured(**options)
    expected = acted(policy)
    folded = policy.folded()
    assert folded._kept is not None
    close(acted(folded), expected)
    seen, noise = torch.from_numpy(observations(5, 1, OBS)), policy.reset(3).draw_noise(5)
    graph = graph_of(folded)
    assert isinstance(graph, PolicyGraph)
    with torch.inference_mode():
        found = graph(seen, batch_first(noise, policy.spec.candidates))
    np.testing.assert_allclose(found.numpy(), policy.sample(seen, noise).numpy(), rtol=0, atol=1e-5)
    if jumps and not options:
        close(expected, by_the_network(policy))
