"""The one training loop: every stage, one process or many, stopped anywhere and continued bit for bit.

Nothing random is carried from step to step: the draws of a step come from a generator seeded by (seed, stage, step), for
the whole global batch, of which each process takes its slice. So the random state and the order of the data are the step's
number, and N processes compute the gradient of one.
"""

from __future__ import annotations

import copy
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ractd.errors import RactdError
from ractd.settings import Optimization
from ractd.training.checkpoint import (
    load_optimizer,
    load_weights,
    optimizer_tensors,
    prefixed,
    read_header,
    read_tensors,
    unprefixed,
    write_tensors,
)
from ractd.training.metrics import Metrics

LOG_EVERY = 50
"""Steps between checks and log lines: losses stay on the device in between."""
EXPLODED = 1e3
"""A loss term so many times above its running mean has exploded."""


class Objective(Protocol):
    """A module whose `forward(draws)` returns scalars, of which `loss` is minimised; `network` is what is trained."""

    network: nn.Module

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]: ...


class Interrupted(Exception):
    """The user stopped the run; the checkpoint is saved."""


@dataclass
class Stage:
    """One thing to train: what it minimises, how, and what happens on the way."""

    name: str
    objective: nn.Module
    average: nn.Module
    optimization: Optimization
    seed: int
    directory: Path
    record: dict[str, Any] = field(default_factory=dict)
    """JSON-able state of the hooks, saved and restored with the checkpoint."""
    hooks: list[Callable[[int, dict[str, float]], dict[str, float]]] = field(default_factory=list)
    """Called on the main process after every logged step with (step, metrics); they return more metrics."""
    checkpoint_seconds: float = 30.0
    milestones: frozenset[int] = frozenset()
    """Steps at which the hooks are called besides the logged ones."""

    @property
    def checkpoint(self) -> Path:
        return self.directory / "last.safetensors"


