"""A third network, defined here, takes a class and a line of the registry: it trains, acts, saves, loads and exports."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from export_factory import ACTIONS, OBSERVATIONS, logs
from torch import Tensor, nn

import ractd
from ractd.commands.train import settings_of
from ractd.critics.settings import ReturnModel
from ractd.errors import RactdError
from ractd.export import export_policy
from ractd.export.graph import batch_first
from ractd.methods import bc
from ractd.methods.ractd_settings import PRESETS, Config, Student, Teacher
from ractd.networks import NETWORKS, Network
from ractd.networks.fixed_time import FoldsTime
from ractd.networks.mlp import MLP
from ractd.settings import Count, Optimization, check, from_json, to_json
from ractd_runtime import Policy as Deployed

HORIZON = 2


@dataclass(frozen=True)
class TwoLayers(Network):
    """A network that folds nothing and shares no code with ours."""

    kind: ClassVar[str] = "two-layers"

    width: Count = 16

    def build(self, shape: tuple[int, int], condition_dim: int, jumps: bool) -> nn.Module:
        return TwoLayersDenoiser(self.width, shape[0] * shape[1], condition_dim, jumps)


class TwoLayersDenoiser(nn.Module):
    def __init__(self, width: int, entries: int, condition_dim: int, jumps: bool) -> None:
        super().__init__()
        self.first = nn.Linear(entries + condition_dim + 1, width)
        self.second = nn.Linear(width, entries)
        self.target = nn.Linear(1, width) if jumps else None
        if self.target is not None:
            nn.init.zeros_(self.target.weight)
            nn.init.zeros_(self.target.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
        h = self.first(torch.cat([x.flatten(1), condition, t.log()[:, None].expand(x.shape[0], -1)], 1))
        if self.target is not None and s is not None:
            h = h + self.target(s.log()[:, None])
        return self.second(h.tanh()).view_as(x)  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "two-layers", f"{__name__}:TwoLayers")


def settings() -> Config:
    optimization = Optimization(steps=30, batch_size=16, learning_rate=1e-2)
    return Config(
        horizon=HORIZON,
        return_model=ReturnModel(layers=(8,), optimization=optimization),
        teacher=Teacher(network=TwoLayers(width=24), optimization=optimization),
        student=Student(optimization=optimization),
    )


def test_a_network_of_ones_own_trains_acts_saves_loads_and_exports(tmp_path: Path) -> None:
    result = ractd.train(logs(), out=tmp_path / "run", config=settings(), plain=False)
    assert result.complete
    stored = json.loads((tmp_path / "run" / "policy" / "student" / "config.json").read_text())
    assert stored["network"] == {"kind": "two-layers", "width": 24}

    policy = ractd.Policy.load(tmp_path / "run")
    assert isinstance(policy.network, TwoLayersDenoiser)
    assert not isinstance(policy.network, FoldsTime)
    seen = np.random.default_rng(0).normal(size=(5, OBSERVATIONS)).astype(np.float32)
    acted = policy.reset(3).act_chunk(seen)
    assert acted.shape == (5, HORIZON, ACTIONS)
    assert acted.std() > 0.05
    noise = policy.reset(3).draw_noise(5)
    with torch.inference_mode():
        np.testing.assert_allclose(acted, one_step(policy, torch.from_numpy(seen), noise[0]), rtol=0, atol=1e-5)

    again = ractd.Policy.load(policy.save(tmp_path / "copy"))
    np.testing.assert_array_equal(again.reset(3).act_chunk(seen), acted)
    exported = export_policy(tmp_path / "run", tmp_path / "graph")
    deployed = Deployed.load(exported.directory)
    np.testing.assert_allclose(deployed.sample(seen[:, None], batch_first(noise, 1).numpy()), acted, rtol=0, atol=1e-5)


def one_step(policy: ractd.Policy, observations: Tensor, noise: Tensor) -> Tensor:
    """G(x_T, T, 0) = g(x_T, T, 0), written out with EDM's numbers in the boundary form."""
    low, high, data = 0.02, 80.0, 0.5
    c_skip = data**2 / ((high - low) ** 2 + data**2)
    c_out = (high - low) * data / (high**2 + data**2) ** 0.5
    c_in = 1 / (high**2 + data**2) ** 0.5
    n = policy.sequence.normalizer
    x, (T, s) = high * noise, torch.tensor([high, low])[:, None].expand(2, len(noise))
    condition = (observations - n.observation_mean) / n.observation_std
    clean: Tensor = (c_skip * x + c_out * policy.network(c_in * x, T, condition, s)).clamp(-1, 1)
    return n.action_low + (clean + 1) / 2 * (n.action_high - n.action_low)


