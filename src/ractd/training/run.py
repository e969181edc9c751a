"""One run: its data, its settings, where it writes, and what its stages share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ractd.critics import Critic
from ractd.data import OfflineDataset
from ractd.envs.environments import Environment
from ractd.networks import Network
from ractd.policies import Policy, Sampling
from ractd.policies.policy import policy_class
from ractd.sequences import Samples, Sequence
from ractd.settings import Optimization
from ractd.training.log import Log
from ractd.training.loop import (
    EXPLODED,
    Draws,
    Follower,
    Stage,
    Update,
    objective_stage,
    read_step,
    run_stage,
)
from ractd.training.metrics import Metrics
from ractd.training.numbers import in_bf16


@dataclass(frozen=True)
class Asked:
    """What a user asks of a training besides its settings."""

    only: str | None = None
    """The one stage to train."""
    teacher: Policy | None = None
    """A teacher of another run."""
    teacher_from: str = ""
    """That run."""
    plain: bool = True
    """Whether a student without reward is distilled as well, to compare; not beside one that its critic follows."""


@dataclass
class Run:
    """What the stages of one run share."""

    directory: Path
    method: str
    config: Any
    """The method's settings."""
    asked: Asked
    dataset: OfflineDataset
    sequence: Sequence
    samples: Samples
    """The dataset's sequences."""
    provenance: dict[str, Any]
    """What each of its policies says of where it comes from."""
    accelerator: Accelerator
    metrics: Metrics
    log: Log
    checkpoint_seconds: float
    should_stop: Callable[[], bool]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def bf16(self) -> bool:
        """Whether its losses are computed in bf16."""
        return in_bf16(self.config.precision, self.device)

    def mean_over_processes(self, x: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes."""
        return self.accelerator.reduce(x, "mean")  # type: ignore[no-any-return]

    def stage(self, name: str, objective: nn.Module, average: nn.Module, optimization: Optimization) -> Stage:
        """Describe one stage of this run."""
        directory = self.directory / "checkpoints" / name
        seed, seconds = self.config.seed, self.checkpoint_seconds
        return objective_stage(name, objective, average, optimization, seed, directory, seconds, self.bf16)

    def stage_of(
        self,
        name: str,
        updates: list[Update],
        followers: list[Follower],
        draw: Callable[[torch.Generator], Draws],
        gather: Callable[[Draws], Any] = lambda draws: draws,
        exploded: float | None = EXPLODED,
    ) -> Stage:
        """Describe one stage of this run that trains networks in turns."""
        return Stage(
            name,
            updates,
            followers,
            draw,
            self.config.seed,
            self.directory / "checkpoints" / name,
            gather=gather,
            exploded=exploded,
            checkpoint_seconds=self.checkpoint_seconds,
            bf16=self.bf16,
        )

    def train(self, stage: Stage) -> None:
        """Run one stage to its end, saying how long it took."""
        before, steps = read_step(stage.checkpoint), stage.steps
        if before < steps:
            self.log.say(f"{stage.name}: training" if not before else f"{stage.name}: going on at step {before:,}")
        run_stage(stage, self.accelerator, self.metrics, self.should_stop)
        if before < steps:
            self.log.say(f"{stage.name}: {steps:,} steps in {stage.record['seconds']:,.0f} s")

    def finished_steps(self, stage: str) -> int:
        """Return how many steps a stage has behind it."""
        return read_step(self.directory / "checkpoints" / stage / "last.safetensors")

    def seed_weights(self, name: str) -> None:
        """Make the initial weights of a stage a function of the run's seed and the stage alone."""
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, *name.encode()]).generate_state(1)[0]))

    def policy(
        self,
        network: nn.Module,
        settings: Network,
        sampling: Sampling,
        critic: Critic | None,
        provenance: dict[str, Any] | None = None,
    ) -> Policy:
        """Put a trained network, the critic and the data's statistics together."""
        data = self.dataset
        environment = None if data.env_id is None else Environment(data.env_id, data.env_settings, data.maze)
        return policy_class(self.sequence)(
            self.sequence,
            network,
            sampling,
            network_settings=settings,
            critic=critic,
            environment=environment,
            method=self.method,
            provenance=self.provenance | (provenance or {}),
        )

    def save_policy(self, name: str, policy: Policy) -> None:
        """Write `policy/<name>`."""
        if self.accelerator.is_main_process:
            policy.save(self.directory / "policy" / name)