def step_generator(seed: int, stage: str, step: int) -> torch.Generator:
    """Return the generator of one step's draws."""
    words = np.random.SeedSequence([seed, zlib.crc32(stage.encode()), step]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed((int(words[0]) << 31) ^ int(words[1]))


def learning_rate(step: int, optimization: Optimization) -> float:
    """Return the rate of a step: linear warm-up, then a cosine to zero."""
    warmup = min(optimization.warmup_steps, optimization.steps // 10 + 1)
    if step < warmup:
        return optimization.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(optimization.steps - warmup, 1)
    return optimization.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def update_average(average: list[Tensor], weights: list[Tensor], decay: float, step: int) -> None:
    """Move the averaged weights towards the network's; the decay grows from 0.1, so that the start is forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(average, weights, 1 - decay)


def share_of_process(draws: dict[str, Tensor], accelerator: Accelerator) -> dict[str, Tensor]:
    """Take this process's rows of the global batch, on its device."""
    rank, world = accelerator.process_index, accelerator.num_processes
    return {name: value[rank::world].to(accelerator.device, non_blocking=True) for name, value in draws.items()}


def save_checkpoint(stage: Stage, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write everything that the rest of the stage depends on, in one file."""
    objective = cast(Objective, stage.objective)
    buffers = dict(stage.objective.named_buffers(recurse=False))
    tensors = {
        **prefixed("network", objective.network.state_dict()),
        **prefixed("average", stage.average.state_dict()),
        **prefixed("optimizer", optimizer_tensors(optimizer)),
        **prefixed("objective", buffers),
    }
    write_tensors(
        stage.checkpoint, tensors, {"stage": stage.name, "step": step, "seed": stage.seed, "record": stage.record}
    )


def load_checkpoint(stage: Stage, optimizer: torch.optim.Optimizer) -> int:
    """Continue from the stage's checkpoint if there is one; return the step to go on with."""
    if not stage.checkpoint.exists():
        return 0
    tensors, header = read_tensors(stage.checkpoint)
    if header["stage"] != stage.name or header["seed"] != stage.seed:
        raise RactdError(
            f"{stage.checkpoint}: belongs to stage {header['stage']!r} of seed {header['seed']}, not to this one"
        )
    objective = cast(Objective, stage.objective)
    load_weights(objective.network, unprefixed("network", tensors), stage.checkpoint)
    load_weights(stage.average, unprefixed("average", tensors), stage.checkpoint)
    load_optimizer(optimizer, unprefixed("optimizer", tensors))
    buffers = dict(stage.objective.named_buffers(recurse=False))
    for name, value in unprefixed("objective", tensors).items():
        buffers[name].copy_(value)
    stage.record.update(header["record"])
    return int(header["step"])


def read_step(checkpoint: Path) -> int:
    """Return the step of a checkpoint, 0 where there is none."""
    return int(read_header(checkpoint)["step"]) if checkpoint.exists() else 0


class Watch:
    """Stops a stage whose loss is no number or explodes, naming step and term."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def check(self, names: list[str], values: np.ndarray, first_step: int) -> None:
        """Check the terms of some steps, `[steps, terms]`; raises `RactdError`."""
        means: dict[str, float] = self.stage.record.setdefault("running_means", {})
        for column, name in enumerate(names):
            terms = np.abs(values[:, column])
            early = terms[: max(len(terms) // 2, 1)]
            early = early[np.isfinite(early)]
            mean = means.get(name, float(np.median(early)) if len(early) else math.nan)
            bad = ~np.isfinite(terms) | (terms > EXPLODED * (mean + 1))
            if bad.any():
                row = int(bad.argmax())
                before = f" (it was about {mean:.3g})" if math.isfinite(mean) else ""
                kept = (
                    f"the last good checkpoint is {self.stage.checkpoint}"
                    if self.stage.checkpoint.exists()
                    else "there is no checkpoint yet"
                )
                raise RactdError(
                    f"training of the {self.stage.name} stopped at step {first_step + row}: term '{name}' is "
                    f"{values[row, column]:.3g}{before}; {kept}; lower its learning rate "
                    "or look at the data with 'ractd data validate'"
                )
            means[name] = 0.9 * mean + 0.1 * float(terms.mean())


def run_stage(
    stage: Stage, accelerator: Accelerator, metrics: Metrics, should_stop: Callable[[], bool] = lambda: False
) -> nn.Module:
    """Train a stage from its checkpoint, or from the start, to its last step; return the averaged network.

    Raises `Interrupted` after saving when `should_stop()` says so, and `RactdError` when a loss is no number or explodes.
    """
    optimization, objective = stage.optimization, cast(Objective, stage.objective)
    if optimization.batch_size % accelerator.num_processes:
        raise RactdError(
            f"batch size {optimization.batch_size} does not divide by {accelerator.num_processes} processes"
        )
    stage.objective.to(accelerator.device)
    stage.average.to(accelerator.device)
    stage.average.requires_grad_(False)
    network = objective.network
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=optimization.learning_rate, weight_decay=optimization.weight_decay, fused=True
    )
    first = load_checkpoint(stage, optimizer)
    metrics.begin(stage.name, first, optimization.steps)
    if first >= optimization.steps:
        return stage.average
    # Only the objective: the gradients need no scaling, and accelerate's optimiser looks for packages on the disk at each step.
    prepared = accelerator.prepare(stage.objective)
    prepared.train()
    weights: list[Tensor] = [*network.parameters()]
    average: list[Tensor] = [*stage.average.parameters()]
    main, world = accelerator.is_main_process, accelerator.num_processes
    names: list[str] = []
    buffer = torch.empty(0)
    saved, watch, since, began = time.monotonic(), Watch(stage), first, time.monotonic()
    for step in range(first, optimization.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, optimization)
        draws = share_of_process(
            objective.draw(step_generator(stage.seed, stage.name, step), optimization), accelerator
        )
        terms = prepared(draws)
        terms["loss"].backward()
        norm = nn.utils.clip_grad_norm_(weights, optimization.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update_average(average, weights, optimization.ema, step)
        if not names:
            names = [*terms, "gradient_norm"]
            buffer = torch.empty(LOG_EVERY, len(names), device=accelerator.device)
        buffer[step - since] = torch.stack([*(value.detach().float() for value in terms.values()), norm])

        done, last = step + 1, step + 1 == optimization.steps
        if done % LOG_EVERY == 0 or last or done in stage.milestones:
            rows = buffer[: done - since]
            values = (accelerator.reduce(rows.contiguous(), "mean") if world > 1 else rows).cpu().numpy()
            watch.check(names, values, since)
            now = time.monotonic()
            logged = dict(zip(names, values.mean(0).tolist(), strict=True))
            logged["samples_per_second"] = (done - since) * optimization.batch_size / max(now - began, 1e-9)
            logged["learning_rate"] = learning_rate(step, optimization)
            if main:
                for hook in stage.hooks:
                    logged.update(hook(done, logged))
                metrics.log(stage.name, done, logged)
            stage.record["seconds"] = stage.record.get("seconds", 0.0) + time.monotonic() - began
            since, began = done, time.monotonic()
            stop = agree(should_stop(), accelerator)
            if main and (last or stop or now - saved > stage.checkpoint_seconds):
                metrics.flush()
                save_checkpoint(stage, optimizer, done)
                saved = time.monotonic()
            accelerator.wait_for_everyone()
            if stop and not last:
                raise Interrupted(stage.name)
        else:
            metrics.tick(done)
    return stage.average


def agree(stop: bool, accelerator: Accelerator) -> bool:
    """Return whether any process wants to stop: they leave the loop together."""
    if accelerator.num_processes == 1:
        return stop
    votes = accelerator.reduce(torch.tensor([float(stop)], device=accelerator.device), "sum")
    return bool(cast(Tensor, votes).item())


def averaged_copy(network: nn.Module) -> nn.Module:
    """Return the copy of a network that will hold its moving average."""
    return copy.deepcopy(network)
