"""Which of a training's checkpoints becomes the policy: the last one, or the best by playing (paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from ractd.envs.environments import environments_of
from ractd.envs.evaluate import EvaluationResult, evaluate
from ractd.envs.seeds import CHECKPOINT, CONFIRMATION, environment_seed
from ractd.policies import Policy
from ractd.training.best import keep_best, load_best
from ractd.training.loop import Stage
from ractd.training.run import Run


def train_policy(
    run: Run, name: str, stage: Stage, network: nn.Module, policy: Callable[[dict[str, Any]], Policy]
) -> None:
    """Train a stage and save the policy of its `network`: its last checkpoint, as `name`.

    Where settings ask for it and the data has an environment, the best checkpoint by playing is `name`, and the last is beside it.
    `policy(provenance)` makes the policy of what the weights of `network` are at that moment.
    """
    evaluation, dataset = run.config.evaluation, run.dataset
    steps = stage.steps
    online = evaluation.select == "online" and dataset.env_id is not None
    if online:
        marks = {round(steps * (i + 1) / evaluation.checkpoints) for i in range(evaluation.checkpoints)}
        stage.milestones = frozenset(marks)

        def play(episodes: int, purpose: int) -> EvaluationResult:
            return evaluate(
                policy({}).fold().reset(run.config.seed).acting(),
                cast(str, dataset.env_id),
                episodes=episodes,
                execute=evaluation.execute or 1,
                history=run.config.history,
                seed=environment_seed(run.config.seed, purpose),
                make=environments_of(dataset, dataset.source),
            )

        def score(step: int, metrics: dict[str, float]) -> dict[str, float]:
            if step not in marks:
                return {}
            result = play(evaluation.checkpoint_episodes, CHECKPOINT)
            scored = {"episode_return": result.mean_return, "episode_return_se": result.return_se}
            if "best" in stage.record and result.mean_return <= stage.record["best"]["value"]:
                return scored
            confirmed = play(evaluation.episodes, CONFIRMATION)
            keep_best(stage, step, confirmed.mean_return, network)
            return scored | {"confirmed_return": confirmed.mean_return, "confirmed_return_se": confirmed.return_se}

        stage.hooks.append(score)
    run.train(stage)
    if not run.accelerator.is_main_process:
        return
    last = {"selection": "last", "step": steps, "collapse": stage.record.get("collapse")}
    run.save_policy(f"{name}-last" if online else name, policy(last))
    if online:
        load_best(stage, network)
        run.save_policy(name, policy(last | {"selection": "online", **stage.record["best"]}))
