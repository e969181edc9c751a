"""Score a policy: many episodes at once, each counted from its reset to its end and not a step further."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.scores import normalized_score, standard_error
from ractd.envs.context import ActionSequencePolicy, Context, EpisodeMemory, EpisodePolicy, past_steps_of
from ractd.envs.environments import make_vector
from ractd.envs.vector import MakeVector, Rows, VectorEnv
from ractd.errors import RactdError

MAX_BATCH = 256
"""Episodes at once, unless `num_envs` says otherwise: more gain no speed and cost memory."""
MAX_STEPS = 100_000
"""Where an episode of an environment without a time limit is given up."""
PROBED = 5
"""Steps that `probe` takes."""

Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Protocol:
    """How episodes were played."""

    env_id: str
    backend: str
    """`envpool`, `gymnasium`, or `mujoco` for mazes."""
    episodes: int
    execute: int
    """Actions of each sequence that were executed before the next one was sampled."""
    history: int
    seed: int
    """Episode i ran in an environment seeded with `seed + i`."""
    max_episode_steps: int | None
    """The step limit, None without one."""


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(Protocol):
    """The result of `evaluate`: how episodes were played, one entry an episode (E in all), times over all of them."""

    returns: NDArray[np.float64]
    """Undiscounted return, [E]."""
    lengths: NDArray[np.int64]
    """Steps, [E]."""
    terminated: NDArray[np.bool_]
    """True where the environment ended the episode, False where its time limit did, [E]."""
    scores: NDArray[np.float64] | None
    """D4RL-normalised returns, [E]; None where there is no reference."""
    policy_seconds: float
    """Wall time inside the policy."""
    total_seconds: float
    """Wall time of policy, simulation and bookkeeping, without making the environments."""

    @property
    def env_steps(self) -> int:
        """Environment steps (actions executed) over all episodes."""
        return int(self.lengths.sum())

    @property
    def mean_return(self) -> float:
        """Mean undiscounted return."""
        return float(self.returns.mean())

    @property
    def return_se(self) -> float:
        """Standard error of the mean return; NaN for one episode."""
        return standard_error(self.returns)

    @property
    def mean_score(self) -> float | None:
        """Mean normalised score, None without a reference."""
        return None if self.scores is None else float(self.scores.mean())

    @property
    def score_se(self) -> float | None:
        """Standard error of the mean score, None without a reference."""
        return None if self.scores is None else standard_error(self.scores)

    @property
    def mean_length(self) -> float:
        """Mean steps of an episode."""
        return float(self.lengths.mean())

    @property
    def seconds_per_action(self) -> float:
        """Wall time inside the policy per executed action, in the batches that were run (not batch 1)."""
        return self.policy_seconds / self.env_steps

    @property
    def steps_per_second(self) -> float:
        """Environment steps per second of total wall time."""
        return self.env_steps / self.total_seconds


def evaluate(
    policy: ActionSequencePolicy | EpisodePolicy,
    env_id: str,
    *,
    episodes: int = 100,
    execute: int = 1,
    history: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    num_envs: int | None = None,
    make: MakeVector = make_vector,
) -> EvaluationResult:
    """Run whole episodes of a policy and return what they scored (protocol: paper, section 4.1).

    The policy sees the episodes that still run, plans every `execute` steps, and the first `execute` actions of its
    sequence are executed, clipped to the environment's bounds. A policy that is deterministic or draws by `Context`, as
    `Policy.acting()` does, scores in an episode the same whatever runs beside it, up to how a network rounds in batches of
    another size. One that draws for its rows as they come does not.

    Args:
        policy: A function of observations, or an `EpisodePolicy`, which is told more.
        env_id: The environment, as `make` knows it.
        episodes: How many.
        execute: Actions of a sequence that are executed before the next is planned.
        history: Observations that the policy sees, the last ones.
        seed: Episode i gets an environment of its own, seeded with `seed + i`.
        progress: Called as `progress(done, total, step)` after every plan.
        num_envs: Episodes at once; `MAX_BATCH` by default.
        make: Makes the environments; see `environments_of` for those of data or of a policy.

    Raises:
        RactdError: The environment is unknown, fails or gives NaN (environment, step and episode are named), a sequence is
            shorter than `execute`, or actions are not finite.
    """
    for name, value in (("episodes", episodes), ("execute", execute), ("history", history)):
        if value < 1:
            raise RactdError(f"{name} is {value}; it has to be at least 1")
    batch = min(episodes, MAX_BATCH if num_envs is None else max(1, num_envs))
    report = progress or (lambda done, total, step: None)
    waves, seconds, policy_seconds, backend, limit = [], 0.0, 0.0, "", None
    for first in range(0, episodes, batch):
        # Fresh environments for every wave, so that none is seeded by how many ran before it.
        with closing(make(env_id, min(batch, episodes - first), seed + first)) as env:
            backend, limit = env.backend, env.max_episode_steps
            wave, start = Wave(env_id, first, seed + first), time.perf_counter()
            *played, of_policy = _run_wave(policy, env, wave, execute, history, episodes, report)
            seconds += time.perf_counter() - start
        waves.append(played)
        policy_seconds += of_policy
    returns, lengths, terminated = map(np.concatenate, zip(*waves, strict=True))
    return EvaluationResult(
        env_id=env_id,
        backend=backend,
        episodes=episodes,
        execute=execute,
        history=history,
        seed=seed,
        returns=returns,
        lengths=lengths,
        terminated=terminated,
        scores=normalized_score(env_id, returns),
        policy_seconds=policy_seconds,
        total_seconds=seconds,
        max_episode_steps=limit,
    )


@dataclass(frozen=True)
class Wave:
    """Episodes that run side by side, as messages name them."""

    env_id: str
    first: int
    """Number of the first environment's episode; the next one has the next number."""
    seed: int
    """Seed of the first environment; the next one has the next seed."""

    def check(self, what: str, values: NDArray[Any], rows: Rows, step: int) -> None:
        """Raise `RactdError` naming environment, step and episode where `values` [len(rows), ...] aren't finite."""
        finite = np.isfinite(values)
        if not finite.all():
            row = int(rows[np.argwhere(~finite)[0, 0]])
            when = f"in step {step:,}" if step else "in the reset"
            raise RactdError(
                f"{self.env_id} gave {what} that is NaN or infinite {when} of episode {self.first + row} "
                f"(seed {self.seed + row}): its simulation diverged, or has a fault"
            )


