"""The best weights that a stage had, beside its checkpoint."""

from __future__ import annotations

from torch import nn

from ractd.networks.tensors import load_weights, read_tensors, write_tensors
from ractd.training.loop import Stage


def keep_best(stage: Stage, step: int, value: float, network: nn.Module) -> None:
    """Keep the weights with the largest `value` so far in the stage's `best.safetensors`."""
    best = stage.record.get("best")
    if best is None or value > best["value"]:
        stage.record["best"] = {"step": step, "value": value}
        write_tensors(stage.directory / "best.safetensors", network.state_dict(), stage.record["best"])


def load_best(stage: Stage, network: nn.Module) -> None:
    """Load what `keep_best` kept."""
    path = stage.directory / "best.safetensors"
    tensors, _ = read_tensors(path)
    load_weights(network, tensors, path)
