"""Graphs made by hand, whose actions are known in closed form, and their contracts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from ractd.export import verify
from ractd.export.exporter import export_graph
from ractd.export.formats import Format
from ractd_runtime.contract import FORMAT, FORMAT_VERSION

OBSERVATIONS, HORIZON, ACTIONS, K = 3, 4, 2, 5


class WithoutNoise(nn.Module):
    """actions[b, i, a] = observation[b, 0, a] + i."""

    def forward(self, observation: Tensor) -> Tensor:
        return observation[:, :, :ACTIONS] + torch.arange(HORIZON).float()[:, None]


class WithPast(nn.Module):
    """actions[b, i, a] = observation[b, 0, a] + i + sum_k (k + 1) past_actions[b, k, a] + 10 sum_k past_rewards[b, k]
    + 100 steps[b] + 1000 returns[b]."""

    def forward(
        self, observation: Tensor, past_actions: Tensor, past_rewards: Tensor, steps: Tensor, returns: Tensor
    ) -> Tensor:
        weighted = (torch.arange(1, K + 1).float()[:, None] * past_actions).sum(1, keepdim=True)
        told = 10 * past_rewards.sum(1) + 100 * steps + 1000 * returns
        return observation[:, :, :ACTIONS] + torch.arange(HORIZON).float()[:, None] + weighted + told[:, None, None]


GRAPHS: dict[str, tuple[type[nn.Module], dict[str, list[int]]]] = {
    "without noise": (WithoutNoise, {}),
    "with past": (WithPast, {"past_actions": [K, ACTIONS], "past_rewards": [K], "steps": [], "returns": []}),
}


def tensor(shape: list[int]) -> dict[str, Any]:
    return {"shape": ["batch", *shape], "dtype": "float32"}


def write_graph(kind: str, to: Path, format: Format = "onnx", check: Any = lambda sample, content: {}) -> Path:
    """Export a graph of `GRAPHS`, and return its directory."""
    graph, others = GRAPHS[kind]
    shapes = {"observation": [1, OBSERVATIONS], **others}
    ranges = {"low": [-1e6] * OBSERVATIONS, "high": [1e6] * OBSERVATIONS, "margin": 0.5}
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "inputs": {name: tensor(shape) for name, shape in shapes.items()},
        "outputs": {"actions": tensor([HORIZON, ACTIONS]) | {"low": [-1e9] * ACTIONS, "high": [1e9] * ACTIONS}},
        "execution": {"execute": 2, "control_hz": None},
        "checks": {"not_finite": "error", "out_of_range": "warning"},
    }
    content["inputs"]["observation"] |= ranges
    examples = {name: torch.ones(2, *shape) for name, shape in shapes.items()}
    export_graph(graph(), examples, content, check, to, format, "fp32", Console(quiet=True))
    return to


def compared(sample: verify.Sample, content: dict[str, Any]) -> dict[str, Any]:
    """Check a written graph without noise against its closed form."""
    for batch in (1, 3, 64):
        seen = torch.randn(batch, 1, OBSERVATIONS)
        got = sample(seen.numpy(), torch.empty(batch, 0, 1, HORIZON, ACTIONS).numpy())
        torch.testing.assert_close(torch.from_numpy(got), WithoutNoise()(seen))
    return {"compared": True}
