"""Settings as JSON: every preset round-trips, every mistake is named with file and field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ractd.errors import RactdError
from ractd.methods.ractd_settings import PRESETS, Config, Student, Teacher
from ractd.networks.mlp import MLP
from ractd.networks.unet import UNet
from ractd.settings import Optimization, from_json, to_json

PATH = Path("runs/a/config.json")


def through_text(config: Config) -> Any:
    return json.loads(json.dumps(to_json(config)))


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_survives_a_round_trip(preset: str) -> None:
    restored = from_json(Config, through_text(PRESETS[preset]), PATH)
    assert restored == PRESETS[preset]
    assert type(restored.teacher.network) is type(PRESETS[preset].teacher.network)


@pytest.mark.parametrize("weight", [0.5, 0.0, 2, "auto"])
@pytest.mark.parametrize("network", [None, MLP(width=7), UNet(down_dims=(8,))])
def test_what_differs_from_the_presets_survives(weight: Any, network: Any) -> None:
    config = replace(Config(), student=Student(reward_weight=weight, network=network), seed=3)
    restored = from_json(Config, through_text(config), PATH)
    assert restored == config
    assert type(restored.student.network) is type(network)


def test_fields_with_defaults_may_be_absent() -> None:
    assert from_json(Config, {"horizon": 9}, PATH) == Config(horizon=9)


def changed(where: list[str], value: Any) -> Any:
    content = through_text(Config())
    inner = content
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    return content


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (["horizon"], "four"),
        (["horizon"], 4.0),
        (["horizon"], True),
        (["horizon"], None),
        (["horizon"], [4]),
        (["diffusion"], 3),
        (["diffusion", "sigma_min"], "small"),
        (["diffusion", "rho"], None),
        (["diffusion", "rho"], False),
        (["student", "anchor"], "rope"),
        (["student", "reward_weight"], "automatic"),
        (["student", "reward_weight"], [1.0]),
        (["teacher", "network", "width"], "wide"),
        (["return_model", "layers"], [32, "64"]),
        (["return_model", "layers"], 32),
        (["return_model", "gamma"], "0.9"),
        (["teacher", "optimization", "steps"], 1.5),
    ],
)
def test_a_value_of_another_type_names_file_and_field(where: list[str], value: Any) -> None:
    with pytest.raises(RactdError) as error:
        from_json(Config, changed(where, value), PATH)
    message = str(error.value)
    assert message.startswith(f"{PATH}: ")
    assert where[-1] in message
    assert repr(value if not isinstance(value, list) or where[-1] != "layers" else "64") in message


@pytest.mark.parametrize(
    ("where", "named"),
    [(["horzon"], "Config"), (["student", "anker"], "student"), (["teacher", "network", "depth"], "network")],
)
def test_an_unknown_field_names_file_field_and_place(where: list[str], named: str) -> None:
    with pytest.raises(RactdError, match=f"unknown field '{where[-1]}'") as error:
        from_json(Config, changed(where, 1), PATH)
    assert str(PATH) in str(error.value)
    assert named in str(error.value)


def test_a_missing_field_names_file_and_field() -> None:
    content = through_text(Config())
    del content["teacher"]["optimization"]["steps"]
    with pytest.raises(RactdError, match=r"field 'steps' of Config\.teacher\.optimization is missing") as error:
        from_json(Config, content, PATH)
    assert str(PATH) in str(error.value)
    with pytest.raises(RactdError, match="steps"):
        from_json(Optimization, {}, PATH)


@pytest.mark.parametrize("content", [None, [], 3, "text", [{}]])
def test_content_that_is_no_object_is_refused(content: Any) -> None:
    with pytest.raises(RactdError, match=r"config\.json: Config is "):
        from_json(Config, content, PATH)


def test_an_unknown_kind_of_network_names_the_known_ones() -> None:
    with pytest.raises(RactdError, match=r"Teacher\.network: unknown network 'transformer', .*mlp, unet"):
        from_json(Teacher, {"network": {"kind": "transformer"}}, PATH)


def test_a_kind_that_is_no_text_is_refused() -> None:
    with pytest.raises(RactdError, match="network"):
        from_json(Teacher, {"network": {"kind": ["mlp"]}}, PATH)
