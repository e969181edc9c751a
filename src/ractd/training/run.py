"""One run: its data, its settings, where it writes, and what its stages share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from accelerate import Accelerator
from rich.markup import escape
from torch import Tensor, nn

from ractd.data import OfflineDataset, return_to_go
from ractd.data.dataset import describe
from ractd.data.ends import describe_ends
from ractd.data.ranges import within
from ractd.data.windows import Windows
from ractd.envs.maze import Maze, maze_of
from ractd.methods.ractd_settings import Config, penalty_of
from ractd.models import InverseDynamics, ReturnNetwork, build_network
from ractd.models.normalizer import Normalizer, PlanNormalizer
from ractd.planner import Planner
from ractd.policy import Policy, PolicySpec
from ractd.settings import Optimization
from ractd.training.log import Log
from ractd.training.loop import Stage, objective_stage, read_step, run_stage
from ractd.training.metrics import Metrics
from ractd.training.rundir import versions
from ractd.training.samples import ActionSequences, Plans


class Models(NamedTuple):
    """What is learnt of the data besides its sequences."""

    returns: ReturnNetwork
    dynamics: InverseDynamics | None = None
    """A planner's."""


@dataclass
class Run:
    """What the stages of one run share."""

    directory: Path
    config: Config
    dataset: OfflineDataset
    samples: ActionSequences | Plans
    normalizer: Normalizer
    targets: Tensor
    """Returns-to-go `[N]` in standard deviations from their mean; a planner has none."""
    largest_return: float
    """What no sequence of the data exceeds, in the units of R: a plan is at its goal at most all the time."""
    maze: Maze | None
    scaling: dict[str, Any]
    """Where the range of the actions comes from."""
    return_mean: float
    return_std: float
    accelerator: Accelerator
    metrics: Metrics
    log: Log
    checkpoint_seconds: float
    should_stop: Callable[[], bool]

    def stage(self, name: str, objective: nn.Module, average: nn.Module, optimization: Optimization) -> Stage:
        """Describe one stage of this run."""
        directory = self.directory / "checkpoints" / name
        seed, seconds = self.config.seed, self.checkpoint_seconds
        return objective_stage(name, objective, average, optimization, seed, directory, seconds)

    def train(self, stage: Stage) -> None:
        """Run one stage to its end, saying how long it took."""
        before, steps = read_step(stage.checkpoint), stage.steps
        if before < steps:
            self.log.say(f"{stage.name}: training" if not before else f"{stage.name}: going on at step {before:,}")
        run_stage(stage, self.accelerator, self.metrics, self.should_stop)
        if before < steps:
            self.log.say(f"{stage.name}: {steps:,} steps in {stage.record['seconds']:,.0f} s")

    def seed_weights(self, name: str) -> None:
        """Make the initial weights of a stage a function of the run's seed and the stage alone."""
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, *name.encode()]).generate_state(1)[0]))

    def denoiser(self, name: str, jumps: bool) -> nn.Module:
        """Build the teacher's or a student's network."""
        self.seed_weights(name)
        config = self.config
        network = (config.student.network or config.teacher.network) if jumps else config.teacher.network
        condition_dim = config.history * len(self.normalizer.observation_mean)
        return build_network(network, *self.samples.shape, condition_dim, jumps)

    def no_return_network(self) -> ReturnNetwork:
        """Return what stands in for a return model where none is trained."""
        return ReturnNetwork(self.dataset.observation_dim, self.samples.shape[1], self.config.return_model.layers, 0)

    def policy(self, network: nn.Module, models: Models, jumps: bool, provenance: dict[str, Any]) -> Policy:
        """Put a trained network, the models of the data and the statistics together."""
        config = self.config
        ddpm = config.teacher.ddpm if config.teacher.parametrization == "ddpm" and not jumps else None
        spec = PolicySpec(
            observation_dim=len(self.normalizer.observation_mean),
            action_dim=self.dataset.action_dim,
            horizon=config.horizon,
            history=config.history,
            network=(config.student.network or config.teacher.network) if jumps else config.teacher.network,
            jumps=jumps,
            sampler="consistency" if jumps else "heun" if ddpm is None else "ddpm",
            steps=1 if jumps else config.diffusion.bins if ddpm is None else ddpm.timesteps,
            return_layers=config.return_model.layers,
            return_members=config.return_model.members,
            return_mean=self.return_mean,
            return_std=self.return_std,
            diffusion=config.diffusion,
            ddpm=ddpm,
            env_id=self.dataset.env_id,
            env_settings=self.dataset.env_settings,
            provenance=provenance,
        )
        if models.dynamics is None or config.plan is None or self.maze is None:
            return Policy(spec, network, models.returns, self.normalizer)
        spec = replace(
            spec,
            state_dim=self.dataset.observation_dim,
            points=config.plan.points,
            dynamics_layers=config.plan.dynamics_layers,
            maze=self.maze.text,
            goal=tuple(self.maze.goal.tolist()),
        )
        return Planner(spec, network, models.returns, cast(PlanNormalizer, self.normalizer), models.dynamics)

    def save_policy(
        self, name: str, network: nn.Module, models: Models, jumps: bool, provenance: dict[str, Any]
    ) -> None:
        """Write `policy/<name>` with where it comes from."""
        if self.accelerator.is_main_process:
            origin = {
                "dataset": describe(self.dataset),
                "scaling": self.scaling,
                "ends": describe_ends(self.dataset, penalty_of(self.config)),
                "seed": self.config.seed,
                "versions": versions(),
                **provenance,
            }
            self.policy(network, models, jumps, origin).save(self.directory / "policy" / name)


