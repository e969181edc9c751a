"""The one training loop: every stage, one process or many, stopped anywhere and continued bit for bit.

A stage trains one network or several, each with its own loss, optimiser and schedule, in turns: a step draws a batch, makes each
`Update` that is due, and then moves each `Follower`. Nothing random is carried from step to step: the draws of a step come from a
generator seeded by (seed, stage, step), for the whole global batch, of which each process takes its slice. So the random state and
the order of the data are the step's number, and N processes compute the gradient of one.
"""

from __future__ import annotations

import copy
import math
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ractd.errors import RactdError
from ractd.networks.tensors import load_weights, prefixed, read_header, read_tensors, unprefixed, write_tensors
from ractd.settings import Optimization
from ractd.stopping import Interrupted
from ractd.training.checkpoint import load_optimizer, optimizer_tensors
from ractd.training.metrics import Metrics

LOG_EVERY = 50
"""Steps between checks and log lines: losses stay on the device in between."""
EXPLODED = 1e3
"""A loss term so many times above its running mean has exploded, by default."""

Module = TypeVar("Module", bound=nn.Module)
Draws = dict[str, Tensor]
"""The random part of a step: named tensors whose first dimension is the batch."""
Terms = dict[str, Tensor]
"""Scalars by the names that the logger shows; `loss` is what an optimiser lowers."""
Hook = Callable[[int, dict[str, float]], dict[str, float]]
"""Called with (step, metrics); returns more metrics."""


@dataclass
class Update:
    """One network, the loss that its optimiser lowers, and how often.

    The gradient goes to this network alone: a loss may look at any other. `name` stands before its tensors in the checkpoint
    and, where a stage has several updates, before its metrics (`critic/loss`). The loss takes what `Stage.gather` returns.
    """

    name: str
    network: nn.Module
    loss: Callable[[Any], Terms]
    optimization: Optimization
    """Every update of a stage has the same steps and batch size."""
    every: int = 1
    """Made in one of so many steps."""


@dataclass
class Follower:
    """A copy that follows a network: the average that acts, or a target network, `copy = decay copy + (1 - decay) network`."""

    name: str
    network: nn.Module
    copy: nn.Module
    decay: float
    """0.999 averages about the last thousand moves; 1 - tau of a Polyak average."""
    grows: bool = False
    """The decay grows from 0.1, so that the weights from before training are forgotten."""
    every: int = 1
    """Moved in one of so many steps, after the updates."""


@dataclass
class Stage:
    """What is trained together, on which draws, and what happens on the way."""

    name: str
    """Seeds the draws: a constant of the method."""
    updates: list[Update]
    """Made in this order in a step."""
    followers: list[Follower]
    draw: Callable[[torch.Generator], Draws]
    """Draws the global batch of a step."""
    seed: int
    directory: Path
    gather: Callable[[Draws], Any] = lambda draws: draws
    """Makes of a process's share of the draws what every loss takes."""
    state: nn.Module | None = None
    """Whose own buffers the losses change from step to step (running means); they are in the checkpoint."""
    exploded: float | None = EXPLODED
    """A term so many times above its running mean stops the stage; None where a loss may grow and be right, as that of a
    temporal difference. A term that is no number always does."""
    record: dict[str, Any] = field(default_factory=dict)
    """JSON-able state of the hooks, saved and restored with the checkpoint."""
    hooks: list[Hook] = field(default_factory=list)
    """Called on the main process after every logged step."""
    checkpoint_seconds: float = 30.0
    bf16: bool = False
    """Losses are computed under PyTorch's autocast to bf16."""
    milestones: frozenset[int] = frozenset()
    """Steps at which the hooks are called besides the logged ones."""

    def __post_init__(self) -> None:
        sizes = {(update.optimization.steps, update.optimization.batch_size) for update in self.updates}
        names = [*self.names, "optimizer", "state"]
        if len(sizes) != 1 or len(set(names)) < len(names):
            raise ValueError(f"stage {self.name}: one number of steps, one batch size and a name for each part")

    @property
    def names(self) -> list[str]:
        """The names of its updates and followers."""
        return [update.name for update in self.updates] + [follower.name for follower in self.followers]

    @property
    def steps(self) -> int:
        return self.updates[0].optimization.steps

    @property
    def batch_size(self) -> int:
        return self.updates[0].optimization.batch_size

    @property
    def checkpoint(self) -> Path:
        return self.directory / "last.safetensors"


