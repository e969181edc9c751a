"""A narrow MLP computes on one thread, and what PyTorch was told before holds again afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Trained
from rich.console import Console

from ractd.networks import WIDE, Network
from ractd.networks.mlp import MLP
from ractd.networks.threads import threads_for
from ractd.networks.unet import UNet
from ractd.runs.evaluation import evaluate_policy

GIVEN = 3


@pytest.fixture(autouse=True)
def given() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(GIVEN)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("networks", "threads"),
    [
        ((MLP(), None), 1),
        ((MLP(), MLP(width=WIDE)), GIVEN),
        ((UNet(), None), GIVEN),
        ((UNet(), MLP()), GIVEN),
    ],
)
def test_threads_are_those_that_pay(networks: tuple[Network | None, ...], threads: int) -> None:
    with threads_for(*networks):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == GIVEN


@pytest.mark.usefixtures("short_scoring")
def test_an_mlp_is_scored_on_one(trained: Trained, tmp_path: Path) -> None:
    run = shutil.copytree(trained.directory, tmp_path / "run")
    result = evaluate_policy(
        run,
        "student",
        episodes=1,
        execute=None,
        candidates=None,
        sampler=None,
        steps=None,
        env_id=None,
        seed=0,
        console=Console(quiet=True),
    )
    assert result.rows[0].threads == 1
    assert torch.get_num_threads() == GIVEN
