"""What a run is worth: every variant of its method scored under one protocol, in one `result.json`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from ractd.data import OfflineDataset
from ractd.data.dataset import describe
from ractd.data.returns import describe_ends
from ractd.data.scores import normalized_score
from ractd.envs.environments import environments_of
from ractd.envs.evaluate import evaluate
from ractd.envs.maze import MazeVector, maze_of
from ractd.envs.maze.picture import MazePanel, draw
from ractd.envs.seeds import environment_seed
from ractd.envs.vector import MakeVector
from ractd.errors import RactdError
from ractd.methods import Variant, method_named
from ractd.networks.tensors import read_header
from ractd.policies import Planner, Policy
from ractd.runs.directory import versions
from ractd.runs.latency import time_policies
from ractd.runs.rows import Result, Row, read_result
from ractd.sequences import Samples
from ractd.training.log import Log

STATES = 1024
"""Logged states at which policies are compared without a simulator."""
PAIRS = 6
"""Starts that plans are drawn from."""
DRAWN = 200_000
"""States of the data that are drawn."""


@torch.inference_mode()
def offline_estimate(policy: Policy, samples: Samples, seed: int) -> dict[str, float]:
    """Compare a policy with the data at logged states, without a simulator.

    Returns the mean distance between the policy's and the logged sequences, of what a critic looks at, in the scaled space,
    and the critic's mean estimate for both (in the data's units), where there is one.
    """
    sequence, critic = policy.sequence, policy.critic
    condition, x0 = samples.gather(samples.draw(STATES, torch.Generator().manual_seed(seed)))
    x = policy.make_sequence(condition, policy.reset(seed).draw_noise(STATES))
    chosen, logged = sequence.decode(x, condition), sequence.decode(x0, condition)
    distance = float((chosen.clamp(-1, 1) - logged)[:, : sequence.rewarded].norm(dim=2).mean())
    if critic is None:
        return {"distance_to_data": distance}
    estimates = [float(critic.value(condition, each).mean()) * critic.std + critic.mean for each in (chosen, logged)]
    return {
        "estimated_return": estimates[0],
        "estimated_return_of_data": estimates[1],
        "distance_to_data": distance,
    }


def row_of(policy: Policy, name: str, variant: str, seed: int | None) -> Row:
    """Return the row of a policy before anything is measured: how it samples and where it comes from.

    `name` is the policy's in its run, `variant` what the row is called, `seed` the training's.
    """
    sampling, provenance = policy.sampling, policy.provenance
    selection = provenance.get("selection", "last")
    return Row(
        method=policy.method,
        variant=variant,
        policy=name,
        dataset=provenance.get("dataset", {}).get("name", ""),
        seed=seed,
        checkpoint="best" if selection == "online" else "last",
        selection=selection,
        step=provenance.get("step"),
        sampler=sampling.sampler,
        steps=sampling.steps,
        candidates=sampling.candidates,
        nfe=policy.evaluations,
        plans=policy.sequence.open_loop,
        threads=torch.get_num_threads(),
    )


def score(
    row: Row, policy: Policy, env_id: str, episodes: int, execute: int, seed: int, console: Console, make: MakeVector
) -> Row:
    """Return a row with what a policy brings in an environment; its seeds are those of `seed`, which training never uses."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"evaluating {row.variant}", total=episodes)
        result = evaluate(
            policy.reset(seed).acting(),
            env_id,
            episodes=episodes,
            execute=execute,
            history=policy.sequence.history,
            seed=environment_seed(seed),
            progress=lambda done, total, step: progress.update(task, completed=done),
            make=make,
        )
    return row.played(result)