class Objective(Protocol):
    """A module whose `forward(draws)` returns the terms of its `network`; where it has a `state`, see `Stage.state`."""

    network: nn.Module

    def draw(self, generator: torch.Generator, optimization: Optimization) -> Draws: ...


def objective_stage(
    name: str,
    objective: nn.Module,
    average: nn.Module,
    optimization: Optimization,
    seed: int,
    directory: Path,
    checkpoint_seconds: float = 30.0,
    bf16: bool = False,
) -> Stage:
    """Describe a stage that trains an `Objective`'s network, and `average` as its moving average."""
    trained = cast(Objective, objective)
    return Stage(
        name,
        [Update("network", trained.network, objective, optimization)],
        [Follower("average", trained.network, average, optimization.ema, grows=True)],
        lambda generator: trained.draw(generator, optimization),
        seed,
        directory,
        state=getattr(objective, "state", None),
        checkpoint_seconds=checkpoint_seconds,
        bf16=bf16,
    )


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
def follow(follower: Follower, step: int) -> None:
    """Move a copy's parameters towards its network's."""
    decay = min(follower.decay, (1 + step) / (10 + step)) if follower.grows else follower.decay
    torch._foreach_lerp_([*follower.copy.parameters()], [*follower.network.parameters()], 1 - decay)


def averaged_copy(network: Module) -> Module:
    """Return the copy of a network that is to follow it."""
    return copy.deepcopy(network)


def share_of_process(draws: Draws, accelerator: Accelerator) -> Draws:
    """Take this process's rows of the global batch, on its device."""
    rank, world = accelerator.process_index, accelerator.num_processes
    return {name: value[rank::world].to(accelerator.device, non_blocking=True) for name, value in draws.items()}


class _Loss(nn.Module):
    """A loss as the forward pass of a module that holds its network: what accelerate wants to share among processes."""

    def __init__(self, update: Update, autocast: AbstractContextManager[Any]) -> None:
        super().__init__()
        self.network, self.loss, self.autocast = update.network, update.loss, autocast

    def forward(self, batch: Any) -> Terms:
        with self.autocast:
            return {name: value.float() for name, value in self.loss(batch).items()}


