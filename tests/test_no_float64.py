"""Accelerators without float64 (Apple's MPS): nothing of that type is made on the accelerator's device or moved there.

PyTorch's `meta` device stands in for one: it computes shapes and types and no numbers. What leaves it for the processor is
made of ones.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from dataset_factory import make
from parts_factory import policy_of, return_model, sampling_of
from test_python_api import small
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ractd
from ractd.diffusion.settings import DDPM
from ractd.methods.ractd_settings import PRESETS, Config
from ractd.networks.mlp import MLP
from ractd.policies import Policy
from ractd.sequences.actions import Actions, ActionsPart
from ractd.sequences.settings import StatesSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
META, CPU = torch.device("meta"), torch.device("cpu")


class NoFloat64(TorchDispatchMode):
    """Raises TypeError, as MPS does, where a float64 tensor would be on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.there = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        from_device = any(tensor.device == META for tensor in tensors)
        aten = torch.ops.aten
        if function is aten._local_scalar_dense.default and from_device:
            out: Any = 1.0 if args[0].is_floating_point() else 1
        elif function.overloadpacket in (aten._to_copy, aten.to) and from_device and CPU in (*args, *kwargs.values()):
            dtype = next(
                (value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)), args[0].dtype
            )
            out = torch.ones(args[0].shape, dtype=dtype)
        elif function is aten.copy_.default and from_device and args[0].device != META:
            out = args[0].fill_(1)
        elif function is aten.nonzero.default and from_device:
            out = torch.empty(args[0].numel(), args[0].ndim, dtype=torch.int64, device=META)
        elif function is aten._fused_adamw_.default:
            out = None
        else:
            out = function(*args, **kwargs)
        for leaf in [*tensors, *tree_leaves(out)]:
            if isinstance(leaf, torch.Tensor) and leaf.device == META:
                self.there += 1
                if leaf.dtype == torch.float64:
                    raise TypeError(f"{function} has float64 on the accelerator")
        return out


@pytest.mark.parametrize(
    "make_it",
    [
        lambda: torch.zeros((), device=META, dtype=torch.float64),
        lambda: torch.zeros(3, dtype=torch.float64).to(META),
        lambda: torch.from_numpy(np.zeros(3)).to(META),
        lambda: torch.zeros(3, device=META).sum(dtype=torch.float64),
        lambda: torch.zeros(3, device=META).double(),
    ],
)
def test_the_stand_in_finds_float64(make_it: Any) -> None:
    with NoFloat64(), pytest.raises(TypeError, match="float64 on the accelerator"):
        make_it()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(accelerate.Accelerator, "device", property(lambda _: META))
    # PyTorch has its fused AdamW for real devices only.
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda *_: None)
    return META


def planner(points: int) -> Config:
    config = small(3)
    return replace(
        config,
        horizon=8,
        sequence=StatesSettings(points=points, optimization=config.student.optimization),
        return_model=replace(PRESETS["maze2d-umaze-cpu"].return_model, optimization=config.student.optimization),
        student=replace(config.student, pessimism=0.0),
    )


def test_a_planner_s_student_from_scratch_has_inverse_dynamics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ractd.runs.train.evaluate_run", lambda *_: None)
    config = planner(0)
    config = replace(config, student=replace(config.student, distilled=False, ctm_weight=0.0))
    data = replace(make(lengths=(40, 40, 40), obs=4), env_id="ractd/maze2d-umaze")
    ractd.train(data, out=tmp_path / "run", config=config, plain=False)
    made = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert made == {"return", "dynamics", "student"}


CONFIGS: dict[str, Config] = {
    "student": small(3),
    "ode anchor": replace(small(3), student=replace(small(3).student, anchor="ode")),
    "reward-aware teacher": replace(small(3), teacher=replace(small(3).teacher, reward_weight="auto", loss="square")),
    "ddpm": replace(small(3), teacher=replace(small(3).teacher, parametrization="ddpm", ddpm=DDPM(timesteps=5))),
    "planner": planner(0),
    "spline planner": planner(4),
}


LONG = ("ode anchor", "reward-aware teacher", "planner")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in CONFIGS])
def test_training(name: str, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole training; the scores at its end are the processor's."""
    monkeypatch.setattr("ractd.runs.train.evaluate_run", lambda *_: None)
    config = CONFIGS[name]
    if not config.sequence.open_loop:
        data = make(lengths=(40, 40, 40))
    else:
        data = replace(make(lengths=(40, 40, 40), obs=4), env_id="ractd/maze2d-umaze")
    with NoFloat64() as found:
        ractd.train(data, out=tmp_path / "run", config=config)
    assert found.there > 1000
    policies = {path.name for path in (tmp_path / "run" / "policy").iterdir()}
    assert policies == ({"teacher"} if name == "ddpm" else {"teacher", "plain", "student"})
    for kind in policies:
        policy = Policy.load(tmp_path / "run" / "policy" / kind).to(META)
        with NoFloat64():
            assert policy.act(np.zeros((3, policy.sequence.observation_dim))).shape == (3, 2)


@pytest.mark.parametrize(
    ("kind", "sampler", "steps"),
    [
        ("student", "consistency", 1),
        ("student", "consistency", 4),
        ("student", "jumps", 4),
        *[("teacher", sampler, 5) for sampler in ("heun", "euler", "euler-ancestral", "dpmpp-2m", "ddim")],
        ("ddpm", "ddpm", 5),
        ("ddpm", "ddim", 3),
    ],
)
def test_sampling(kind: str, sampler: str, steps: int) -> None:
    policy = untrained(kind).configured(sampler=sampler, steps=steps, candidates=2).to(META)
    with NoFloat64() as found:
        observations = np.zeros((7, 3))
        assert policy.act(observations).shape == (7, 2)
        assert policy.estimate_return(observations, np.zeros((7, 2))).shape == (7,)
    assert found.there > 20


def untrained(kind: str) -> Policy:
    sampling = sampling_of({"ddpm": "DDPM teacher"}.get(kind, kind), steps=5, ddpm=DDPM(timesteps=5))  # type: ignore[arg-type]
    policy = policy_of(Actions(ActionsPart(3, 2, 4)), sampling, MLP(width=16, blocks=1))
    policy.critic = return_model(layers=(16,)).requires_grad_(False)
    return policy
