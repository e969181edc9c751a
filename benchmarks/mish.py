"""Mish in closed form against PyTorch's own, on a CPU: is ractd.networks.mish worth its lines?

    python benchmarks/mish.py [--repeats 60]

The processor time of a training step (forward and backward) and of an evaluation of the networks that have Mish: a return model and
a U-Net, on one thread. Both kinds of each take turns, so that whatever else the machine does meets both, and the least of many
measurements counts. Writes benchmarks/results/mish.json.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
import tyro
from common import print_table, write_result
from torch import Tensor, nn

from ractd.networks.mish import Mish
from ractd.networks.unet import UNet

OBSERVATIONS, ACTIONS = 11, 3  # Hopper's
ROUNDS = 5
"""Runs behind one number."""


@dataclass
class Options:
    """How long."""

    repeats: int = 60
    """Times that each number is measured."""


def with_pytorchs(network: nn.Module) -> nn.Module:
    """Return a copy that has PyTorch's Mish everywhere."""
    network = copy.deepcopy(network)
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, Mish):
                setattr(module, name, nn.Mish())
    return network


def return_model(layers: tuple[int, ...], batch: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Build a member of a return model and a batch for it."""
    widths = (OBSERVATIONS + ACTIONS, *layers)
    hidden = [module for i, o in pairwise(widths) for module in (nn.Linear(i, o), Mish())]
    return nn.Sequential(*hidden, nn.Linear(widths[-1], 1)), (torch.randn(batch, widths[0]),)


def unet(widths: tuple[int, ...], horizon: int, batch: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Build a small U-Net and a batch for it."""
    network = UNet(down_dims=widths, embed_dim=64).build((horizon, ACTIONS), OBSERVATIONS, jumps=False)
    return network, (torch.randn(batch, horizon, ACTIONS), torch.rand(batch) + 0.1, torch.randn(batch, OBSERVATIONS))


def train(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Compute a gradient."""
    network(*inputs).square().mean().backward()


def evaluate(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Evaluate without one."""
    with torch.inference_mode():
        network(*inputs)


def milliseconds(work: Callable[[], None]) -> float:
    """Return the processor time of one of `ROUNDS` runs."""
    start = time.process_time()
    for _ in range(ROUNDS):
        work()
    return (time.process_time() - start) * 1e3 / ROUNDS


def main() -> None:
    """Measure every network both ways, in turns."""
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cases = {
        "return model (256, 256), batch 512": return_model((256, 256), 512),
        "return model of Table 8, batch 512": return_model((32, 64, 128, 256), 512),
        "U-Net (32, 64), horizon 16, batch 64": unet((32, 64), 16, 64),
        "U-Net (32, 64), horizon 16, batch 1": unet((32, 64), 16, 1),
    }
    measured, rows = {}, []
    for name, (network, inputs) in cases.items():
        both = {"closed form": network, "PyTorch": with_pytorchs(network)}
        for what, work in (("training step", train), ("evaluation", evaluate)):
            values: dict[str, list[float]] = {kind: [] for kind in both}
            for _ in range(options.repeats):
                for kind, each in both.items():
                    values[kind].append(milliseconds(partial(work, each, inputs)))
            least = {kind: min(times) for kind, times in values.items()}
            measured[f"{name}: {what}"] = {"milliseconds": least}
            ours, theirs = least.values()
            rows.append([f"{name}: {what}", f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.2f}"])
    write_result("mish", {"threads": 1, "rounds": ROUNDS, "measured": measured})
    print_table("milliseconds of one processor", ["", "closed form", "PyTorch", "ratio"], rows)


if __name__ == "__main__":
    main()
