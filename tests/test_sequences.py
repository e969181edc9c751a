"""A third kind of sequence: states and actions together, defined here, with nothing changed elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from dataset_factory import make
from torch import Tensor

import ractd
from ractd.data import OfflineDataset
from ractd.data.ranges import within
from ractd.data.windows import Windows
from ractd.errors import RactdError
from ractd.export import export_policy
from ractd.methods.ractd_settings import PRESETS, Config
from ractd.networks.mlp import MLP
from ractd.policies.files import describe_policy
from ractd.sequences import Sequence, SequencePart, sequence_class
from ractd.sequences.normalizer import Normalizer
from ractd.sequences.settings import SEQUENCES, SequenceSettings
from ractd.settings import Count, Optimization, check, from_json, to_json
from ractd_runtime import Policy as Deployed

pytestmark = pytest.mark.usefixtures("short_scoring")


@dataclass(frozen=True)
class TrajectorySettings(SequenceSettings):
    """How much the states count beside the actions."""

    kind: ClassVar[str] = "trajectories"
    state_scale: float = 0.2


@dataclass(frozen=True)
class TrajectoryPart(SequencePart):
    kind: ClassVar[str] = "trajectories"
    observation_dim: Count
    action_dim: Count
    horizon: Count
    state_scale: float


class Trajectories(Sequence):
    """x is `[B, c, O + A]`: the c coming states, standardised and scaled, and beside each the action taken there."""

    kind = "trajectories"
    Part, Settings = TrajectoryPart, TrajectorySettings
    rewarded = history = 1

    def __init__(self, part: TrajectoryPart) -> None:
        super().__init__()
        self.part, self.horizon = part, part.horizon
        self.observation_dim, self.action_dim = part.observation_dim, part.action_dim
        self.shape = (part.horizon, part.observation_dim + part.action_dim)
        self.entries = (part.horizon, part.action_dim)
        self.normalizer = Normalizer(part.observation_dim, part.action_dim)

    @classmethod
    def describe(cls, config: Any, dataset: OfflineDataset) -> Trajectories:
        scale = config.sequence.state_scale
        return cls(TrajectoryPart(dataset.observation_dim, dataset.action_dim, config.horizon, scale))

    @classmethod
    def fit(cls, config: Any, dataset: OfflineDataset, device: torch.device) -> Trajectories:
        sequence = cls.describe(config, dataset)
        sequence.normalizer = Normalizer.of(within(dataset.statistics(), config.action_range))
        return sequence.to(device)

    def samples(self, dataset: OfflineDataset) -> TrajectorySamples:
        return TrajectorySamples(self, dataset)

    def encode(self, states: Tensor, actions: Tensor) -> Tensor:
        scaled = self.part.state_scale * self.normalizer.observation(states)
        return torch.cat([scaled, self.normalizer.action(actions)], dim=-1)

    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the actions alone, which is what critics value."""
        return x[..., self.observation_dim :] * self.normalizer.varying

    def to_actions(self, x: Tensor, observations: Tensor) -> Tensor:
        return self.normalizer.raw_action(x[..., self.observation_dim :])

    def scaled(self, raw: Tensor) -> Tensor:
        return self.normalizer.action(raw)