def _run_wave(
    policy: ActionSequencePolicy | EpisodePolicy,
    env: VectorEnv,
    wave: Wave,
    execute: int,
    history: int,
    episodes: int,
    progress: Progress,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_], float]:
    """Return each episode's return, its length and whether it was terminated, and the wall time inside the policy."""
    rows = np.arange(env.num_envs)  # the environments whose episode still runs
    terminated, seconds = np.zeros(env.num_envs, np.bool_), 0.0
    memory = EpisodeMemory(env, history, past_steps_of(policy))
    starts = env.reset()
    wave.check("an observation", starts, rows, 0)
    memory.begin(rows, starts)
    limit = env.max_episode_steps or MAX_STEPS
    act = policy.in_episodes if isinstance(policy, EpisodePolicy) else lambda observations, _: policy(observations)
    step = plans = 0
    while rows.size:
        start = time.perf_counter()
        context = Context(wave.first + rows, np.full(rows.size, plans), memory.past(rows))
        plan = np.asarray(act(memory.observations[rows], context))
        plans += 1
        seconds += time.perf_counter() - start
        check_plan(plan, rows.size, env.action_low.size, execute, step)
        plan = np.clip(plan, env.action_low, env.action_high)
        planned = np.arange(rows.size)  # the row of `plan` that belongs to each of `rows`
        for k in range(execute):
            actions = plan[planned, k]
            observations, rewards, terminated[rows], truncated = env.step(actions, rows)
            step += 1
            wave.check("a reward", rewards, rows, step)
            memory.add(rows, actions, rewards, observations)
            ended = terminated[rows] | truncated
            # The observation that an episode ends with is no policy's to see: a fall may well be told by NaN.
            wave.check("an observation", observations[~ended], rows[~ended], step)
            if ended.any():
                rows, planned = rows[~ended], planned[~ended]
                if not rows.size:
                    break
        if rows.size and step >= limit:
            raise RactdError(
                f"{rows.size} episodes of {wave.env_id} did not end within {limit:,} steps; limit them with --env-steps"
            )
        progress(wave.first + env.num_envs - rows.size, episodes, step)
    return memory.returns, memory.steps, terminated, seconds


def check_plan(plan: NDArray[Any], batch: int, action_dim: int, execute: int, step: int) -> None:
    """Raise `RactdError` where a policy's actions aren't finite and [batch, c, action_dim] with c >= execute."""
    if plan.ndim != 3 or plan.shape[0] != batch or plan.shape[2] != action_dim:
        raise RactdError(
            f"the policy gave actions of shape {list(plan.shape)} for {batch} observations; "
            f"the environment takes [{batch}, c, {action_dim}]"
        )
    if execute > plan.shape[1]:
        raise RactdError(f"execute is {execute}, but the policy predicts only {plan.shape[1]} actions")
    if not np.isfinite(plan).all():
        rows = int((~np.isfinite(plan).all(axis=(1, 2))).sum())
        raise RactdError(f"the policy gave NaN or infinite actions at step {step}, in {rows} of {batch} episodes")


def probe(env: VectorEnv, env_id: str) -> None:
    """Reset environments once and take a few random steps within their bounds: what can't work says so before hours of training.

    Raises `RactdError` where they fail, or give NaN or a wrong number of observations or rewards.
    """
    wave, rows, rng = Wave(env_id, 0, 0), np.arange(env.num_envs), np.random.default_rng(0)
    wave.check("an observation", env.reset(), rows, 0)
    for step in range(1, PROBED + 1):
        actions = np.clip(rng.uniform(-1, 1, (len(rows), len(env.action_low))), env.action_low, env.action_high)
        observations, rewards, terminated, truncated = env.step(actions, rows)
        wave.check("a reward", rewards, rows, step)
        ended = terminated | truncated
        wave.check("an observation", observations[~ended], rows[~ended], step)
        rows = rows[~ended]
        if not rows.size:
            return
