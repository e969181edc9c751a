"""A critic of one's own, in one file: how long a robot stays on its feet after an action.

    python examples/own_critic.py hopper-mixed --out own-critic

RACTD pays its student by whatever critic `return_model.kind` names; candidates, estimates, the watch for collapse and the check of
an export follow.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

import ractd
from ractd.critics.critic import CRITICS
from ractd.critics.return_to_go import ReturnObjective, ReturnToGo, ReturnToGoPart
from ractd.critics.settings import ReturnModel
from ractd.data import OfflineDataset
from ractd.data.windows import Windows
from ractd.methods.ractd_settings import PRESETS
from ractd.sequences import Sequence

FAR = 100
"""Steps after which a fall counts no more."""


def steps_left(dataset: OfflineDataset) -> np.ndarray:
    """Return the steps from each row to the failure that ends its episode, `FAR` where that is further or never, float32 [N]."""
    left = np.repeat(dataset.episode_ends, dataset.episode_lengths) - np.arange(dataset.num_transitions)
    fails = np.repeat(dataset.ends.are("failure"), dataset.episode_lengths)
    return np.where(fails, np.minimum(left, FAR), FAR).astype(np.float32)


@dataclass(frozen=True)
class SurvivalPart(ReturnToGoPart):
    """What a policy's file says of it: what it says of a return model."""

    kind: ClassVar[str] = "survival"


class Survival(ReturnToGo):
    """How many steps the first action of a sequence is from a failure, at most `FAR`."""

    kind, Part = "survival", SurvivalPart

    @classmethod
    def fit(
        cls, config: ReturnModel, sequence: Sequence, dataset: OfflineDataset, rows: Tensor
    ) -> tuple[ReturnToGo, ReturnObjective]:
        """Return an untrained critic on the scale of the data, and what it minimises on the transitions `rows`."""
        steps = steps_left(dataset)
        mean, std = float(steps.mean()), float(steps.std()) or 1.0
        critic = cls.build(SurvivalPart(tuple(config.layers), config.members, mean, std, gamma=1.0), sequence)
        targets = torch.from_numpy((steps - mean) / std).to(rows.device)
        windows = Windows(dataset, 1, sequence.history, rows.device)
        return critic, ReturnObjective(critic, sequence, windows, targets, rows, config.action_noise)

    def largest(self, config: ReturnModel, dataset: OfflineDataset) -> float:
        """Return `FAR`, standardised: no sequence is worth more."""
        return max((FAR - self.mean) / self.std, 1e-6)


CRITICS["survival"] = f"{__name__}:Survival"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="of every stage, to see that it works")
    arguments = parser.parse_args()
    config = PRESETS["cpu"]
    stages = {name: getattr(config, name) for name in ("return_model", "teacher", "student")}
    if arguments.steps:
        few = {name: replace(stage.optimization, steps=arguments.steps) for name, stage in stages.items()}
        stages = {name: replace(stage, optimization=few[name]) for name, stage in stages.items()}
    stages["return_model"] = replace(stages["return_model"], kind="survival")
    config = replace(config, **stages, evaluation=replace(config.evaluation, episodes=10))
    result = ractd.train(arguments.log, config=config, out=arguments.out)
    observation, action = (
        np.zeros((1, result.policy().sequence.observation_dim)),
        np.zeros((1, result.policy().sequence.action_dim)),
    )
    print("steps that it expects on its feet:", result.policy().estimate_return(observation, action))