class TrajectorySamples:
    def __init__(self, sequence: Trajectories, dataset: OfflineDataset) -> None:
        self.sequence, self.windows = sequence, Windows(dataset, sequence.horizon)

    @property
    def summary(self) -> str:
        return "states and actions"

    def draw(self, batch: int, generator: torch.Generator, rows: Tensor | None = None) -> dict[str, Tensor]:
        return {"index": self.windows.draw(batch, generator, rows)}

    def observations(self, draws: dict[str, Tensor]) -> Tensor:
        return self.windows.gather(draws["index"])[0]

    def gather(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        index = draws["index"]
        observations, actions = self.windows.gather(index)
        ahead = torch.minimum(index[:, None] + torch.arange(self.sequence.horizon), self.windows.last[index][:, None])
        return self.sequence.condition(observations), self.sequence.encode(self.windows.observations[ahead], actions)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    SEQUENCES["trajectories"] = "test_sequences:Trajectories"
    yield
    del SEQUENCES["trajectories"]


def small() -> Config:
    config, optimization = PRESETS["cpu"], Optimization(steps=60, batch_size=16)
    return replace(
        config,
        sequence=TrajectorySettings(0.3),
        diffusion=replace(config.diffusion, bins=6),
        return_model=replace(config.return_model, layers=(16,), optimization=optimization),
        teacher=replace(config.teacher, network=MLP(width=16, blocks=1), optimization=optimization),
        student=replace(config.student, optimization=optimization),
    )


@pytest.fixture(scope="module")
def data() -> OfflineDataset:
    return make(lengths=(40, 30, 50))


def test_it_trains_acts_saves_loads_and_exports(data: OfflineDataset, tmp_path: Path) -> None:
    result = ractd.train(data, out=tmp_path / "run", config=small(), plain=False)
    assert result.complete
    assert {row.policy for row in result.rows} == {"student", "teacher"}
    policy = ractd.Policy.load(tmp_path / "run")
    assert isinstance(policy.sequence, Trajectories)
    assert policy.sequence.part == TrajectoryPart(3, 2, 4, 0.3)
    observations = data.observations[:5]
    actions = policy.reset(0).act_chunk(observations)
    assert actions.shape == (5, 4, 2)
    low, high = data.actions.min(0), data.actions.max(0)
    assert ((low - 1e-6 <= actions) & (actions <= high + 1e-6)).all()
    again = ractd.Policy.load(policy.save(tmp_path / "again"))
    assert describe_policy(again) == describe_policy(policy)
    np.testing.assert_array_equal(again.reset(0).act_chunk(observations), actions)
    best = policy.configured(candidates=8)
    assert best.act(observations).shape == (5, 2)
    export_policy(tmp_path / "run", tmp_path / "out")
    deployed = Deployed.load(tmp_path / "out")
    noise = policy.reset(1).draw_noise(5)
    expected = policy.sample(torch.from_numpy(observations)[:, None], noise)
    found = deployed.sample(observations[:, None], noise[0][:, None, None].numpy())
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_what_is_encoded_is_what_was_logged(data: OfflineDataset) -> None:
    sequence = Trajectories.fit(small(), data, torch.device("cpu"))
    condition, x = sequence.samples(data).gather({"index": torch.tensor([0, 38])})
    actions = sequence.to_actions(x, torch.empty(0)).numpy()
    np.testing.assert_allclose(actions[0], data.actions[:4], atol=1e-5)
    np.testing.assert_allclose(actions[1], data.actions[[38, 39, 39, 39]], atol=1e-5)
    states = x[0, :, :3] / 0.3 * sequence.normalizer.observation_std + sequence.normalizer.observation_mean
    np.testing.assert_allclose(states.numpy(), data.observations[:4], atol=1e-4)
    torch.testing.assert_close(sequence.decode(x, condition), sequence.scaled(torch.from_numpy(actions)))


def test_settings_name_their_kind(tmp_path: Path) -> None:
    written = to_json(small())
    assert written["sequence"] == {"kind": "trajectories", "state_scale": 0.3}
    assert from_json(Config, written, tmp_path) == small()
    check(small())


def test_an_unknown_kind_is_named_with_its_nearest(tmp_path: Path) -> None:
    written = to_json(small()) | {"sequence": {"kind": "state"}}
    with pytest.raises(RactdError, match=r"unknown kind of sequence 'state', expected one of .*did you mean 'states'"):
        from_json(Config, written, tmp_path)
    with pytest.raises(RactdError, match=r"unknown kind of sequence 'x'"):
        sequence_class("x")


def test_a_kind_whose_part_says_another_is_refused_at_once() -> None:
    """Its policies' files would be opened as of the other kind."""
    with pytest.raises(TypeError, match="'mine', and its Part of 'trajectories'"):

        class Mine(Trajectories):
            kind = "mine"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "return-to-come",
            r"--return-model.kind: unknown kind of critic 'return-to-come'.*did you mean 'return-to-go'",
        ),
        ("q", "--student.reward-weight is 'auto', expected a number where values follow the student"),
    ],
)
def test_a_critic_that_can_not_be_is_refused_before_anything_is_written(
    kind: str, said: str, data: OfflineDataset, tmp_path: Path
) -> None:
    config = small()
    config = replace(config, return_model=replace(config.return_model, kind=kind))
    with pytest.raises(RactdError, match=said):
        ractd.train(data, out=tmp_path / "run", config=config)
    assert not (tmp_path / "run").exists()
