"""Datasets of any environment by D4RL's recipe: train SAC, keep its replay, roll out a medium and an expert policy.

D4RL (section 5): expert is a fully trained policy, medium one at about a third of its performance, medium-replay all
that training saw until then, medium-expert half and half. Needs Stable-Baselines3; nothing is ever pickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.formats.made import dataset_dir
from ractd.data.scores import rebuilt_recipe
from ractd.envs.backends import make_gymnasium
from ractd.envs.environments import make_vector
from ractd.envs.evaluate import evaluate
from ractd.envs.rollout import Act, Episodes, join, rollout
from ractd.envs.seeds import BEHAVIOR, DATA, environment_seed
from ractd.errors import RactdError
from ractd.files import replacing
from ractd.recipes.behaviors import Weights, counted, sac_actor, uniform_policy, write_transitions

StageProgress = Callable[[str, int, int], None]

MEDIUM_SHARE = 1 / 3
MAX_ENVS = 64
FIRST_ENVIRONMENT = {"training": 0, "medium": 100, "expert": 200}
"""Of a collection's environments: other starts for each of its datasets."""


@dataclass(frozen=True)
class Snapshot:
    """The actor after so many environment steps, and the mean return of its stochastic policy."""

    step: int
    mean_return: float
    weights: Weights


def collect(
    env_id: str,
    *,
    steps: int = 1_000_000,
    seed: int = 0,
    directory: str | Path | None = None,
    transitions: int = 1_000_000,
    checkpoints: int = 40,
    episodes: int = 10,
    hidden: tuple[int, ...] = (256, 256),
    progress: StageProgress | None = None,
) -> list[Path]:
    """Train SAC for `steps` environment steps and write `<env>-medium`, `-medium-replay`, `-medium-expert`, `-expert`.

    medium and expert have `transitions` rows each, medium-expert both; medium-replay has the rows until the first of
    `checkpoints` evaluations (`episodes` each) that is a third of the way from a random policy's return to the final
    one's. The two actors are kept beside the data as `<env>-actors.safetensors`. `progress(stage, done, total)` is called
    as it goes. Nothing is written into the folder before training ends, and each file appears whole or not at all.
    Raises `RactdError` where Stable-Baselines3 is missing or the environment has no bounded continuous actions or no time limit.
    """
    if min(steps, transitions, checkpoints, episodes) < 1:
        raise RactdError("steps, transitions, checkpoints and episodes have to be at least 1")
    if seed < 0:
        raise RactdError(f"seed is {seed}, expected at least 0")
    report = progress or (lambda stage, done, total: None)
    task = _check(env_id, seed)
    folder = Path(directory if directory is not None else dataset_dir())
    folder.mkdir(parents=True, exist_ok=True)
    uniform = uniform_policy(task.low, task.high, np.random.default_rng(seed))
    baseline = _mean_return(task, uniform, episodes)
    model = _sac(task, steps, hidden)
    snapshots = _train(model, task, steps, checkpoints, episodes, report)
    expert, medium = snapshots[-1], pick_medium(snapshots, baseline)

    stem = env_id.lower().replace("/", "-").replace(":", "-")
    _write_actors(folder / f"{stem}-actors.safetensors", env_id, {"medium": medium, "expert": expert})

    def write(kind: str, data: Episodes, recipe: str) -> Path:
        note = f"SAC (Stable-Baselines3, {steps} steps) on {env_id}; made by ractd, not D4RL's data"
        note = rebuilt_recipe(kind, f"{recipe}; {note}")
        return write_transitions(folder / f"{stem}-{kind}.hdf5", data, env_id, seed, note)

    what = {
        "medium": f"stochastic policy after {medium.step} steps (mean return {medium.mean_return:.1f})",
        "expert": f"stochastic policy after {expert.step} steps (mean return {expert.mean_return:.1f})",
    }
    paths = [write("medium-replay", _replay(model, medium.step, task), f"replay buffer until step {medium.step}")]
    halves = []
    for kind, snapshot in (("medium", medium), ("expert", expert)):
        halves.append(_roll(task, snapshot, transitions, kind, report))
        paths.append(write(kind, halves[-1], what[kind]))
    paths.append(write("medium-expert", join(halves), f"half {what['medium']}, half {what['expert']}"))
    return paths


def pick_medium(snapshots: list[Snapshot], random_return: float) -> Snapshot:
    """The first snapshot a third of the way from a random policy's return to the last snapshot's, else the last."""
    target = random_return + MEDIUM_SHARE * (snapshots[-1].mean_return - random_return)
    return next((snapshot for snapshot in snapshots if snapshot.mean_return >= target), snapshots[-1])


def actor_weights(state: dict[str, Any]) -> Weights:
    """A Stable-Baselines3 SAC actor's parameters as `ractd.recipes.behaviors.sac_actor` takes them."""
    hidden = sorted(int(key.split(".")[1]) for key in state if key.startswith("latent_pi.") and key.endswith(".weight"))
    names = {f"latent_pi.{index}": f"hidden_{k}" for k, index in enumerate(hidden)} | {
        "mu": "mean",
        "log_std": "log_std",
    }
    weights: Weights = {}
    for theirs, ours in names.items():
        weights[f"{ours}.weight"] = state[f"{theirs}.weight"].detach().cpu().numpy().T.copy()
        weights[f"{ours}.bias"] = state[f"{theirs}.bias"].detach().cpu().numpy().copy()
    return weights


