"""Reward-aware consistency trajectory distillation, RACTD: the paper from eq. 4 to eq. 9, and the stages of a run.

A diffusion teacher learns the data's sequences (eq. 4). A student is distilled from it that reaches clean sequences in one step
(CTM, eq. 5 to 7), and is paid by a critic for what its one-step samples are worth (eq. 8 and 9). With sequences of states and the
goal critic this is the paper's planner (section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ractd.critics import Critic, differentiated, pessimistic, without_gradient
from ractd.critics.td import ImplicitQ
from ractd.data.shares import best_episodes, return_spread
from ractd.diffusion import ctm
from ractd.diffusion.edm import (
    Preconditioned,
    WeightedDistance,
    draw_sigma,
    dsm_loss,
    expand,
    sigma_schedule,
    weighted_pseudo_huber,
    weighted_square,
)
from ractd.diffusion.samplers import refinement_levels, to_clean
from ractd.diffusion.settings import Diffusion
from ractd.errors import RactdError
from ractd.methods import Method, meanings
from ractd.methods.following import FollowingCritic
from ractd.methods.ractd_ddpm import NoiseObjective
from ractd.methods.ractd_policies import copy_policies, student_policy, teacher_policy, variants
from ractd.methods.ractd_resolve import NO_STUDENT, resolve
from ractd.methods.ractd_settings import PRESETS, Distance, Student, Teacher
from ractd.networks import Network, copy_matching
from ractd.networks.tensors import load_weights, read_tensors
from ractd.policies import Policy
from ractd.sequences import Samples, Sequence
from ractd.settings import Optimization
from ractd.training.auto_weight import RewardWeight, gradient_at_logged, mean_gradient
from ractd.training.collapse import CollapseWatch, watch_for_collapse
from ractd.training.critic import train_critic
from ractd.training.decoder import train_decoder
from ractd.training.loop import averaged_copy
from ractd.training.run import Run
from ractd.training.selection import train_policy

Losses = tuple[Tensor, dict[str, Tensor]]
"""A loss, and what the logger shows of it."""
DISTANCES: dict[Distance, WeightedDistance] = {"pseudo-huber": weighted_pseudo_huber, "square": weighted_square}
SHARE_AT_T = 0.3
"""How much the one-step sample counts in the data term, beside all lower noise levels."""


class TeacherObjective(nn.Module):
    """Denoising score matching (eq. 4); with a critic also the reward of the denoised estimates (paper, Table 4)."""

    def __init__(
        self,
        network: nn.Module,
        sequence: Sequence,
        samples: Samples,
        diffusion: Diffusion,
        config: Teacher,
        critic: Critic | None = None,
        mean_over_processes: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        super().__init__()
        self.network, self.config, self.diffusion = network, config, diffusion
        self.sequence, self.samples, self.critic = sequence, samples, critic
        self.weighted_distance = DISTANCES[config.loss]
        if critic is not None:
            critic.requires_grad_(False)
            self.row = differentiated(critic.row)
            at_logged = partial(gradient_at_logged, critic, self.row, sequence, samples)
            self.reward_weight = RewardWeight(config.reward_weight, config.reward_share, at_logged, mean_over_processes)

    @property
    def state(self) -> nn.Module | None:
        """What it keeps from step to step."""
        return None if self.critic is None else self.reward_weight

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: samples `[B]`, noise `[B, n, D]` and the normal draws of ln sigma `[B]`."""
        B = optimization.batch_size
        return {
            **self.samples.draw(B, generator),
            "noise": torch.randn(B, *self.sequence.shape, generator=generator),
            "sigma": torch.randn(B, generator=generator),
        }

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        condition, x0 = self.samples.gather(draws)
        t = draw_sigma(draws["sigma"], self.diffusion)
        x_t = x0 + expand(t, x0) * draws["noise"]
        estimate = Preconditioned(self.network, self.diffusion)(x_t, t, condition)
        dsm = self.weighted_distance(x0, estimate, t, self.diffusion)
        loss, terms = dsm.mean(), {"dsm": dsm.detach().mean()}
        if self.critic is not None:
            reward, reward_terms = self.reward_loss(self.critic, condition, estimate, dsm)
            loss, terms = loss + reward, terms | reward_terms
        return {"loss": loss, **terms}

    def reward_loss(self, critic: Critic, condition: Tensor, estimate: Tensor, dsm: Tensor) -> Losses:
        """Return eq. 8 on denoised estimates, weighted, with the penalty on what leaves the bounds."""
        entries = self.sequence.decode(estimate, condition)
        negative = -critic.value(condition, entries, self.row)
        reward, bound = negative.mean(), ctm.bound_excess(entries, self.sequence.rewarded).mean()
        weight = self.reward_weight(lambda: (mean_gradient(dsm, estimate), mean_gradient(negative, estimate)))
        return weight * reward + self.config.bound_weight * bound, {
            "reward": reward.detach(),
            "bound": bound.detach(),
            "reward_weight": weight.detach(),
            "estimated_return": -reward.detach(),
            "out_of_bounds": (entries.detach().abs() > 1).float().mean(),
        }


