"""The losses of the compared methods equal TorchRL's, value and gradient, on the same networks and batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import (
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
)
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torchrl.objectives import BCLoss, IQLLoss, TD3BCLoss, ValueEstimators

from ractd.methods import bc, iql, td3_bc
from ractd.networks.actor import Actor, GaussianActor, mlp
from ractd.networks.ensemble import Ensemble
from ractd.training.transitions import Batch

B, K, A = 32, 5, 3
GAMMA = 0.97


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(0)
    ended = torch.rand(B) < 0.3
    action = torch.rand(B, A) * 2 - 1
    next_action = torch.rand(B, A) * 2 - 1
    return Batch(torch.randn(B, K), action, torch.randn(B), GAMMA * ~ended, torch.randn(B, K), next_action, ~ended)


def tensordict(batch: Batch) -> TensorDict:
    ended = (batch.discount == 0).unsqueeze(1)
    after = {
        "observation": batch.next_condition,
        "reward": batch.reward.unsqueeze(1),
        "done": ended,
        "terminated": ended,
    }
    return TensorDict({"observation": batch.condition, "action": batch.action, "next": after}, [B])


class Flat(nn.Module):
    """An actor of single actions, `[B, A]`."""

    def __init__(self, actor: nn.Module) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, condition: Tensor) -> Tensor:
        return self.actor(condition).flatten(1)  # type: ignore[no-any-return]


class Parameters(Flat):
    """A Gaussian actor's mean and standard deviation."""

    def forward(self, condition: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        mean = super().forward(condition)
        return mean, self.actor.get_parameter("log_std").flatten().exp().expand_as(mean)


def with_weights(layer: Any, weight: Tensor, bias: Tensor) -> nn.Module:
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return layer  # type: ignore[no-any-return]


class Member(nn.Module):
    """One member of an ensemble, of layers of PyTorch's own."""

    def __init__(self, ensemble: Ensemble, number: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (weight, bias) in enumerate(zip(ensemble.weights, ensemble.biases, strict=True)):
            linear = nn.Linear(*weight.shape[1:])
            layers.append(with_weights(linear, weight[number].T, bias[number, 0]))
            if i < len(ensemble.scales):
                norm = nn.LayerNorm(weight.shape[2])
                layers.append(with_weights(norm, ensemble.scales[i][number, 0], ensemble.shifts[i][number, 0]))
            if i + 1 < len(ensemble.weights):
                layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.layers(torch.cat(inputs, 1))  # type: ignore[no-any-return]


def critics() -> Ensemble:
    """Two Q networks that are far from zero and from each other, with layer normalisation."""
    ensemble = Ensemble(2, K + A, (16, 16), layer_norm=True)
    for parameter in ensemble.parameters():
        nn.init.normal_(parameter, std=0.5)
    return ensemble


def theirs(ensemble: Ensemble) -> list[TensorDictModule]:
    return [TensorDictModule(Member(ensemble, i), ["observation", "action"], ["state_action_value"]) for i in range(2)]


def normal(loc: Tensor, scale: Tensor) -> Independent[Any]:
    return Independent(Normal(loc, scale), 1)


def gaussian(actor: GaussianActor) -> ProbabilisticTensorDictSequential:
    return ProbabilisticTensorDictSequential(
        TensorDictModule(Parameters(actor), ["observation"], ["loc", "scale"]),
        ProbabilisticTensorDictModule(
            ["loc", "scale"],
            ["action"],
            distribution_class=normal,
            return_log_prob=False,
        ),
    )


def gradient(loss: Tensor, module: Iterable[Tensor]) -> Tensor:
    weights = [weight for weight in module if weight.requires_grad]
    found = torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=True)
    return torch.cat(
        [torch.zeros_like(w).flatten() if g is None else g.flatten() for w, g in zip(weights, found, strict=True)]
    )


def actor_of(head: str) -> nn.Module:
    torch.manual_seed(1)
    actor = Actor(layers=(16, 16), layer_norm=True, head=head).build((1, A), K)  # type: ignore[arg-type]
    if isinstance(actor, GaussianActor):
        nn.init.normal_(actor.log_std, std=0.5)
    return actor


@pytest.mark.parametrize("head", ["deterministic", "gaussian"])
def test_behaviour_cloning(batch: Batch, head: str) -> None:
    actor = actor_of(head)
    network = (
        gaussian(actor)
        if isinstance(actor, GaussianActor)
        else TensorDictModule(Flat(actor), ["observation"], ["action"])
    )
    loss = bc.LOSSES[head](actor, batch.condition, batch.action.unsqueeze(1))["loss"]
    reference = BCLoss(network, loss_function=None if head == "gaussian" else "l2")
    wanted = reference(tensordict(batch))["loss_bc"]
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(gradient(loss, actor.parameters()), gradient(wanted, reference.parameters()))


def replace_weights(params: Any, *modules: nn.Module) -> None:
    """Give a loss module's networks, but not its target networks, the weights of others."""
    for number, module in enumerate(modules):
        for name, value in module.state_dict().items():
            held = params.get(("module", *name.split("."))).data
            (held[number] if len(modules) > 1 else held).copy_(value)


def same_critic_gradient(loss: Tensor, critic: Ensemble, wanted: Tensor, params: Any) -> None:
    """Compare the gradients by an ensemble's first weights with those by the stacked layers of its members."""
    for layer, weight in zip((0, 3, 6), critic.weights, strict=True):
        ours = gradient(loss, [weight])
        reference = torch.autograd.grad(
            wanted, params.get(("module", "layers", str(layer), "weight")), retain_graph=True
        )
        torch.testing.assert_close(ours.view_as(weight), reference[0].transpose(1, 2))
        assert ours.abs().max() > 0.01


def test_the_critic_of_td3_bc(batch: Batch) -> None:
    actor, critic, target = actor_of("deterministic"), critics(), critics()
    reference = td3_bc_reference(actor, target)
    replace_weights(reference.qvalue_network_params, Member(critic, 0), Member(critic, 1))
    torch.manual_seed(3)
    wanted = reference.qvalue_loss(tensordict(batch))[0]
    torch.manual_seed(3)
    noise = 0.2 * torch.randn_like(batch.action)
    loss = td3_bc.critic_loss(critic, target, actor, batch, noise, 0.3)["loss"]
    torch.testing.assert_close(loss, wanted)
    same_critic_gradient(loss, critic, wanted, reference.qvalue_network_params)


def td3_bc_reference(actor: nn.Module, critic: Ensemble) -> TD3BCLoss:
    networks = TensorDictModule(Flat(actor), ["observation"], ["action"]), theirs(critic)
    settings = {"policy_noise": 0.2, "noise_clip": 0.3, "alpha": 2.5, "loss_function": "l2"}
    reference = TD3BCLoss(*networks, bounds=(-1.0, 1.0), **settings)
    reference.make_value_estimator(ValueEstimators.TD0, gamma=GAMMA)
    return reference


def test_the_actor_of_td3_bc(batch: Batch) -> None:
    actor, critic = actor_of("deterministic"), critics()
    reference = td3_bc_reference(actor, critic)
    wanted, told = reference.actor_loss(tensordict(batch))
    terms = td3_bc.actor_loss(actor, critic, batch, 2.5)
    torch.testing.assert_close(terms["loss"], wanted)
    torch.testing.assert_close(terms["bc"], told["bc_loss"])
    torch.testing.assert_close(terms["lambda"], told["lmbd"])
    actors = [parameter for name, parameter in reference.named_parameters() if name.startswith("actor")]
    torch.testing.assert_close(gradient(terms["loss"], actor.parameters()), gradient(wanted, actors))


def iql_reference(actor: GaussianActor, critic: Ensemble, value: nn.Module) -> IQLLoss:
    values = TensorDictModule(value, ["observation"], ["state_value"])
    settings = {"temperature": 3.0, "expectile": 0.7, "loss_function": "l2"}
    reference = IQLLoss(gaussian(actor), theirs(critic), values, **settings)
    reference.make_value_estimator(ValueEstimators.TD0, gamma=GAMMA)
    return reference


@pytest.fixture
def networks() -> tuple[GaussianActor, Ensemble, nn.Module]:
    torch.manual_seed(2)
    value = nn.Sequential(mlp(K, (16, 16), 1))
    for parameter in value.parameters():
        nn.init.normal_(parameter, std=0.5)
    actor = actor_of("gaussian")
    assert isinstance(actor, GaussianActor)
    return actor, critics(), value


def test_the_value_of_iql(batch: Batch, networks: tuple[GaussianActor, Ensemble, nn.Module]) -> None:
    _, critic, value = networks
    reference = iql_reference(*networks)
    wanted = reference.value_loss(tensordict(batch))[0]
    loss = iql.value_loss(value, critic, batch, 0.7)["loss"]
    torch.testing.assert_close(loss, wanted)
    values = [parameter for name, parameter in reference.named_parameters() if name.startswith("value")]
    torch.testing.assert_close(gradient(loss, value.parameters()), gradient(wanted, values))


def test_the_critic_of_iql(batch: Batch, networks: tuple[GaussianActor, Ensemble, nn.Module]) -> None:
    _, critic, value = networks
    reference = iql_reference(*networks)
    wanted = reference.qvalue_loss(tensordict(batch))[0]
    loss = iql.critic_loss(critic, value, batch)["loss"]
    torch.testing.assert_close(loss, wanted)
    same_critic_gradient(loss, critic, wanted, reference.qvalue_network_params)


def test_the_actor_of_iql(batch: Batch, networks: tuple[GaussianActor, Ensemble, nn.Module]) -> None:
    actor, critic, value = networks
    reference = iql_reference(*networks)
    wanted = reference.actor_loss(tensordict(batch))[0]
    terms = iql.actor_loss(actor, value, critic, batch, 3.0)
    torch.testing.assert_close(terms["loss"], wanted)
    actors = [parameter for name, parameter in reference.named_parameters() if name.startswith("actor")]
    torch.testing.assert_close(gradient(terms["loss"], actor.parameters()), gradient(wanted, actors))
