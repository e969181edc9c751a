"""Training a critic that is fixed before the student, with a look at its error on held-out episodes on the way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ractd.critics import Critic, critic_class
from ractd.data import OfflineDataset
from ractd.training.best import keep_best, load_best
from ractd.training.loop import averaged_copy
from ractd.training.run import Run

STAGE = "return"
VALIDATE_EVERY = 500
"""Steps between looks at the critic's error on held-out episodes."""


def held_out(dataset: OfflineDataset, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split the transitions by episode into training and validation rows; a dataset of one episode validates on itself."""
    count = min(max(1, round(share * dataset.num_episodes)), dataset.num_episodes - 1)
    validation = np.zeros(dataset.num_episodes, bool)
    validation[np.random.default_rng(seed).permutation(dataset.num_episodes)[:count]] = True
    rows = np.repeat(validation, dataset.episode_lengths)
    inside, outside = torch.from_numpy(np.flatnonzero(~rows)), torch.from_numpy(np.flatnonzero(rows))
    return inside, outside if count else inside


def train_critic(run: Run) -> Critic:
    """Train the critic of the run's kind of sequence on what the data says its sequences were worth."""
    config = run.config.return_model
    rows, validation_rows = (r.to(run.device) for r in held_out(run.dataset, config.validation_share, run.config.seed))
    run.seed_weights(STAGE)
    kind = critic_class(config.kind or run.sequence.critic, "--return-model.kind")
    critic, objective = kind.fit(config, run.sequence, run.dataset, rows)
    objective.average = average = averaged_copy(critic)
    stage = run.stage(STAGE, objective, average, config.optimization)

    def validate(step: int, metrics: dict[str, float]) -> dict[str, float]:
        if step % VALIDATE_EVERY and step != config.optimization.steps:
            return {}
        error = objective.error(average, validation_rows)
        if objective.best_by_error:
            keep_best(stage, step, -error, average)
        return {"validation_mse": error}

    stage.hooks.append(validate)
    run.train(stage)
    run.accelerator.wait_for_everyone()
    if objective.best_by_error:
        load_best(stage, average)
    return average  # type: ignore[return-value]