class StudentObjective(nn.Module):
    """The student's losses (eq. 5 to 9); with reward weight 0, plain consistency trajectory distillation."""

    def __init__(
        self,
        network: nn.Module,
        average: nn.Module,
        teacher: nn.Module | None,
        critic: Critic | None,
        sequence: Sequence,
        samples: Samples,
        diffusion: Diffusion,
        config: Student,
        mean_over_processes: Callable[[Tensor], Tensor] = lambda x: x,
        rows: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """Put a student's losses together: of the transitions `rows` int64 `[R]`, `weights [N]` those of all in eq. 7."""
        super().__init__()
        self.network, self.average, self.teacher, self.critic = network, average, teacher, critic
        self.rows, self.weights = rows, weights
        self.sequence, self.samples, self.diffusion, self.config = sequence, samples, diffusion, config
        self.sigmas: Tensor
        self.register_buffer("sigmas", sigma_schedule(diffusion), persistent=False)
        average.requires_grad_(False)
        self.g, self.g_target = Preconditioned(network, diffusion), Preconditioned(average, diffusion)
        if teacher is not None:
            self.D = Preconditioned(teacher.requires_grad_(False), diffusion)
        self.mean_over_processes = mean_over_processes
        if critic is not None:
            critic.requires_grad_(not critic.fitted_before)
            self.unit = 1.0 if config.normalize_returns else critic.std
            self.row = (differentiated if config.reward_weight != 0 else without_gradient)(
                pessimistic(critic, config.pessimism)
            )
            self.reward_weight = RewardWeight(
                cast(Any, config.reward_weight),
                config.reward_share,
                lambda: self.unit * gradient_at_logged(critic, self.row, sequence, samples),
                mean_over_processes,
            )

    @property
    def state(self) -> nn.Module | None:
        """What it keeps from step to step."""
        return None if self.critic is None else self.reward_weight

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        """Draw the global batch: samples, noises and times of the three losses."""
        B = optimization.batch_size
        return {
            **self.samples.draw(B, generator, self.rows),
            "noise": torch.randn(B, 3, *self.sequence.shape, generator=generator),
            "normal": torch.randn(B, generator=generator),
            "uniform": torch.rand(B, 4, generator=generator),
        }

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return eq. 9: `alpha CTM + beta DSM + sigma Reward`, and the penalty on what leaves the bounds."""
        config = self.config
        condition, x0 = self.samples.gather(draws)
        noise_ctm, noise_dsm, noise_T = draws["noise"].unbind(1)

        loss, terms = x0.new_zeros(()), dict[str, Tensor]()
        if config.ctm_weight:
            loss, terms = self.ctm_loss(x0, noise_ctm, draws["uniform"][:, :3], condition)
        sample = ctm.one_step(self.g, noise_T, condition, self.diffusion)
        dsm = self.dsm_loss(x0, sample, noise_dsm, condition, draws)
        if config.anchor == "ode":
            dsm = dsm + ctm.ode_loss(self.D, sample, noise_T, condition, self.diffusion)
        loss, terms = config.ctm_weight * loss + config.dsm_weight * dsm, {**terms, "dsm": dsm.detach()}
        if config.refinement_weight:
            refinement = self.refinement_loss(sample, noise_dsm, condition)
            loss, terms = loss + config.refinement_weight * refinement, {**terms, "refinement": refinement.detach()}

        entries = self.sequence.decode(sample, condition)
        if self.critic is not None:
            reward, reward_terms = self.reward_loss(self.critic, condition, x0, sample, entries)
            loss, terms = loss + reward, terms | reward_terms
        bound = ctm.bound_excess(entries, self.sequence.rewarded).mean()
        return {
            "loss": loss + config.bound_weight * bound,
            **terms,
            "bound": bound.detach(),
            "out_of_bounds": (entries.detach().abs() > 1).float().mean(),
        }

    def ctm_loss(self, x0: Tensor, noise: Tensor, uniform: Tensor, condition: Tensor) -> Losses:
        """Return the consistency trajectory loss (eq. 5 and 6), of a share of the batch."""
        config, diffusion = self.config, self.diffusion
        some = slice(0, math.ceil(config.ctm_share * len(x0)))
        times = ctm.draw_times(uniform[some], config.ode_steps, diffusion)
        loss = ctm.ctm_loss(
            self.g, self.g_target, self.D, x0[some], noise[some], times, condition[some], self.sigmas, config.ode_steps
        ).mean()
        return loss, {"ctm": loss.detach()}

    def dsm_loss(
        self, x0: Tensor, sample: Tensor, noise: Tensor, condition: Tensor, draws: dict[str, Tensor]
    ) -> Tensor:
        """Return the student's data term (eq. 7): at T that of the one-step sample, below T of half of the batch."""
        diffusion, weighted_distance = self.diffusion, DISTANCES[self.config.loss]
        half = slice(0, math.ceil(len(x0) / 2))
        t = ctm.student_sigma(draws["normal"][half], draws["uniform"][half, 3], diffusion)
        below = dsm_loss(to_clean(self.g), x0[half], noise[half], t, condition[half], diffusion, weighted_distance)
        at_T = weighted_distance(x0, sample, x0.new_full((1,), diffusion.sigma_max), diffusion)
        if self.weights is not None:
            weights = self.weights[draws["index"]]
            at_T, below = weights * at_T, weights[half] * below
        return SHARE_AT_T * at_T.mean() + (1 - SHARE_AT_T) * below.mean()

    def refinement_loss(self, sample: Tensor, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the distance of one-step samples to what a second step of the averaged student makes of them (paper, 5.3)."""
        T, t = sample.new_tensor(refinement_levels(self.diffusion, 2)).split(1)
        with torch.no_grad():
            refined = to_clean(self.g_target)(sample + t * noise, t, condition)
        return DISTANCES[self.config.loss](refined, sample, T, self.diffusion).mean()

    def reward_loss(self, critic: Critic, condition: Tensor, x0: Tensor, sample: Tensor, entries: Tensor) -> Losses:
        """Return the reward of one-step samples (eq. 8), weighted as configured or in proportion to the data's gradient."""
        negative = -critic.value(condition, entries, self.row)
        unit: Any = self.unit
        if not critic.fitted_before:
            # Values that follow the student grow as it does: in units of their own mean they pull alike (as in TD3+BC).
            unit = 1 / self.mean_over_processes(negative.detach().abs().mean()).clamp(min=1e-6)
        reward = unit * negative.mean()
        weight = self.reward_weight(lambda: self.gradients(x0, sample, negative))
        terms = {
            "reward": negative.detach().mean(),
            "reward_weight": weight.detach(),
            "estimated_return": -negative.detach().mean(),
        }
        if self.config.reward_weight == "auto":
            names = ("data_gradient", "reward_gradient", "reward_gradient_of_data")
            terms |= dict(zip(names, self.reward_weight.gradients.clone(), strict=True))
        return weight * reward, terms

    def gradients(self, x0: Tensor, sample: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean norms of the data's and the reward's gradient at one-step samples."""
        T = sample.new_tensor([self.diffusion.sigma_max])
        at_sample = sample.detach().requires_grad_()
        data = self.config.dsm_weight * DISTANCES[self.config.loss](x0, at_sample, T, self.diffusion)
        return mean_gradient(data, at_sample), self.unit * mean_gradient(negative, sample)


def train(run: Run) -> None:
    """Train critic, inverse dynamics (a planner's), teacher and students, as far as `run.asked.only` goes; save the policies."""
    config, asked = run.config, run.asked
    critic: Critic | None = None
    teacher: nn.Module | None = None
    if asked.teacher is not None:
        critic, teacher = asked.teacher.critic, asked.teacher.network
        copy_policies(run)
    elif config.student.distilled or asked.only not in (None, "student"):
        critic, teacher = _critic_and_teacher(run)
        if teacher is None:
            return
        origin = {"selection": "last", "reward_weight": config.teacher.reward_weight}
        run.save_policy("teacher", teacher_policy(run, teacher, critic, origin))
    else:
        critic = train_critic(run) if config.fixed_critic else None
        if run.sequence.decoder_stage is not None:
            train_decoder(run)
    if asked.only not in (None, "student"):
        return
    if config.teacher.parametrization == "ddpm":
        run.log.say(f"the run ends with its teacher: {NO_STUDENT}")
        return
    if asked.plain and asked.teacher is None and not config.follows and config.student.reward_weight != 0:
        train_student(run, "plain", 0.0, teacher, critic)
    train_student(run, "student", config.student.reward_weight, teacher, critic)


def _critic_and_teacher(run: Run) -> tuple[Critic | None, nn.Module | None]:
    """Train what students need; no teacher comes back where one of the stages is still to be trained."""
    config, only = run.config, run.asked.only
    steps = {"return": config.return_model.optimization.steps} if config.fixed_critic else {}
    steps["teacher"] = config.teacher.optimization.steps
    decoder = run.sequence.decoder_stage
    if decoder is not None:
        steps[decoder] = config.sequence.optimization.steps
    before = {"student": list(steps), "teacher": ["return"] if config.teacher.reward_weight != 0 else []}
    for name in before.get(only or "", []):
        if run.finished_steps(name) < steps[name]:
            raise RactdError(
                f"{run.directory}: its {name} is not trained; run with --only {name} first, or without --only"
            )
    trained = {name for name, count in steps.items() if run.finished_steps(name) >= count}
    here = set(steps) if only in (None, "student") else trained | {only}
    critic = train_critic(run) if "return" in here else None
    if decoder in here:
        train_decoder(run)
    teacher = train_teacher(run, critic) if "teacher" in here else None
    return critic, teacher if len(here) == len(steps) else None


def network_of(run: Run, name: str, settings: Network, jumps: bool) -> nn.Module:
    """Build a stage's network, its first weights a function of seed and stage."""
    run.seed_weights(name)
    return settings.build(run.sequence.shape, run.sequence.condition_dim, jumps)


def train_teacher(run: Run, critic: Critic | None) -> nn.Module:
    """Train the diffusion teacher, with the critic where it is to be reward-aware; its averaged weights are what is used."""
    config = run.config.teacher
    network = network_of(run, "teacher", config.network, jumps=False)
    objective: nn.Module
    if config.parametrization == "ddpm":
        objective = NoiseObjective(network, run.sequence, run.samples, config)
    else:
        objective = TeacherObjective(
            network,
            run.sequence,
            run.samples,
            run.config.diffusion,
            config,
            critic if config.reward_weight != 0 else None,
            run.mean_over_processes,
        )
    average = averaged_copy(network)
    run.train(run.stage("teacher", objective, average, config.optimization))
    return average


def train_student(run: Run, name: str, reward_weight: Any, teacher: nn.Module | None, critic: Critic | None) -> None:
    """Train a student, with the critic that follows it where there is one, and save its policies; watch for collapse on the way."""
    config = replace(run.config.student, reward_weight=reward_weight)
    network = network_of(run, name, run.config.student_network, jumps=True)
    if teacher is not None:
        copy_matching(teacher.to(run.device), network)
    average = averaged_copy(network)
    following = FollowingCritic(run, average) if run.config.follows and reward_weight else None
    if following is not None:
        critic = following.q
    elif critic is not None:
        critic = critic.to(run.device)
    best, sentence = best_episodes(run.dataset, config.share, config.optimization.batch_size)
    if config.share != 1:
        run.log.say(f"{name}: eq. 7 holds it to {sentence}")
    if following is not None:
        spread = f"for returns that spread by {return_spread(run.dataset):.0%} of their mean"
        run.log.say(f"{name}: Q weighs {reward_weight:.3g} beside eq. 7, {spread}")
    objective = StudentObjective(
        network,
        average,
        teacher,
        critic,
        run.sequence,
        run.samples,
        run.config.diffusion,
        config,
        run.mean_over_processes,
        None if config.share == 1 else torch.from_numpy(best),
        critic.advantage_weights(run.sequence, run.dataset, config.advantage_temperature)
        if config.advantage_temperature and isinstance(critic, ImplicitQ)
        else None,
    )
    if following is None:
        stage = run.stage(name, objective, average, config.optimization)
    else:
        stage = following.stage(run, name, objective, average, config.optimization)

    def policy(provenance: dict[str, Any]) -> Policy:
        return student_policy(run, average, critic, {**provenance, "reward_weight": reward_weight})

    if teacher is not None:
        largest = 1.0 if critic is None else critic.largest(run.config.return_model, run.dataset)
        watch = CollapseWatch(
            teacher, critic, run.sequence, run.samples, run.config.diffusion, largest, run.config.seed
        )
        smaller = {"auto": "--student.reward-share", 0: ""}.get(reward_weight, "--reward-weight")
        advice = f"; a smaller {smaller} helps" if smaller else ""
        stage.hooks.append(watch_for_collapse(watch, stage, average, run.log, advice))
    train_policy(run, name, stage, average, policy)
    healthy = stage.directory / "healthy.safetensors"
    if run.accelerator.is_main_process and "collapse" in stage.record and healthy.exists():
        tensors, header = read_tensors(healthy)
        load_weights(average, tensors, healthy)
        before = {"selection": "before collapse", "step": header["step"]}
        run.save_policy(f"{name}-before-collapse", policy(before))


METHOD = Method(
    name="ractd",
    summary="one-step student paid by a critic, by default one that follows it, or distilled from a teacher; plans in mazes",
    source="Accelerating Diffusion Models in Offline RL via Reward-Aware Consistency Trajectory Distillation (Duan et al., 2025)",
    presets=PRESETS,
    default="following",
    train=train,
    variants=variants,
    resolve=resolve,
    sequence=lambda config: config.sequence.kind,
    networks=lambda config: (config.teacher.network, config.student_network),
    termination_penalty=lambda config: config.return_model.termination_penalty,
    part_needs="rewards, for more than a plain student; to plan, a maze",
    stages=("return", "dynamics", "teacher", "student"),
    main_settings=(
        "return_model.gamma",
        "return_model.optimization.steps",
        "teacher.network.width",
        "teacher.optimization.steps",
        "student.share",
        "student.optimization.steps",
        "sequence.points",
    ),
    reuses_teacher=True,
    meanings=meanings.RACTD,
)
