"""Parts of policies for tests: sequences with the statistics of data, and return models with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ractd.critics import Critic
from ractd.critics.goal import GoalPart, GoalReward
from ractd.critics.return_to_go import ReturnToGo, ReturnToGoPart
from ractd.data import OfflineDataset
from ractd.diffusion.samplers import SAMPLERS, Kind
from ractd.diffusion.settings import DDPM, Diffusion
from ractd.envs.environments import Environment
from ractd.networks import Network
from ractd.networks.mlp import MLP
from ractd.policies import Policy, Sampling
from ractd.policies.policy import policy_class
from ractd.sequences import Sequence
from ractd.sequences.actions import Actions, ActionsPart
from ractd.sequences.normalizer import Normalizer, PlanNormalizer
from ractd.sequences.states import States, StatesPart


class RowCritic(Critic):
    """A critic whose `row` is all that a test needs of it."""

    @classmethod
    def build(cls, part: Any, sequence: Sequence) -> Critic:
        raise NotImplementedError

    @classmethod
    def fit(cls, config: Any, sequence: Sequence, dataset: OfflineDataset, rows: Tensor) -> tuple[Critic, Any]:
        raise NotImplementedError

    def largest(self, config: Any, dataset: OfflineDataset) -> float:
        raise NotImplementedError


def actions_of(data: OfflineDataset, horizon: int = 4, history: int = 1) -> Actions:
    """Sequences of actions scaled by data."""
    sequence = Actions(ActionsPart(data.observation_dim, data.action_dim, horizon, history))
    sequence.normalizer = Normalizer.of(data.statistics())
    return sequence


def states_of(data: OfflineDataset, horizon: int = 6, points: int = 0, layers: tuple[int, ...] = (8,)) -> States:
    """Sequences of states scaled by data."""
    sequence = States(StatesPart(data.observation_dim, data.action_dim, horizon, points, layers))
    sequence.normalizer = PlanNormalizer.of_states(data.statistics(), horizon, points)
    if sequence.normalizer.spline is not None:
        samples = sequence.samples(data)
        condition, states = samples.states(samples.draw(20_000, torch.Generator().manual_seed(0)))
        sequence.normalizer.spline.fit(states, sequence.normalizer.start(condition))
    return sequence


def return_model(
    observation_dim: int = 3,
    action_dim: int = 2,
    layers: tuple[int, ...] = (8,),
    members: int = 1,
    mean: float = 0.0,
    std: float = 1.0,
) -> ReturnToGo:
    """A return model with random weights."""
    return ReturnToGo(ReturnToGoPart(layers, members, mean, std, 0.99), observation_dim, action_dim)


def goal_reward(sequence: Sequence, layers: tuple[int, ...] = (8,), members: int = 1) -> GoalReward:
    """A goal reward with random weights."""
    return GoalReward.build(GoalPart(layers, members), sequence)


def sampling_of(
    kind: Kind, sampler: str | None = None, steps: int | None = None, candidates: int = 1, ddpm: DDPM | None = None
) -> Sampling:
    """How a kind of network samples, by default with its first sampler."""
    schedule = None if kind == "direct" else (ddpm or DDPM()) if kind == "DDPM teacher" else Diffusion()
    sampling = Sampling(kind, sampler or next(iter(SAMPLERS[kind])), schedule, steps or 1, candidates)
    if steps is None and kind != "student":
        return Sampling(kind, sampling.sampler, schedule, 5 if kind == "teacher" else 1, candidates)
    return sampling


def policy_of(
    sequence: Sequence,
    sampling: Sampling,
    network_settings: Network = MLP(width=16, blocks=1, embed_dim=8),  # noqa: B008
    spread: float = 0.4,
    env_id: str | None = None,
    **parts: Any,
) -> Policy:
    """A policy whose network's every weight matters: nothing is zero or one, as it is before training."""
    network = network_settings.build(sequence.shape, sequence.condition_dim, sampling.jumps)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=spread)
    environment = None if env_id is None else Environment(env_id)
    return policy_class(sequence)(
        sequence, network, sampling, network_settings=network_settings, environment=environment, **parts
    )