def test_a_network_of_ones_own_is_read_and_checked_like_ours() -> None:
    config = settings()
    assert from_json(Config, json.loads(json.dumps(to_json(config))), Path("config.json")) == config
    with pytest.raises(RactdError, match=r"--teacher\.network\.width is 0, expected a whole number from 1"):
        check(replace(config, teacher=replace(config.teacher, network=TwoLayers(width=0))))
    with pytest.raises(RactdError, match=r"config\.json: Config\.teacher\.network\.width is 'wide'"):
        from_json(Config, {"teacher": {"network": {"kind": "two-layers", "width": "wide"}}}, Path("config.json"))


def test_an_unknown_network_names_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(
        RactdError, match=r"network 'two-layer', expected one of mlp, .*two-layers; did you mean 'two-layers'"
    ):
        Network.of_kind("two-layer")
    assert Network.of_kind("mlp") is MLP


@pytest.mark.parametrize("words", [["--teacher.network.kind", "two-layers"], ["--teacher.network.kind=two-layers"]])
def test_the_command_line_takes_any_kind_of_network_with_its_options(words: list[str]) -> None:
    found = settings_of(
        ["train", "logs.hdf5", "--preset", "cpu", *words, "--teacher.network.width", "24", "--seed", "3"]
    )
    assert (found.teacher.network, found.seed) == (TwoLayers(width=24), 3)
    assert replace(found, teacher=replace(found.teacher, network=MLP()), seed=0) == PRESETS["cpu"]


def test_kinds_of_what_is_not_there_by_default_and_fields_of_that_name() -> None:
    words = ["--student.network.kind", "two-layers", "--return-model.kind", "sarsa"]
    found = settings_of(["train", "logs.hdf5", "--preset", "cpu", *words])
    assert (found.student.network, found.return_model.kind) == (TwoLayers(), "sarsa")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--teacher.network.kind", "two-layer"],
            "--teacher.network.kind: unknown network 'two-layer', expected one of",
        ),
        (["--teacher.network.kind", "actor"], "--teacher.network is .*, expected a network that denoises"),
        (["--teacher.netwrk.kind", "mlp"], "--teacher.netwrk.kind: there are no kinds of netwrk"),
        (
            ["--teacher.network.kind", "two-layers", "--teacher.network.blocks", "2"],
            "--teacher.network.blocks: .* no such",
        ),
        (["--student-network", "cpu-smal"], "unknown network of the student 'cpu-smal', .*did you mean 'cpu-small'"),
    ],
)
def test_bad_kinds_on_the_command_line(words: list[str], said: str) -> None:
    with pytest.raises(RactdError, match=said):
        settings_of(["train", "logs.hdf5", "--preset", "cpu", *words])


def test_a_file_with_another_kind_than_a_field_has_is_refused() -> None:
    content = {"bc": {"network": {"kind": "mlp"}}}
    with pytest.raises(RactdError, match=r"f\.json: BCConfig\.bc\.network\.kind is 'mlp', expected 'actor'"):
        from_json(bc.BCConfig, content, Path("f.json"))