def evaluate_run(
    directory: Path, dataset: OfflineDataset, method: str, config: Any, console: Console, log: Log
) -> Result:
    """Measure every variant of a run that isn't measured yet, the quick ones first; each row is on disk as soon as it is known.

    Times come last, of all policies in turns.
    """
    chosen, found = method_named(method), read_result(directory) or Result(directory, {})
    returns = dataset.episode_returns()
    stages = _stages(directory)
    content: dict[str, Any] = found.content | {
        "complete": False,
        "method": method,
        "dataset": describe(dataset),
        "behavior": {"episodes": len(returns)} | (_returns(dataset, returns) if dataset.has_rewards else {}),
        "ends": describe_ends(dataset, chosen.termination_penalty(config)),
        "stages": stages,
        "versions": versions(),
    }
    variants = [each for each in chosen.variants(config) if (directory / "policy" / each.policy).is_dir()]
    loaded = {name: Policy.load(directory / "policy" / name) for name in {each.policy for each in variants}}
    policies = {_key(each): loaded[each.policy].configured(**each.sampling) for each in variants}
    rows = {(row.variant, row.policy): row for row in found.rows}

    def write(complete: bool) -> Result:
        content["complete"] = complete
        result = Result(directory, content, tuple(rows[key] for key in policies if key in rows))
        result.write(directory / "result.json")
        return result

    for variant in sorted(variants, key=lambda each: policies[_key(each)].evaluations):
        key, policy = _key(variant), policies[_key(variant)]
        if key in rows:
            continue
        log.say(f"evaluating {variant.label}")
        row = row_of(policy, variant.policy, variant.label, config.seed)
        if dataset.env_id is not None:
            e = config.evaluation
            row = score(
                row,
                policy,
                dataset.env_id,
                e.episodes,
                e.execute or 1,
                config.seed,
                console,
                environments_of(dataset, dataset.source),
            )
        rows[key] = replace(
            row,
            offline=offline_estimate(policy, policy.sequence.samples(dataset), config.seed),
            processor_seconds=_processor_seconds(stages, variant),
        )
        write(complete=False)
    times, content["load"] = time_policies(policies)
    rows |= {key: replace(rows[key], **each) for key, each in times.items()}
    if any(isinstance(policy, Planner) for policy in loaded.values()):
        _draw_plans(directory, dataset, config.seed, variants, log)
    return write(complete=True)


def _key(variant: Variant) -> tuple[str, str]:
    return variant.label, variant.policy


def _returns(dataset: OfflineDataset, returns: NDArray[np.float64]) -> dict[str, Any]:
    """Return what the data's episodes returned, and their mean score."""
    scores = None if dataset.env_id is None else normalized_score(dataset.env_id, returns)
    return {
        "mean_return": float(returns.mean()),
        "max_return": float(returns.max()),
        "mean_score": None if scores is None else float(scores.mean()),
        "returns": [float(f"{value:.6g}") for value in returns],
    }


def _draw_plans(directory: Path, dataset: OfflineDataset, seed: int, variants: Sequence[Variant], log: Log) -> None:
    """Draw `plans.png`: a planner's data, its policies' plans dashed, and what came of one plan's actions as lines."""
    maze = maze_of(dataset)
    if maze is None:
        return
    try:
        panels = [MazePanel("data", data=dataset.observations[:: max(1, dataset.num_transitions // DRAWN)])]
        for variant in reversed(variants):
            if variant.sampling:
                continue
            policy = cast(Planner, Policy.load(directory / "policy" / variant.policy)).reset(seed)
            with closing(MazeVector(maze, PAIRS, environment_seed(seed))) as env:
                start = env.reset()
                plans, actions = policy.plan(start, maze.goal)
                executed = [start, *(env.step(actions[:, step])[0] for step in range(actions.shape[1]))]
            panels.append(MazePanel(variant.label, plans=list(plans), executed=list(np.stack(executed, axis=1))))
        log.say(f"drew {draw(maze, panels, directory / 'plans.png')}")
    except RactdError as error:
        log.say(f"no picture of the plans: {escape(str(error))}")


def _stages(directory: Path) -> dict[str, Any]:
    """Collect what each stage's checkpoint says about it: steps, seconds, best and collapse."""
    kept = ("seconds", "processor_seconds", "best", "collapse")
    stages = {}
    for path in sorted((directory / "checkpoints").glob("*/last.safetensors")):
        header = read_header(path)
        stages[path.parent.name] = {"steps": header["step"]} | {
            key: header["record"][key] for key in kept if key in header["record"]
        }
    return stages


def _processor_seconds(stages: dict[str, Any], variant: Variant) -> float | None:
    """Return the processor time of all stages that a variant needed, None where one was trained elsewhere or doesn't tell."""
    seconds = [stages.get(name, {}).get("processor_seconds") for name in variant.stages]
    return None if None in seconds or not seconds else float(sum(seconds))