def prepare(
    directory: Path,
    config: Config,
    dataset: OfflineDataset,
    accelerator: Accelerator,
    metrics: Metrics,
    log: Log,
    checkpoint_seconds: float,
    should_stop: Callable[[], bool],
    source: Policy | None,
) -> Run:
    """Bring the dataset to the device; scales come from it, or from the policy whose teacher is used."""
    device = accelerator.device
    statistics = within(dataset.statistics(), config.action_range)
    scaling: dict[str, Any] = {
        "action_range": config.action_range,
        "action_outliers": int(statistics.action_outliers.sum()),
    }
    if source is not None:
        scaling = source.spec.provenance.get("scaling") or {}
    mean, std, targets, largest = 0.0, 1.0, torch.empty(0), float(config.horizon)
    samples: ActionSequences | Plans
    if config.plan is not None:
        if source is None:
            fitted = PlanNormalizer.of_states(statistics, config.horizon, config.plan.points)
            samples = Plans(dataset, config.horizon, fitted.to(device))
            samples.fit(config.seed)
        else:
            samples = Plans(dataset, config.horizon, cast(Planner, source).normalizer.to(device))
    else:
        gamma = config.return_model.gamma
        assert gamma is not None, "resolve() has not been called"
        returns = return_to_go(dataset, gamma, penalty_of(config))
        mean = float(returns.mean(dtype=np.float64)) if source is None else source.spec.return_mean
        # A dataset whose returns are all alike has nothing to rank; one unit then keeps them at zero.
        std = (float(returns.std(dtype=np.float64)) or 1.0) if source is None else source.spec.return_std
        returns -= mean
        returns /= std
        targets = torch.from_numpy(returns).to(device)
        largest = float(returns.max()) if returns.max() > 0 else 1.0
        normalizer = Normalizer.of(statistics) if source is None else source.normalizer
        windows = Windows(dataset, config.horizon, config.history, device)
        samples = ActionSequences(windows, normalizer.to(device))
        log.say(
            f"{escape(dataset.name)}: {len(windows):,} windows, {windows.padded_share:.1%} of their actions repeat an "
            "episode's last one"
        )
    return Run(
        directory=directory,
        config=config,
        dataset=dataset,
        samples=samples,
        normalizer=samples.normalizer,
        targets=targets,
        largest_return=largest,
        maze=maze_of(dataset),
        scaling=scaling,
        return_mean=mean,
        return_std=std,
        accelerator=accelerator,
        metrics=metrics,
        log=log,
        checkpoint_seconds=checkpoint_seconds,
        should_stop=should_stop,
    )
