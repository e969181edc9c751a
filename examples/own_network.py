"""A network of one's own, in one file: settings that build it, and a line of the registry.

    python examples/own_network.py hopper-mixed --out own-network

It is a teacher's and a student's here. A network that can't fold its times into its weights works as it is.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

import ractd
from ractd.methods.ractd_settings import PRESETS
from ractd.networks import NETWORKS, Network
from ractd.settings import Count


@dataclass(frozen=True)
class Gated(Network):
    """Its settings, which the command line and files of runs and policies know by their `kind`."""

    kind: ClassVar[str] = "gated"

    width: Count = 64
    """Units of the hidden layer."""

    def build(self, shape: tuple[int, int], condition_dim: int, jumps: bool) -> nn.Module:
        """Return a denoiser of sequences of a shape; `jumps` says whether it is a student's, which sees its target time."""
        return GatedDenoiser(self.width, math.prod(shape), condition_dim)


class GatedDenoiser(nn.Module):
    """Two layers, of which the noise levels gate the first: `(x [B, n, D], t, condition [B, K], s) -> [B, n, D]`."""

    def __init__(self, width: int, entries: int, condition_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(entries + condition_dim, width)
        self.gate = nn.Linear(2, width)
        self.output = nn.Linear(width, entries)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
        # A student starts as its teacher: a target time that is not there is no difference to the time.
        target = t if s is None else s
        times = torch.stack([t.log() / 4, (t / target).log() / 4], dim=1)
        hidden = self.hidden(torch.cat([x.flatten(1), condition], dim=1)).relu()
        return self.output(hidden * self.gate(times).sigmoid()).view_as(x)  # type: ignore[no-any-return]


NETWORKS["gated"] = f"{__name__}:Gated"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="of every stage, to see that it works")
    arguments = parser.parse_args()
    config = PRESETS["cpu"]
    stages = {name: getattr(config, name) for name in ("return_model", "teacher", "student")}
    if arguments.steps:
        few = {name: replace(stage.optimization, steps=arguments.steps) for name, stage in stages.items()}
        stages = {name: replace(stage, optimization=few[name]) for name, stage in stages.items()}
    stages["teacher"] = replace(stages["teacher"], network=Gated())
    config = replace(config, **stages, evaluation=replace(config.evaluation, episodes=10))
    result = ractd.train(arguments.log, config=config, out=arguments.out)
    print(result.policy().network_settings)
