"""The stages of a run: what each one needs, trains and leaves behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ractd.config import Config, Optimization, Student
from ractd.data import OfflineDataset, return_to_go
from ractd.data.dataset import describe
from ractd.data.windows import Windows
from ractd.envs.evaluate import evaluate
from ractd.models import ReturnNetwork, build_network, copy_matching
from ractd.models.normalizer import Normalizer
from ractd.policy import Policy, PolicySpec
from ractd.training.checkpoint import load_weights, read_tensors, write_tensors
from ractd.training.collapse import CollapseWatch, complaint
from ractd.training.ddpm import NoiseObjective
from ractd.training.log import Log
from ractd.training.loop import Stage, averaged_copy, read_step, run_stage
from ractd.training.metrics import Metrics
from ractd.training.returns import ReturnObjective
from ractd.training.rundir import versions
from ractd.training.student import StudentObjective
from ractd.training.teacher import Reward, TeacherObjective

CHECKPOINT_SEED = 100_000_000
"""Evaluations during training use environment seeds from here on; the final one never does."""
WATCH_EVERY = 500
"""Steps between looks for collapse."""
VALIDATE_EVERY = 500
"""Steps between looks at the return model's error on held-out episodes."""


@dataclass
class Run:
    """What the stages of one run share."""

    directory: Path
    config: Config
    dataset: OfflineDataset
    windows: Windows
    normalizer: Normalizer
    targets: Tensor
    """Returns-to-go `[N]` in standard deviations from their mean."""
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
        return Stage(
            name,
            objective,
            average,
            optimization,
            self.config.seed,
            directory,
            checkpoint_seconds=self.checkpoint_seconds,
        )

    def train(self, stage: Stage) -> None:
        """Run one stage to its end, saying how long it took."""
        before, steps = read_step(stage.checkpoint), stage.optimization.steps
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
        condition_dim = config.history * self.dataset.observation_dim
        return build_network(network, config.horizon, self.dataset.action_dim, condition_dim, jumps)

    def policy(
        self, network: nn.Module, return_network: ReturnNetwork, jumps: bool, provenance: dict[str, Any]
    ) -> Policy:
        """Put a trained network, the return model and the statistics together."""
        config = self.config
        ddpm = config.teacher.ddpm if config.teacher.parametrization == "ddpm" and not jumps else None
        spec = PolicySpec(
            observation_dim=self.dataset.observation_dim,
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
            provenance=provenance,
        )
        return Policy(spec, network, return_network, self.normalizer)

    def save_policy(
        self, name: str, network: nn.Module, return_network: ReturnNetwork, jumps: bool, provenance: dict[str, Any]
    ) -> None:
        """Write `policy/<name>` with where it comes from."""
        if self.accelerator.is_main_process:
            origin = {"dataset": describe(self.dataset), "seed": self.config.seed, "versions": versions(), **provenance}
            self.policy(network, return_network, jumps, origin).save(self.directory / "policy" / name)


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
    gamma = config.return_model.gamma
    assert gamma is not None, "resolve() has not been called"
    returns = return_to_go(dataset, gamma, config.return_model.termination_penalty)
    mean = float(returns.mean(dtype=np.float64)) if source is None else source.spec.return_mean
    # A dataset whose returns are all alike has nothing to rank; one unit then keeps them at zero.
    std = (float(returns.std(dtype=np.float64)) or 1.0) if source is None else source.spec.return_std
    returns -= mean
    returns /= std
    return Run(
        directory=directory,
        config=config,
        dataset=dataset,
        windows=Windows(dataset, config.horizon, config.history, device),
        normalizer=(Normalizer.of(dataset.statistics()) if source is None else source.normalizer).to(device),
        targets=torch.from_numpy(returns).to(device),
        return_mean=mean,
        return_std=std,
        accelerator=accelerator,
        metrics=metrics,
        log=log,
        checkpoint_seconds=checkpoint_seconds,
        should_stop=should_stop,
    )


def finished_steps(directory: Path, stage: str) -> int:
    """Return how many steps a stage of a run has behind it."""
    return read_step(directory / "checkpoints" / stage / "last.safetensors")


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


