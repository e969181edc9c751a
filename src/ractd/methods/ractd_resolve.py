"""What RACTD's settings leave to the data and to a teacher of another run, and what can't go together."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from ractd.critics import Critic, critic_class
from ractd.critics.settings import ReturnModel
from ractd.data import OfflineDataset
from ractd.data.returns import resolved_penalty
from ractd.data.scores import d4rl_name, family
from ractd.data.shares import best_episodes, return_spread
from ractd.diffusion.settings import Diffusion
from ractd.envs.maze import maze_of
from ractd.errors import RactdError
from ractd.methods.ractd_settings import DEFAULT_GAMMA, ENOUGH_SPREAD, FOLLOWING_WEIGHT, GAMMA, TABLE_9, Config
from ractd.policies import Policy
from ractd.sequences import sequence_class
from ractd.sequences.settings import StatesSettings
from ractd.training.run import Asked

NO_STUDENT = "a student is distilled along the PF-ODE of an EDM teacher, and this one is a DDPM"


def resolve(config: Config, data: OfflineDataset, asked: Asked) -> Config:
    """Fill in what depends on the data or on another run's teacher, and refuse what doesn't go together.

    That is the paper's discount of the data's environment, its reward weight where the data is one of D4RL's datasets or
    rebuilds it (`d4rl_name`), the penalty of a failure, and whether it is executed closed or open loop.

    Raises:
        RactdError: For a planner without a maze, a teacher that doesn't fit, a reward without returns, or a network that can't be
            built.
    """
    _check_plan(config, data, asked.only)
    _check_only(config, asked.only)
    if asked.teacher is not None:
        config = _with_teacher(config, asked.teacher, data, asked.teacher_from)
    theirs = None if config.follows else asked.teacher
    learns_returns = data.has_rewards if theirs is None else theirs.critic is not None
    if not config.sequence.open_loop and not learns_returns:
        config = _without_returns(config, asked.only)
    returns, student, evaluation = config.return_model, config.student, config.evaluation
    gamma = GAMMA.get(family(data.env_id or "") or "", DEFAULT_GAMMA) if returns.gamma is None else returns.gamma
    penalty = resolved_penalty(data, returns.termination_penalty)
    if student.reward_weight is None:
        weight: Any = TABLE_9.get(d4rl_name(data) or "", "auto")
        if config.follows:
            # Where all returns are the same, who accepts that wants to learn how soon rewards come.
            weight = FOLLOWING_WEIGHT * min((return_spread(data) or ENOUGH_SPREAD) / ENOUGH_SPREAD, 1.0)
        student = replace(student, reward_weight=weight)
    if evaluation.execute is None:
        evaluation = replace(evaluation, execute=config.horizon if config.sequence.open_loop else 1)
    config = replace(
        config,
        return_model=replace(returns, gamma=gamma, termination_penalty=penalty),
        student=student,
        evaluation=evaluation,
    )
    if asked.only == "student" and config.teacher.parametrization == "ddpm":
        raise RactdError(f"--only student: {NO_STUDENT}; train one with --teacher.parametrization edm")
    kind = returns.kind and critic_class(returns.kind, "--return-model.kind")
    if kind and config.fixed_critic and not kind.fitted_before:
        raise RactdError(
            f"--return-model.kind is {returns.kind!r}, which is learnt with its policy; expected 'q' for values that "
            "follow the student"
        )
    best_episodes(data, student.share, student.optimization.batch_size)
    _check_networks(config, data)
    return config


def _without_returns(config: Config, only: str | None) -> Config:
    """Return the settings of a run without a return model; raises `RactdError` for those that ask for one."""
    weights = {"student": config.student.reward_weight, "teacher": config.teacher.reward_weight}
    for stage, weight in weights.items():
        if weight not in (None, "auto", 0):
            raise RactdError(f"--{stage}.reward-weight is {weight}, and there are no rewards to weigh; leave it out")
    if config.student.share not in (1, "auto"):
        raise RactdError(
            f"--student.share is {config.student.share}, expected 1: there are no rewards, so no episode is best"
        )
    if only == "return":
        raise RactdError("--only return: there are no rewards, so there are no returns to learn")
    return replace(
        config,
        return_model=replace(config.return_model, members=0),
        teacher=replace(config.teacher, reward_weight=0.0),
        student=replace(config.student, reward_weight=0.0, pessimism=0.0, share=1.0),
    )


def _check_networks(config: Config, data: OfflineDataset) -> None:
    """Raise `RactdError` for networks that can't be built, before the hours that come before they are."""
    sequence = sequence_class(config.sequence.kind).describe(config, data)
    with torch.device("meta"):
        for network in (config.teacher.network, config.student_network):
            network.build(sequence.shape, sequence.condition_dim, jumps=True)


