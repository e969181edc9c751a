"""Presets are valid, and the paper's tables are the defaults where a dataset is one of the paper's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dataset_factory import make

from ractd.data import OfflineDataset
from ractd.data.scores import published_recipe, rebuilt_recipe
from ractd.errors import RactdError
from ractd.methods import METHODS, method_named
from ractd.methods.ractd_resolve import resolve
from ractd.methods.ractd_settings import DEFAULT_GAMMA, PRESETS, Config
from ractd.settings import check
from ractd.training.run import Asked


def test_each_preset_is_within_the_ranges() -> None:
    for preset in PRESETS.values():
        check(resolve(preset, data("ractd/maze2d-umaze" if preset.sequence.kind == "states" else None), Asked()))


def test_no_preset_plays_checkpoints() -> None:
    presets = {(name, preset): its for name in METHODS for preset, its in method_named(name).presets.items()}
    assert {key for key, its in presets.items() if its.evaluation.select != "last"} == set()


def data(env_id: str | None = None, recipe: str = "", name: str = "logs") -> OfflineDataset:
    """A dataset that says this of itself."""
    return replace(make(name=name, env_id=env_id), recipe=recipe)


@pytest.mark.parametrize(
    ("name", "env_id", "weight", "gamma"),
    [
        ("hopper-medium-replay-v2", "Hopper-v5", 1.0, 0.997),
        ("hopper-medium-v2", "Hopper-v5", 3.0, 0.997),
        ("hopper-medium-expert-v2", "Hopper-v5", 0.0, 0.997),
        ("walker2d-medium-replay-v2", "Walker2d-v4", 1.0, 0.99),
        ("walker2d-medium-v0", "Walker2d-v4", 0.4, 0.99),
        ("walker2d-medium-expert-v2", "Walker2d-v4", 0.2, 0.99),
        ("halfcheetah-medium-replay-v2", "HalfCheetah-v5", 1.0, 0.9),
        ("halfcheetah-medium-v2", "HalfCheetah-v5", 0.5, 0.9),
        ("halfcheetah-medium-expert-v1", "HalfCheetah-v5", 0.0, 0.9),
        ("halfcheetah-random-v2", "HalfCheetah-v5", "auto", 0.9),
    ],
)
@pytest.mark.parametrize("called", ["as D4RL has it", "logs", "hopper-medium-v2"])
def test_weights_and_discounts_of_the_papers_datasets(
    name: str, env_id: str, weight: float | str, gamma: float, called: str
) -> None:
    """Table 9 and B.2, typed off the paper; what the data is called changes nothing."""
    own = data(env_id, published_recipe(name), called)
    kind = name.partition("-")[2].rpartition("-v")[0]
    rebuilt = data(env_id.replace("v4", "v5"), rebuilt_recipe(kind, "a SAC run"), called)
    for each in (own, rebuilt):
        resolved = resolve(Config(), each, Asked())
        assert resolved.student.reward_weight == weight
        assert (resolved.student.ctm_weight, resolved.student.dsm_weight) == (1.0, 1.0)
        assert resolved.return_model.gamma == gamma


@pytest.mark.parametrize(
    ("env_id", "recipe", "gamma"),
    [
        (None, "", DEFAULT_GAMMA),
        (None, "my robot", DEFAULT_GAMMA),
        ("Hopper-v5", "first 200000 environment steps of one SAC run", 0.997),
        ("Pendulum-v1", rebuilt_recipe("medium", "a SAC run"), DEFAULT_GAMMA),
        ("Walker2d-v5", "like D4RL hopper-medium-v2", 0.99),
    ],
)
def test_a_name_alone_makes_no_dataset_one_of_the_papers(env_id: str | None, recipe: str, gamma: float) -> None:
    resolved = resolve(Config(), data(env_id, recipe, "hopper-medium-v2"), Asked())
    assert (resolved.student.reward_weight, resolved.return_model.gamma) == ("auto", gamma)


def test_only_the_papers_preset_takes_the_papers_weights() -> None:
    """Tuned for its networks: Table 9 gives hopper-medium-expert 0, with which a student knows nothing of rewards."""
    names = ("cpu", "demo", "mujoco")
    own = data("Hopper-v5", published_recipe("hopper-medium-expert-v2"))
    weights = [resolve(PRESETS[name], own, Asked()).student.reward_weight for name in names]
    assert weights == ["auto", "auto", 0.0]


def test_what_is_asked_for_stays() -> None:
    config = Config()
    asked = replace(
        config,
        student=replace(config.student, reward_weight=0.3),
        return_model=replace(config.return_model, gamma=0.5),
    )
    resolved = resolve(asked, data("Hopper-v5", published_recipe("hopper-medium-v2")), Asked())
    assert (resolved.student.reward_weight, resolved.return_model.gamma) == (0.3, 0.5)


def test_pessimism_needs_members_that_can_differ() -> None:
    cautious = replace(Config(), student=replace(Config().student, pessimism=1.0))
    with pytest.raises(RactdError, match=r"--student\.pessimism is 1\.0, expected 0 .*--return-model\.members 2"):
        check(cautious)
    check(replace(cautious, return_model=replace(cautious.return_model, members=2)))
