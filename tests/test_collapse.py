"""A collapsing student is seen without a simulator, and what was there before is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from dataset_factory import make
from parts_factory import actions_of, return_model

import ractd
from ractd.diffusion.settings import Diffusion
from ractd.files import read_json
from ractd.methods.ractd_settings import PRESETS, Config
from ractd.networks import copy_matching
from ractd.networks.mlp import MLP
from ractd.settings import Optimization
from ractd.training import collapse
from ractd.training.collapse import CollapseWatch, complaint

pytestmark = pytest.mark.usefixtures("short_scoring")
FINE = {"watch_out_of_bounds": 0.03, "watch_promise": 0.5, "watch_teacher_distance": 1.0}


def test_what_is_a_complaint() -> None:
    assert complaint(FINE) is None
    for name, value, said in (
        ("watch_out_of_bounds", 0.17, "17% of its action entries are out of bounds"),
        ("watch_promise", 1.5, "1.5 times the largest return"),
        ("watch_teacher_distance", 4.0, "4.0 times as far from the teacher's"),
    ):
        assert said in str(complaint(FINE | {name: value}))
        assert (complaint(FINE | {name: value}, followed=True) is None) == (name == "watch_out_of_bounds")


@pytest.mark.parametrize("follows", [False, True])
def test_bounds_condemn_no_student_that_a_critic_follows(follows: bool, tmp_path: Path) -> None:
    leaving = SimpleNamespace(
        critic=SimpleNamespace(fitted_before=not follows), measure=lambda student: FINE | {"watch_out_of_bounds": 0.13}
    )
    stage: Any = SimpleNamespace(directory=tmp_path, record={}, steps=1, name="student")
    said: list[str] = []
    look = collapse.watch_for_collapse(
        cast(CollapseWatch, leaving), stage, torch.nn.Linear(1, 1), cast(Any, SimpleNamespace(say=said.append)), ""
    )
    assert look(1, {})["watch_out_of_bounds"] == 0.13
    assert bool(said) == ("collapse" in stage.record) == (not follows)


def test_a_student_that_leaves_the_data_is_seen() -> None:
    dataset = make((30, 20, 25))
    torch.manual_seed(0)
    network = MLP(width=16, blocks=1, embed_dim=8)
    teacher = network.build((2, 2), 3, False)
    student = network.build((2, 2), 3, True)
    copy_matching(teacher, student)
    sequence = actions_of(dataset, 2)
    watch = CollapseWatch(teacher, return_model(), sequence, sequence.samples(dataset), Diffusion(), 2.0, 0)
    before = watch.measure(student)
    with torch.no_grad():
        student.output.bias.fill_(6.0)  # type: ignore[union-attr, operator]
    after = watch.measure(student)
    assert after["watch_out_of_bounds"] == 1 > before["watch_out_of_bounds"]
    assert after["watch_teacher_distance"] > 3 * before["watch_teacher_distance"]


@pytest.mark.parametrize(("value", "largest", "promise"), [(3.0, 2.0, 1.5), (-3.0, -1.0, -3.0), (0.5, -1.0, 0.5)])
def test_a_promise_is_in_units_of_the_largest_return(value: float, largest: float, promise: float) -> None:
    data, network, R = make((30, 20, 25)), MLP(width=16, blocks=1, embed_dim=8), return_model()
    with torch.no_grad():
        for parameter in R.parameters():
            parameter.zero_()
        R.members[0][-1].bias.fill_(value)  # type: ignore[index]
    sequence = actions_of(data, 2)
    teacher, student = (network.build((2, 2), 3, jumps) for jumps in (False, True))
    watch = CollapseWatch(teacher, R, sequence, sequence.samples(data), Diffusion(), largest, 0)
    measured = watch.measure(student)
    assert measured["watch_promise"] == pytest.approx(promise)
    assert ("times the largest return" in str(complaint(measured))) == (promise > 1)


def small() -> Config:
    """Three looks for collapse, at steps 50, 100 and 150."""
    config, optimization = PRESETS["cpu"], Optimization(steps=150, batch_size=16)
    return replace(
        config,
        diffusion=replace(config.diffusion, bins=6),
        return_model=replace(config.return_model, layers=(16,), optimization=replace(optimization, steps=50)),
        teacher=replace(config.teacher, network=MLP(width=16, blocks=1), optimization=replace(optimization, steps=50)),
        student=replace(config.student, optimization=optimization),
    )


@pytest.mark.parametrize("healthy", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_the_checkpoint_before_a_collapse_is_kept(
    healthy: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measurements() -> Iterator[dict[str, float]]:
        yield from [FINE] * healthy
        while True:
            yield FINE | {"watch_out_of_bounds": 0.5}

    measured = measurements()
    monkeypatch.setattr(collapse, "WATCH_EVERY", 50)
    monkeypatch.setattr(CollapseWatch, "measure", lambda self, student: next(measured))
    run = tmp_path / "run"
    result = ractd.train(make(lengths=(30, 30)), out=run, config=small(), plain=False)
    assert result.content["stages"]["student"]["collapse"]["step"] == 50 * (healthy + 1)
    said = (run / "log.txt").read_text()
    assert said.count("policy 'student' is collapsing at step") == 1
    assert "; a smaller --student.reward-share helps" in said
    kept = run / "policy" / "student-before-collapse"
    assert kept.exists() == ("is kept as policy 'student-before-collapse'" in said) == bool(healthy)
    if healthy:
        assert read_json(kept / "config.json")["provenance"]["step"] == 50
        states = [ractd.Policy.load(path).state_dict() for path in (kept, run / "policy" / "student")]
        assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