def _check_plan(config: Config, data: OfflineDataset, only: str | None) -> None:
    """Raise `RactdError` where a planner has no maze to plan in, or a setting makes no sense for it."""
    if not isinstance(config.sequence, StatesSettings):
        if only == "dynamics":
            raise RactdError("--only dynamics: only a planner has inverse dynamics; its presets are named maze2d-...")
        return
    if maze_of(data) is None:
        raise RactdError(
            f"dataset {data.name!r} is of {data.env_id or 'no environment'}, and a planner needs a maze to plan in: "
            "leave out --preset, or use a dataset that 'ractd data make maze2d-umaze' or '--maze FILE' made"
        )
    if config.history != 1:
        raise RactdError(f"--history is {config.history}, expected 1 for a planner: its states have their velocities")


def _check_only(config: Config, only: str | None) -> None:
    """Raise `RactdError` for a stage alone that a run of these settings doesn't have."""
    if (only == "teacher" and not config.student.distilled) or (only == "return" and not config.fixed_critic):
        raise RactdError(
            f"--only {only}: the settings train no such stage; name a preset that does, as cpu, or leave it out"
        )


def _with_teacher(config: Config, teacher: Policy, data: OfflineDataset, where: str) -> Config:
    """Return the settings with what a teacher decides: horizon, history, range of actions, noise levels, networks, critic."""
    if not config.student.distilled:
        raise RactdError(
            f"--teacher {where}: the settings train a student from scratch (student.distilled is False); use --preset cpu, or "
            "leave --teacher out"
        )
    sequence, critic = teacher.sequence, teacher.critic
    if sequence.kind != config.sequence.kind:
        raise RactdError(
            f"{where}: its teacher makes sequences of {sequence.kind}, and the settings are those of {config.sequence.kind}; "
            "see --preset"
        )
    if (sequence.environment_dim, sequence.action_dim) != (data.observation_dim, data.action_dim):
        raise RactdError(
            f"{where}: its teacher maps {sequence.environment_dim} observations to {sequence.action_dim} actions, "
            f"the dataset has {data.observation_dim} and {data.action_dim}"
        )
    schedule = teacher.sampling.schedule
    if teacher.sampling.kind != "teacher" or not isinstance(schedule, Diffusion):
        raise RactdError(f"{where}: {NO_STUDENT}; name a run that was trained with --teacher.parametrization edm")
    found = (teacher.provenance.get("scaling") or {}).get("action_range")
    action_range = None if found is None else tuple(found)
    if config.action_range not in (None, action_range):
        raise RactdError(
            f"--action-range can't be given with --teacher {where}: the range is the teacher's; leave it out"
        )
    theirs = {f.name: getattr(sequence.part, f.name) for f in fields(config.sequence) if hasattr(sequence.part, f.name)}  # type: ignore[arg-type]
    returns = config.return_model
    if not config.follows:  # else the teacher's critic is of no use
        returns = _with_critic(returns, critic, where)
    return replace(
        config,
        action_range=action_range,
        horizon=sequence.horizon,
        history=sequence.history,
        sequence=replace(config.sequence, **theirs),  # type: ignore[type-var]
        diffusion=schedule,
        teacher=replace(config.teacher, network=teacher.network_settings, parametrization="edm"),
        return_model=returns,
    )


def _with_critic(returns: ReturnModel, critic: Critic | None, where: str) -> ReturnModel:
    """Return a return model's settings with what a trained one decides: members, layers, discount."""
    if critic is None:
        return replace(returns, members=0)
    part = critic.part
    if returns.kind not in (None, part.kind):
        raise RactdError(
            f"--return-model.kind is {returns.kind!r}, and the critic of {where} is of kind {part.kind!r}, which its student is "
            "paid by; leave it out"
        )
    if returns.gamma not in (None, part.gamma):
        raise RactdError(
            f"--return-model.gamma is {returns.gamma:g}, and the return model of {where} has learnt returns with a discount of "
            f"{part.gamma:g}; expected the same: --return-model.gamma {part.gamma:g}"
        )
    return replace(returns, members=part.members, layers=part.layers, gamma=part.gamma)
