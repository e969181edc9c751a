"""Presets are valid, and the paper's tables are the defaults where a dataset is one of the paper's."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from ractd.cli import PresetName
from ractd.config import DEFAULT_GAMMA, PRESETS, Config, check
from ractd.errors import RactdError
from ractd.training.pipeline import resolve


def test_the_command_line_offers_every_preset_and_each_is_within_the_ranges() -> None:
    assert set(get_args(PresetName)) == set(PRESETS)
    for preset in PRESETS.values():
        check(resolve(preset, "anything"))


@pytest.mark.parametrize(
    ("dataset", "weight", "gamma"),
    [
        ("hopper-medium-replay-v2", 1.0, 0.997),
        ("hopper-medium-v2", 3.0, 0.997),
        ("hopper-medium-expert", 0.0, 0.997),
        ("walker2d-medium-v0", 0.4, 0.99),
        ("walker2d-medium-expert-v2", 0.2, 0.99),
        ("halfcheetah-medium-v2", 0.5, 0.9),
        ("hopper-mixed", "auto", 0.997),
        ("my-logs", "auto", DEFAULT_GAMMA),
    ],
)
def test_weights_and_discounts_of_the_papers_datasets(dataset: str, weight: float | str, gamma: float) -> None:
    """Table 9 and B.2, typed off the paper."""
    resolved = resolve(Config(), dataset)
    assert resolved.student.reward_weight == weight
    assert (resolved.student.ctm_weight, resolved.student.dsm_weight) == (1.0, 1.0)
    assert resolved.return_model.gamma == gamma
    assert resolved.return_model.termination_penalty == -100


def test_only_the_papers_preset_takes_the_papers_weights() -> None:
    """Tuned for its networks: Table 9 gives hopper-medium-expert 0, with which a student knows nothing of rewards."""
    names = ("cpu", "demo", "mujoco")
    weights = [resolve(PRESETS[name], "hopper-medium-expert-v2").student.reward_weight for name in names]
    assert weights == ["auto", "auto", 0.0]


def test_what_is_asked_for_stays() -> None:
    config = Config()
    asked = replace(
        config,
        student=replace(config.student, reward_weight=0.3),
        return_model=replace(config.return_model, gamma=0.5),
    )
    resolved = resolve(asked, "hopper-medium-v2")
    assert (resolved.student.reward_weight, resolved.return_model.gamma) == (0.3, 0.5)


def test_pessimism_needs_members_that_can_differ() -> None:
    cautious = replace(Config(), student=replace(Config().student, pessimism=1.0))
    with pytest.raises(RactdError, match=r"--student\.pessimism is 1\.0, expected 0 .*--return-model\.members 2"):
        check(cautious)
    check(replace(cautious, return_model=replace(cautious.return_model, members=2)))