def held_out(dataset: OfflineDataset, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split the transitions by episode into training and validation rows; a dataset of one episode validates on itself."""
    count = min(max(1, round(share * dataset.num_episodes)), dataset.num_episodes - 1)
    validation = np.zeros(dataset.num_episodes, bool)
    validation[np.random.default_rng(seed).permutation(dataset.num_episodes)[:count]] = True
    rows = np.repeat(validation, dataset.episode_lengths)
    inside, outside = torch.from_numpy(np.flatnonzero(~rows)), torch.from_numpy(np.flatnonzero(rows))
    return inside, outside if count else inside


def train_return(run: Run) -> ReturnNetwork:
    """Train the return model; its weights are those with the smallest error on held-out episodes."""
    config, dataset = run.config.return_model, run.dataset
    run.seed_weights("return")
    network = ReturnNetwork(dataset.observation_dim, dataset.action_dim, config.layers, config.members)
    rows, validation_rows = (
        r.to(run.targets.device) for r in held_out(dataset, config.validation_share, run.config.seed)
    )
    objective = ReturnObjective(network, run.normalizer, run.windows, run.targets, rows, config.action_noise)
    average = averaged_copy(network)
    stage = run.stage("return", objective, average, config.optimization)

    def validate(step: int, metrics: dict[str, float]) -> dict[str, float]:
        if step % VALIDATE_EVERY and step != config.optimization.steps:
            return {}
        error = objective.error(average, validation_rows)
        keep_best(stage, step, -error, average)
        return {"validation_mse": error}

    stage.hooks.append(validate)
    run.train(stage)
    run.accelerator.wait_for_everyone()
    load_best(stage, average)
    return average  # type: ignore[return-value]


def train_teacher(run: Run, return_network: ReturnNetwork | None) -> nn.Module:
    """Train the diffusion teacher, with R where it is to be reward-aware; its averaged weights are what is used."""
    network, config = run.denoiser("teacher", jumps=False), run.config.teacher
    objective: nn.Module
    if config.parametrization == "ddpm":
        objective = NoiseObjective(network, run.normalizer, run.windows, config.ddpm)
    else:
        reward = None
        if return_network is not None and config.reward_weight != 0:
            reward = Reward(
                return_network,
                config.reward_weight,
                config.reward_share,
                config.bound_weight,
                lambda x: run.accelerator.reduce(x, "mean"),  # type: ignore[return-value,arg-type]
            )
        objective = TeacherObjective(network, run.normalizer, run.windows, run.config.diffusion, config.loss, reward)
    average = averaged_copy(network)
    run.train(run.stage("teacher", objective, average, config.optimization))
    return average


def train_student(run: Run, name: str, config: Student, teacher: nn.Module, return_network: ReturnNetwork) -> None:
    """Distil a student and write its policy, selected as the configuration says; watch for collapse on the way."""
    evaluation, dataset = run.config.evaluation, run.dataset
    steps = config.optimization.steps
    network = run.denoiser(name, jumps=True)
    copy_matching(teacher, network)
    average = averaged_copy(network)
    device = run.accelerator.device
    teacher, return_network = teacher.to(device), return_network.to(device)
    objective = StudentObjective(
        network,
        average,
        teacher,
        return_network,
        run.normalizer,
        run.windows,
        run.config.diffusion,
        config,
        run.return_std,
        lambda x: run.accelerator.reduce(x, "mean"),  # type: ignore[return-value,arg-type]
    )
    stage = run.stage(name, objective, average, config.optimization)
    online = evaluation.select == "online" and dataset.env_id is not None
    marks = (
        {round(steps * (i + 1) / evaluation.checkpoints) for i in range(evaluation.checkpoints)} if online else set()
    )
    stage.milestones = frozenset(marks)
    watch = CollapseWatch(
        teacher,
        return_network,
        run.normalizer,
        run.windows,
        run.config.diffusion,
        float(run.targets.max()),
        run.config.seed,
    )

    def look_for_collapse(step: int, metrics: dict[str, float]) -> dict[str, float]:
        if step % WATCH_EVERY and step != steps:
            return {}
        measured = watch.measure(average)
        why = complaint(measured)
        if "collapse" not in stage.record:
            if why is None:
                write_tensors(stage.directory / "healthy.safetensors", average.state_dict(), {"step": step})
            else:
                stage.record["collapse"] = {"step": step, "why": why}
                run.log.say(
                    f"[yellow]warning:[/] the {name} student is collapsing at step {step}: {why}. The last checkpoint before "
                    f"it is kept as policy '{name}-before-collapse'; a smaller --reward-weight or --student.reward-share helps"
                )
        return measured

    def score(step: int, metrics: dict[str, float]) -> dict[str, float]:
        if step not in marks:
            return {}
        assert dataset.env_id is not None
        policy = run.policy(average, return_network, True, {}).reset(run.config.seed)
        result = evaluate(
            policy.act_chunk,
            dataset.env_id,
            episodes=evaluation.checkpoint_episodes,
            execute=evaluation.execute,
            history=run.config.history,
            seed=CHECKPOINT_SEED + 1_000 * run.config.seed,
        )
        keep_best(stage, step, result.mean_return, average)
        return {"episode_return": result.mean_return, "episode_return_se": result.return_se}

    stage.hooks += [look_for_collapse, score]
    run.train(stage)
    if not run.accelerator.is_main_process:
        return
    if online:
        load_best(stage, average)
    selection = {"selection": "online", **stage.record["best"]} if online else {"selection": "last", "step": steps}
    provenance = {**selection, "collapse": stage.record.get("collapse"), "reward_weight": config.reward_weight}
    run.save_policy(name, average, return_network, True, provenance)
    healthy = stage.directory / "healthy.safetensors"
    if "collapse" in stage.record and healthy.exists():
        tensors, header = read_tensors(healthy)
        load_weights(average, tensors, healthy)
        provenance = {"selection": "before collapse", "step": header["step"], "reward_weight": config.reward_weight}
        run.save_policy(f"{name}-before-collapse", average, return_network, True, provenance)


def copy_policies(source: Path, directory: Path) -> None:
    """Copy another run's teacher and plain student, so that this run stands alone."""
    for name in ("teacher", "plain"):
        origin, target = source / "policy" / name, directory / "policy" / name
        if origin.is_dir() and not target.is_dir():
            partial = target.with_name(f".{name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(origin, partial)
            partial.rename(target)
