"""Datasets made on the user's machine in seconds: recipes that roll out behaviour policies shipped with the package.

A recipe retraces the training run its snapshots come from, so that the data look like that run's replay buffer
(D4RL's medium-replay) without training anything. None of them is D4RL's data.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.dataset import OfflineDataset
from ractd.data.fields import FORMS
from ractd.data.formats.hdf5 import reference_attributes, write_hdf5
from ractd.envs.environments import make_vector
from ractd.envs.rollout import Act, Episodes, join, rollout
from ractd.envs.seeds import DATA, environment_seed
from ractd.envs.vector import Rows
from ractd.errors import RactdError

Weights = dict[str, NDArray[np.float32]]
Progress = Callable[[int, int], None]

RANDOM = "random"
PIECE = 2_000  # transitions between two steps along a stage: SAC's policy moves about this fast
MAX_ENVS = 128


@dataclass(frozen=True)
class Stretch:
    """A stretch of the run: the policy moves from snapshot `start` to snapshot `end` (`RANDOM`: uniform actions).

    Between two snapshots their weights are interpolated; from `RANDOM` to one, the share of uniform actions falls.
    """

    share: float
    """Of the recipe's transitions."""
    start: str
    end: str


@dataclass(frozen=True)
class Recipe:
    """How a dataset is made."""

    env_id: str
    transitions: int
    assets: str
    """The file of snapshots in `ractd/recipes/assets`."""
    schedule: tuple[Stretch, ...]
    """In order; shares add up to 1."""
    wobble: float = 0.025
    """Gaussian noise on the weights, drawn anew every `PIECE` transitions, in units of each tensor's deviation:
    the ups and downs of a run that its snapshots leave out."""


RECIPES = {
    "hopper-mixed": Recipe(
        env_id="Hopper-v5",
        transitions=200_000,
        assets="hopper.safetensors",
        schedule=(
            Stretch(0.025, RANDOM, RANDOM),
            Stretch(0.015, RANDOM, "25000"),
            Stretch(0.085, "25000", "25000"),
            *(Stretch(0.125, f"{step}", f"{step + 25_000}") for step in range(25_000, 200_000, 25_000)),
        ),
    )
}


def write_transitions(path: Path, data: Episodes, env_id: str, seed: int, recipe: str) -> Path:
    """Write transitions in D4RL's layout, with the attributes `env_id, recipe, seed` and D4RL's references if any."""
    columns = {name: getattr(data, name) for name in FORMS}
    final = data.next_observations[data.episode_ends - 1]
    dataset = OfflineDataset(path.stem, **columns, env_id=env_id, recipe=recipe, final_observations=final)
    write_hdf5(path, dataset, attrs={"seed": seed, **reference_attributes(env_id)})
    return path


def run_recipe(recipe: Recipe, seed: int = 0, progress: Progress | None = None) -> Episodes:
    """The recipe's transitions, exactly `recipe.transitions` of them, in the order of its schedule."""
    total = recipe.transitions
    if total < 1:
        raise RactdError(f"{total} transitions are asked for; it has to be at least 1")
    rng = np.random.default_rng(seed)
    pieces = [piece for stretch in recipe.schedule for piece in _pieces(stretch, total)]
    snapshots = load_actors(recipe.assets)
    parts: list[Episodes] = []
    done, planned = 0, 0.0
    for first in range(0, len(pieces), MAX_ENVS):
        # All pieces at once, an environment each: a policy that is long on its feet would else run nearly alone.
        batch = pieces[first : first + MAX_ENVS]
        lengths = np.array([piece.transitions for piece in batch])
        with closing(make_vector(recipe.env_id, len(batch), environment_seed(seed, DATA) + first)) as env:
            act = _act(recipe, batch, snapshots, uniform_policy(env.action_low, env.action_high, rng), rng)
            act = act if progress is None else counted(act, total, progress, done)
            runs = rollout(act, env, np.ceil(lengths).astype(np.int64))
        for length, run in zip(lengths, runs, strict=True):
            planned += length
            # No episode is cut between pieces: what one takes too much, the next has less.
            missing = min(round(planned), total) - done
            if missing > 0:
                part = run.rows(0, int(run.episode_ends[np.searchsorted(run.episode_ends, missing)]))
                parts.append(part)
                done += len(part)
    return join(parts).cut(total)


@dataclass(frozen=True)
class _Piece:
    transitions: float
    start: str
    end: str
    along: float


def _pieces(stretch: Stretch, total: int) -> list[_Piece]:
    transitions = stretch.share * total
    count = max(1, round(transitions / PIECE))
    return [_Piece(transitions / count, stretch.start, stretch.end, (k + 0.5) / count) for k in range(count)]


