"""A critic that follows the student: action values of what the student does now, learnt in turns with it.

The paper's return model is fixed before the student and values what the data did. This one asks what comes of the student's own
next action, as in TD3+BC (Fujimoto and Gu, 2021), and lowers that value where the action leaves the data's, as in ReBRAC (Tarasov
et al., Revisiting the Minimalist Approach to Offline Reinforcement Learning, 2023).
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from ractd.critics.q import QFunction, QPart
from ractd.critics.return_to_go import discount_and_penalty
from ractd.diffusion.ctm import one_step
from ractd.diffusion.edm import Preconditioned
from ractd.methods.ractd_settings import Config
from ractd.networks.ensemble import Ensemble
from ractd.settings import Optimization
from ractd.training.loop import Draws, Follower, Objective, Stage, Terms, Update, averaged_copy
from ractd.training.run import Run
from ractd.training.transitions import Batch, TransitionSamples


def critic_loss(critic: Ensemble, target: Ensemble, batch: Batch, next_action: Tensor, penalty: float) -> Terms:
    """Return the squared errors of every member against `r + gamma^n (min Q'(s', a') - penalty |a' - logged a'|^2)`.

    `next_action` `[B, A]` is the averaged student's. Where no action was logged after the n steps nothing is subtracted.
    """
    with torch.no_grad():
        left = batch.continued * (next_action - batch.next_action).square().sum(1)
        after = target(torch.cat([batch.next_condition, next_action], 1)).amin(0) - penalty * left
        value = batch.reward + batch.discount * after
    q = critic(torch.cat([batch.condition, batch.action], 1))
    return {"loss": (q - value).square().mean(1).sum(), "q": q.detach().mean(), "left_data": left.mean()}


class FollowingCritic:
    """The critic of a run, what it is trained on, and the stage in which it and the student take turns."""

    def __init__(self, run: Run, average: nn.Module) -> None:
        """Build the critic; `average` is the averaged student, whose next actions it values."""
        config: Config = run.config
        self.settings, returns = config.student.following, config.return_model
        gamma, penalty = discount_and_penalty(returns)
        self.sequence, self.diffusion = run.sequence, config.diffusion
        self.g = Preconditioned(average, config.diffusion)
        self.samples = TransitionSamples(run.sequence, run.dataset, self.settings.n_step, gamma, penalty)
        part = QPart(returns.layers, True, returns.members, self.samples.unit, gamma)
        self.q = QFunction.build(part, run.sequence).to(run.device)
        self.target = averaged_copy(self.q.ensemble)
        student = config.student.optimization
        self.optimization = replace(returns.optimization, steps=student.steps, batch_size=student.batch_size)

    def draw(self, generator: torch.Generator) -> Draws:
        """Draw transitions, and the noise of the student's next actions."""
        B = self.optimization.batch_size
        noise = torch.randn(B, *self.sequence.shape, generator=generator)
        return {"transition": self.samples.draw(B, generator)["index"], "next_noise": noise}

    def loss(self, draws: Draws) -> Terms:
        """Return the terms of a step."""
        batch = self.samples.gather({"index": draws["transition"]})
        with torch.no_grad():
            x = one_step(self.g, draws["next_noise"], batch.next_condition, self.diffusion)
            next_action = self.sequence.decode(x, batch.next_condition)[:, 0].clamp(-1, 1)
        return critic_loss(self.q.ensemble, self.target, batch, next_action, self.settings.distance_penalty)

    def stage(self, run: Run, name: str, objective: nn.Module, average: nn.Module, optimization: Optimization) -> Stage:
        """Describe the stage: the critic in every step, the student in one of `every`."""
        every, trained = self.settings.every, cast(Objective, objective)
        return run.stage_of(
            name,
            [
                Update("critic", self.q.ensemble, self.loss, self.optimization),
                Update("network", trained.network, objective, optimization, every=every),
            ],
            [
                Follower("target", self.q.ensemble, self.target, 1 - self.settings.tau),
                Follower("average", trained.network, average, optimization.ema, grows=True, every=every),
            ],
            lambda generator: trained.draw(generator, optimization) | self.draw(generator),
            exploded=None,
        )