class _Optimized:
    """An update at work: its optimiser, and the terms of its steps since the last look at them."""

    def __init__(self, update: Update, prefix: str, autocast: AbstractContextManager[Any]) -> None:
        self.update, self.prefix = update, prefix
        optimization = update.optimization
        self.optimizer = torch.optim.AdamW(
            update.network.parameters(),
            lr=optimization.learning_rate,
            weight_decay=optimization.weight_decay,
            fused=True,
        )
        self.weights: list[Tensor] = [*update.network.parameters()]
        self.loss: nn.Module = _Loss(update, autocast)
        self.names: list[str] = []
        self.made: list[int] = []
        self.rows: list[Tensor] = []

    def prepare(self, accelerator: Accelerator) -> None:
        """Share the loss among the processes, and bring it to this one's device."""
        # Only the loss: the gradients need no scaling, and accelerate's optimiser looks for packages on the disk at each step.
        self.loss = accelerator.prepare(self.loss)
        self.loss.train()

    def step(self, step: int, batch: Any) -> None:
        """Lower the loss by one step of the optimiser."""
        optimization = self.update.optimization
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, optimization)
        terms = self.loss(batch)
        terms["loss"].backward(inputs=self.weights)
        norm = nn.utils.clip_grad_norm_(self.weights, optimization.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.names = [self.prefix + name for name in (*terms, "gradient_norm")]
        self.made.append(step)
        self.rows.append(torch.stack([*(value.detach() for value in terms.values()), norm]))

    def look(self, accelerator: Accelerator) -> tuple[list[int], np.ndarray]:
        """Return the steps since the last look and their terms, `[steps, terms]`, of all processes."""
        made, rows = self.made, torch.stack(self.rows)
        self.made, self.rows = [], []
        shared = accelerator.reduce(rows, "mean") if accelerator.num_processes > 1 else rows
        return made, cast(Tensor, shared).cpu().numpy()


def save_checkpoint(stage: Stage, optimizers: Mapping[str, torch.optim.Optimizer], step: int) -> None:
    """Write everything that the rest of the stage depends on, in one file."""
    tensors: dict[str, Tensor] = {}
    for update in stage.updates:
        tensors |= prefixed(update.name, update.network.state_dict())
        tensors |= prefixed(f"optimizer.{update.name}", optimizer_tensors(optimizers[update.name]))
    for follower in stage.followers:
        tensors |= prefixed(follower.name, follower.copy.state_dict())
    tensors |= prefixed("state", _state(stage))
    header = {"stage": stage.name, "parts": stage.names, "step": step, "seed": stage.seed, "record": stage.record}
    write_tensors(stage.checkpoint, tensors, header)


def load_checkpoint(stage: Stage, optimizers: Mapping[str, torch.optim.Optimizer]) -> int:
    """Continue from the stage's checkpoint if there is one; return the step to go on with."""
    if not stage.checkpoint.exists():
        return 0
    tensors, header = read_tensors(stage.checkpoint)
    if header["stage"] != stage.name or header["seed"] != stage.seed:
        raise RactdError(
            f"{stage.checkpoint}: belongs to stage {header['stage']!r} of seed {header['seed']}, not to this one"
        )
    if header.get("parts") != stage.names:
        raise RactdError(f"{stage.checkpoint}: was written by another version of ractd; train in a new directory")
    for update in stage.updates:
        load_weights(update.network, unprefixed(update.name, tensors), stage.checkpoint)
        load_optimizer(optimizers[update.name], unprefixed(f"optimizer.{update.name}", tensors))
    for follower in stage.followers:
        load_weights(follower.copy, unprefixed(follower.name, tensors), stage.checkpoint)
    saved = unprefixed("state", tensors)
    for name, value in _state(stage).items():
        value.copy_(saved[name])
    stage.record.update(header["record"])
    return int(header["step"])


def _state(stage: Stage) -> dict[str, Tensor]:
    return {} if stage.state is None else dict(stage.state.named_buffers(recurse=False))


def read_step(checkpoint: Path) -> int:
    """Return the step of a checkpoint, 0 where there is none."""
    return int(read_header(checkpoint)["step"]) if checkpoint.exists() else 0


def check_terms(stage: Stage, names: list[str], values: np.ndarray, steps: list[int]) -> None:
    """Raise `RactdError` where a term of some steps, `[steps, terms]`, is no number or has exploded."""
    means: dict[str, float] = stage.record.setdefault("running_means", {})
    for column, name in enumerate(names):
        terms = np.abs(values[:, column])
        early = terms[: max(len(terms) // 2, 1)]
        early = early[np.isfinite(early)]
        mean = means.get(name, float(np.median(early)) if len(early) else math.nan)
        bad = ~np.isfinite(terms)
        if stage.exploded is not None:
            bad |= terms > stage.exploded * (mean + 1)
        if bad.any():
            row = int(bad.argmax())
            before = f" (it was about {mean:.3g})" if math.isfinite(mean) else ""
            kept = (
                f"the last good checkpoint is {stage.checkpoint}"
                if stage.checkpoint.exists()
                else "there is no checkpoint yet"
            )
            raise RactdError(
                f"training of the {stage.name} stopped at step {steps[row]}: term '{name}' is "
                f"{values[row, column]:.3g}{before}; {kept}; lower its learning rate "
                "or look at the data with 'ractd data validate'"
            )
        means[name] = 0.9 * mean + 0.1 * float(terms.mean())


def run_stage(
    stage: Stage, accelerator: Accelerator, metrics: Metrics, should_stop: Callable[[], bool] = lambda: False
) -> None:
    """Train a stage from its checkpoint, or from the start, to its last step.

    Its record then has `seconds`, all in all, and `processor_seconds`, those of the training steps alone (hooks, evaluations
    and files apart), of all processes together. Raises `Interrupted` after saving when `should_stop()` says so, and `RactdError`
    when a loss is no number or explodes.
    """
    if stage.batch_size % accelerator.num_processes:
        raise RactdError(f"batch size {stage.batch_size} does not divide by {accelerator.num_processes} processes")
    if stage.state is not None:
        stage.state.to(accelerator.device)
    for update in stage.updates:
        update.network.to(accelerator.device)
    for follower in stage.followers:
        follower.copy.to(accelerator.device).requires_grad_(False)
    autocast = torch.autocast(accelerator.device.type, torch.bfloat16) if stage.bf16 else nullcontext()
    prefix = "" if len(stage.updates) == 1 else "{}/"
    optimized = [_Optimized(each, prefix.format(each.name), autocast) for each in stage.updates]
    optimizers = {each.update.name: each.optimizer for each in optimized}
    first = load_checkpoint(stage, optimizers)
    metrics.begin(stage.name, first, stage.steps)
    if first >= stage.steps:
        return
    for each in optimized:
        each.prepare(accelerator)
    main, record = accelerator.is_main_process, stage.record
    since, saved = first, time.monotonic()
    began, used = time.monotonic(), time.process_time()
    for step in range(first, stage.steps):
        draws = stage.draw(step_generator(stage.seed, stage.name, step))
        batch = stage.gather(share_of_process(draws, accelerator))
        for each in optimized:
            if _due(step, each.update.every):
                each.step(step, batch)
        for follower in stage.followers:
            if _due(step, follower.every):
                follow(follower, step)

        done, last = step + 1, step + 1 == stage.steps
        if done % LOG_EVERY and not last and done not in stage.milestones:
            metrics.tick(done)
            continue
        logged: dict[str, float] = {}
        for each in optimized:
            if each.made:
                steps, values = each.look(accelerator)
                check_terms(stage, each.names, values, steps)
                logged |= dict(zip(each.names, values.mean(0).tolist(), strict=True))
            logged[f"{each.prefix}learning_rate"] = learning_rate(step, each.update.optimization)
        seconds = time.monotonic() - began
        logged["samples_per_second"] = (done - since) * stage.batch_size / max(seconds, 1e-9)
        processor = over_processes(time.process_time() - used, accelerator)
        record["processor_seconds"] = record.get("processor_seconds", 0.0) + processor
        if main:
            for hook in stage.hooks:
                logged.update(hook(done, logged))
            metrics.log(stage.name, done, logged)
        record["seconds"] = record.get("seconds", 0.0) + time.monotonic() - began
        since, began = done, time.monotonic()
        stop = over_processes(float(should_stop()), accelerator) > 0  # they leave the loop together
        if main and (last or stop or began - saved > stage.checkpoint_seconds):
            metrics.flush()
            save_checkpoint(stage, optimizers, done)
            saved = time.monotonic()
        accelerator.wait_for_everyone()
        if stop and not last:
            raise Interrupted(stage.name)
        used = time.process_time()


def _due(step: int, every: int) -> bool:
    return (step + 1) % every == 0


def over_processes(value: float, accelerator: Accelerator) -> float:
    """Return the sum of every process's value."""
    if accelerator.num_processes == 1:
        return value
    summed = accelerator.reduce(torch.tensor([value], device=accelerator.device), "sum")
    return float(cast(Tensor, summed).item())
