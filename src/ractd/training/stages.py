"""The stages of a run: what each one needs, trains and leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ractd.data import OfflineDataset
from ractd.envs.environments import environments_of
from ractd.envs.evaluate import EvaluationResult, evaluate
from ractd.envs.maze import GOAL_RADIUS
from ractd.envs.seeds import CHECKPOINT, CONFIRMATION, environment_seed
from ractd.methods.ractd_settings import Plan, Student
from ractd.models import InverseDynamics, ReturnNetwork, copy_matching
from ractd.training.checkpoint import load_weights, read_tensors, write_tensors
from ractd.training.collapse import CollapseWatch, complaint
from ractd.training.ddpm import NoiseObjective
from ractd.training.loop import Stage, averaged_copy, read_step
from ractd.training.planner import DynamicsObjective, GoalRewardObjective
from ractd.training.returns import ReturnObjective
from ractd.training.run import Models, Run
from ractd.training.samples import Plans
from ractd.training.student import StudentObjective
from ractd.training.teacher import Reward, TeacherObjective

WATCH_EVERY = 500
"""Steps between looks for collapse."""
VALIDATE_EVERY = 500
"""Steps between looks at the return model's error on held-out episodes."""


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
    """Train the return model, or a planner's goal reward; its weights are those with the smallest error on held-out episodes."""
    config, dataset, samples = run.config.return_model, run.dataset, run.samples
    run.seed_weights("return")
    network = ReturnNetwork(dataset.observation_dim, samples.shape[1], config.layers, config.members)
    rows, validation_rows = (
        r.to(run.accelerator.device) for r in held_out(dataset, config.validation_share, run.config.seed)
    )
    objective: ReturnObjective | GoalRewardObjective
    if isinstance(samples, Plans):
        objective = GoalRewardObjective(network, samples, at_goal, rows, config.action_noise)
    else:
        objective = ReturnObjective(
            network, samples.normalizer, samples.windows, run.targets, rows, config.action_noise
        )
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


def at_goal(states: Tensor, goals: Tensor) -> Tensor:
    """Tell which raw states are near enough to their goals to be paid in a maze, both `[B, S]`."""
    near: Tensor = (states[:, :2] - goals[:, :2]).norm(dim=1) <= GOAL_RADIUS
    return near


def train_dynamics(run: Run, config: Plan) -> InverseDynamics:
    """Train a planner's inverse dynamics."""
    run.seed_weights("dynamics")
    dataset = run.dataset
    network = InverseDynamics(dataset.observation_dim, dataset.action_dim, config.dynamics_layers)
    actions = torch.from_numpy(dataset.actions).to(run.accelerator.device)
    objective = DynamicsObjective(network, cast(Plans, run.samples), actions)
    average = averaged_copy(network)
    run.train(run.stage("dynamics", objective, average, config.optimization))
    return cast(InverseDynamics, average)


def train_teacher(run: Run, return_network: ReturnNetwork) -> nn.Module:
    """Train the diffusion teacher, with R where it is to be reward-aware; its averaged weights are what is used."""
    network, config = run.denoiser("teacher", jumps=False), run.config.teacher
    objective: nn.Module
    if config.parametrization == "ddpm":
        objective = NoiseObjective(network, run.samples, config.ddpm)
    else:
        reward = None
        if config.reward_weight != 0:
            reward = Reward(
                return_network,
                config.reward_weight,
                config.reward_share,
                config.bound_weight,
                lambda x: run.accelerator.reduce(x, "mean"),  # type: ignore[return-value,arg-type]
            )
        objective = TeacherObjective(network, run.samples, run.config.diffusion, config.loss, reward)
    average = averaged_copy(network)
    run.train(run.stage("teacher", objective, average, config.optimization))
    return average


def train_student(run: Run, name: str, config: Student, teacher: nn.Module, models: Models) -> None:
    """Distil a student and write its policy, selected as the configuration says; watch for collapse on the way."""
    evaluation, dataset = run.config.evaluation, run.dataset
    steps = config.optimization.steps
    network = run.denoiser(name, jumps=True)
    copy_matching(teacher, network)
    average = averaged_copy(network)
    device = run.accelerator.device
    teacher, return_network = teacher.to(device), models.returns.to(device)
    objective = StudentObjective(
        network,
        average,
        teacher,
        return_network,
        run.samples,
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
        run.samples,
        run.config.diffusion,
        run.largest_return,
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
                healthy = (stage.directory / "healthy.safetensors").exists()
                kept = (
                    f"The last checkpoint before it is kept as policy '{name}-before-collapse'; a" if healthy else "A"
                )
                run.log.say(
                    f"[yellow]warning:[/] policy '{name}' is collapsing at step {step}: {why}. "
                    f"{kept} smaller --reward-weight or --student.reward-share helps"
                )
        return measured

    def score(step: int, metrics: dict[str, float]) -> dict[str, float]:
        if step not in marks:
            return {}
        policy = run.policy(average, models, True, {}).folded()

        def play(episodes: int, purpose: int) -> EvaluationResult:
            return evaluate(
                policy.reset(run.config.seed).acting(),
                cast(str, dataset.env_id),
                episodes=episodes,
                execute=evaluation.execute or 1,
                history=run.config.history,
                seed=environment_seed(run.config.seed, purpose),
                make=environments_of(dataset, dataset.source),
            )

        result = play(evaluation.checkpoint_episodes, CHECKPOINT)
        scored = {"episode_return": result.mean_return, "episode_return_se": result.return_se}
        if "best" in stage.record and result.mean_return <= stage.record["best"]["value"]:
            return scored
        confirmed = play(evaluation.episodes, CONFIRMATION)
        keep_best(stage, step, confirmed.mean_return, average)
        return scored | {"confirmed_return": confirmed.mean_return, "confirmed_return_se": confirmed.return_se}

    stage.hooks += [look_for_collapse, score]
    run.train(stage)
    if not run.accelerator.is_main_process:
        return
    if online:
        load_best(stage, average)
    selection = {"selection": "online", **stage.record["best"]} if online else {"selection": "last", "step": steps}
    provenance = {**selection, "collapse": stage.record.get("collapse"), "reward_weight": config.reward_weight}
    run.save_policy(name, average, models, True, provenance)
    healthy = stage.directory / "healthy.safetensors"
    if "collapse" in stage.record and healthy.exists():
        tensors, header = read_tensors(healthy)
        load_weights(average, tensors, healthy)
        provenance = {"selection": "before collapse", "step": header["step"], "reward_weight": config.reward_weight}
        run.save_policy(f"{name}-before-collapse", average, models, True, provenance)


def copy_policies(source: Path, directory: Path) -> None:
    """Copy another run's teacher and plain student, so that this run stands alone."""
    for name in ("teacher", "plain"):
        origin, target = source / "policy" / name, directory / "policy" / name
        if origin.is_dir() and not target.is_dir():
            partial = target.with_name(f".{name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(origin, partial)
            partial.rename(target)