@dataclass(frozen=True)
class _Task:
    env_id: str
    seed: int
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    limit: int

    def environment(self, stage: str) -> int:
        """Return the seed of a stage's first environment."""
        return environment_seed(self.seed, DATA) + FIRST_ENVIRONMENT[stage]

    def to_bounds(self, actions: NDArray[Any]) -> NDArray[np.float32]:
        """From SAC's [-1, 1] to the environment's units."""
        return np.clip(self.low + (actions + 1) / 2 * (self.high - self.low), self.low, self.high).astype(np.float32)


def _check(env_id: str, seed: int) -> _Task:
    try:
        import stable_baselines3  # noqa: F401
    except ImportError:
        raise RactdError(
            'collecting data needs Stable-Baselines3, which is not installed: pip install "ractd[collect]"'
        ) from None
    with closing(make_vector(env_id, 1, 0)) as env:
        low, high, limit = env.action_low, env.action_high, env.max_episode_steps
    if not np.isfinite([low, high]).all():
        raise RactdError(f"{env_id} has unbounded actions; SAC needs bounds, as gymnasium.wrappers.RescaleAction gives")
    if limit is None:
        raise RactdError(f"{env_id} has no time limit; register it with max_episode_steps")
    return _Task(env_id, seed, low, high, limit)


def _mean_return(task: _Task, act: Act, episodes: int) -> float:
    def plan(observations: NDArray[np.float32]) -> NDArray[Any]:
        return act(observations[:, -1], np.arange(len(observations)))[:, None]

    return evaluate(plan, task.env_id, episodes=episodes, seed=environment_seed(task.seed, BEHAVIOR)).mean_return


def _actor(task: _Task, weights: Weights) -> Act:
    actor = sac_actor(weights, np.random.default_rng(task.seed))
    return lambda observations, rows: task.to_bounds(actor(observations, rows))


def _sac(task: _Task, steps: int, hidden: tuple[int, ...]) -> Any:
    from gymnasium.wrappers import FlattenObservation
    from stable_baselines3 import SAC

    model = SAC(
        "MlpPolicy",
        FlattenObservation(make_gymnasium(task.env_id)),
        seed=task.seed,
        device="cpu",
        buffer_size=steps,  # all of training, in order: this is medium-replay
        learning_starts=min(10_000, steps // 10),
        policy_kwargs={"net_arch": list(hidden)},
    )
    model.get_env().seed(task.environment("training"))  # its own `seed` would be that of an environment, too
    return model


def _train(
    model: Any, task: _Task, steps: int, checkpoints: int, episodes: int, report: StageProgress
) -> list[Snapshot]:
    def count(local: dict[str, Any], _: dict[str, Any]) -> bool:
        report("training", min(model.num_timesteps, steps), steps)
        return True

    snapshots = []
    with closing(model.get_env()):
        for stop in np.linspace(0, steps, min(checkpoints, steps) + 1).astype(int)[1:].tolist():
            model.learn(stop - model.num_timesteps, callback=count, reset_num_timesteps=False)
            weights = actor_weights(model.actor.state_dict())
            snapshots.append(Snapshot(stop, _mean_return(task, _actor(task, weights), episodes), weights))
    return snapshots


def _replay(model: Any, steps: int, task: _Task) -> Episodes:
    buffer = model.replay_buffer
    ended, timeouts = (column[:steps, 0].astype(np.bool_) for column in (buffer.dones, buffer.timeouts))
    return Episodes(
        observations=buffer.observations[:steps, 0].astype(np.float32),
        actions=task.to_bounds(buffer.actions[:steps, 0]),
        rewards=buffer.rewards[:steps, 0].astype(np.float32),
        next_observations=buffer.next_observations[:steps, 0].astype(np.float32),
        terminals=ended & ~timeouts,
        timeouts=ended & timeouts,
    ).cut(steps)


def _roll(task: _Task, snapshot: Snapshot, transitions: int, stage: str, report: StageProgress) -> Episodes:
    count = int(np.clip(transitions // task.limit, 1, MAX_ENVS))
    act = counted(_actor(task, snapshot.weights), transitions, partial(report, stage))
    with closing(make_vector(task.env_id, count, task.environment(stage))) as env:
        runs = rollout(act, env, np.full(count, -(-transitions // count)))
    return join(runs).cut(transitions)


def _write_actors(path: Path, env_id: str, actors: dict[str, Snapshot]) -> None:
    from safetensors.numpy import save

    tensors = {f"{name}.{key}": value for name, snapshot in actors.items() for key, value in snapshot.weights.items()}
    metadata = {"format": "ractd-behaviors-1", "env_id": env_id, "actors": json.dumps(list(actors))}
    with replacing(path) as partial:
        partial.write_bytes(save(tensors, metadata))