def _act(
    recipe: Recipe, pieces: list[_Piece], snapshots: dict[str, Weights], uniform: Act, rng: np.random.Generator
) -> Act:
    """Environment k acts as piece k says."""
    some = next(iter(snapshots.values()))
    weights: Weights = {}
    for key in some:
        layers = []
        for piece in pieces:
            end = snapshots.get(piece.end, some)[key]
            start = snapshots.get(piece.start, snapshots.get(piece.end, some))[key]
            between = (1 - piece.along) * start + piece.along * end
            wobble = recipe.wobble * between.std() * rng.standard_normal(between.shape, dtype=np.float32)
            layers.append((between + wobble).astype(np.float32))
        weights[key] = np.stack(layers)
    shares = [0.0 if p.end == RANDOM else p.along if p.start == RANDOM else 1.0 for p in pieces]
    return mixture(uniform, sac_actor(weights, rng), np.array(shares), rng)


def counted(act: Act, total: int, progress: Progress, done: int = 0) -> Act:
    """Return a policy that tells how many transitions it has made, of `total`, on top of those that are `done`."""

    def act_and_count(observations: NDArray[np.float32], rows: Rows) -> NDArray[Any]:
        nonlocal done
        done += len(rows)
        progress(min(done, total), total)
        return act(observations, rows)

    return act_and_count


def uniform_policy(low: NDArray[np.float32], high: NDArray[np.float32], rng: np.random.Generator) -> Act:
    """Actions drawn uniformly between the bounds [A]."""
    return lambda observations, rows: rng.uniform(low, high, (len(observations), low.size)).astype(np.float32)


def mixture(first: Act, second: Act, shares: NDArray[np.float64], rng: np.random.Generator) -> Act:
    """In environment k, at each step, the second policy's action with probability `shares[k]`, else the first's."""

    def act(observations: NDArray[np.float32], rows: Rows) -> NDArray[Any]:
        chosen = rng.random(len(rows)) < shares[rows]
        return np.where(chosen[:, None], second(observations, rows), first(observations, rows))

    return act


def sac_actor(weights: Weights, rng: np.random.Generator, noise: float = 1.0) -> Act:
    """SAC actors in numpy: observations [B, O] -> tanh(mean + noise * std * N(0, 1)) in [-1, 1].

    `weights` holds `hidden_0`, `hidden_1`, ..., `mean` and `log_std`, each `.weight` [in, out] and `.bias` [out], or
    [E, in, out] and [E, out] for another actor in every environment; hidden layers are followed by ReLU, log_std is
    clipped to [-20, 2].
    """
    names = [*sorted({key.split(".")[0] for key in weights if key.startswith("hidden_")}), "mean", "log_std"]
    everyone = [(weights[f"{name}.weight"], weights[f"{name}.bias"][..., None, :]) for name in names]
    shared = weights["mean.weight"].ndim == 2
    gathered = everyone
    current: Rows = np.arange(0 if shared else len(everyone[0][0]))

    def act(observations: NDArray[np.float32], rows: Rows) -> NDArray[Any]:
        nonlocal gathered, current
        if not shared and not np.array_equal(rows, current):  # rarely: gathering copies every weight
            gathered, current = [(weight[rows], bias[rows]) for weight, bias in everyone], rows.copy()
        *hidden, mean_layer, log_std_layer = gathered
        x = observations[:, None]
        for weight, bias in hidden:
            x = np.maximum(x @ weight + bias, 0)
        mean, log_std = (x @ weight + bias for weight, bias in (mean_layer, log_std_layer))
        std = np.exp(np.clip(log_std, -20, 2))
        drawn: NDArray[Any] = np.tanh(mean + noise * std * rng.standard_normal(mean.shape, dtype=np.float32))
        return drawn[:, 0]

    return act


def load_actors(assets: str | Path) -> dict[str, Weights]:
    """The snapshots in a file (a name is a packaged one), oldest first: name -> weights for `sac_actor`, float32."""
    from safetensors import safe_open

    packaged = assets if isinstance(assets, Path) else resources.files("ractd.recipes") / "assets" / assets
    with resources.as_file(packaged) as path, safe_open(path, framework="numpy") as file:
        names = json.loads(file.metadata()["actors"])
        actors: dict[str, Weights] = {name: {} for name in names}
        for key in file.keys():  # noqa: SIM118 - not a dict
            name, parameter = key.split(".", 1)
            actors[name][parameter] = file.get_tensor(key).astype(np.float32)
    return actors
