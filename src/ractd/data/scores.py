"""Which of D4RL's datasets data are or rebuild, by their recipe, and scores by D4RL's reference returns (D4RL, `infos.py`)."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ractd.data.dataset import OfflineDataset

# The mean return of a random policy and of an expert, in the environments of D4RL's time (Gym v2, mujoco-py).
REFERENCES: dict[str, tuple[float, float]] = {
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "halfcheetah": (-280.178953, 12135.0),
    "ant": (-325.6, 3879.7),
    "maze2d-umaze": (23.85, 161.86),
    "maze2d-medium": (13.13, 277.39),
    "maze2d-large": (6.7, 273.99),
    "maze2d-umaze-dense": (68.537689, 193.66285642381482),
    "maze2d-medium-dense": (44.264742, 297.4552547777125),
    "maze2d-large-dense": (30.569041, 303.4857382709002),
    "antmaze": (0.0, 1.0),
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "door": (-56.512833, 2880.5693087298737),
    "relocate": (-6.425911, 4233.877797728884),
    "kitchen": (0.0, 4.0),
}


def family(env_id: str) -> str | None:
    """The key of `REFERENCES` for an environment or dataset id, None without one.

    `Hopper-v5`, `hopper-medium-replay-v2`, `mujoco/hopper/expert-v0` -> `hopper`; `maze2d-umaze-dense-v1` ->
    `maze2d-umaze-dense`; `ractd/maze2d-large` -> `maze2d-large`. Ids that only resemble D4RL's tasks
    (`PointMaze_UMaze-v3`, `HopperHop-v1`) have none: their rewards or goals differ.
    """
    words = [w for w in re.split(r"[/\-]", env_id.lower()) if not re.fullmatch(r"d4rl|mujoco|ractd|v\d+", w)]
    for length in (3, 2, 1):
        name = "-".join(words[:length])
        if name in REFERENCES:
            return name
    return None


def reference(env_id: str) -> tuple[float, float] | None:
    """The returns (min, max) that score 0 and 100 for an environment or dataset id, None where D4RL has none."""
    return REFERENCES.get(family(env_id) or "")


def normalized_score(env_id: str, returns: ArrayLike) -> NDArray[np.float64] | None:
    """`100 (return - min) / (max - min)` of each return, None where D4RL has no reference (D4RL, section 4)."""
    bounds = reference(env_id)
    if bounds is None:
        return None
    low, high = bounds
    return np.asarray(100.0 * (np.asarray(returns, dtype=np.float64) - low) / (high - low))


def standard_error(values: ArrayLike) -> float:
    """Return the standard error of the mean of values [N], NaN for fewer than two."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.std(ddof=1) / np.sqrt(array.size)) if array.size > 1 else float("nan")


def published_recipe(name: str) -> str:
    """Return the recipe of D4RL's own dataset of that name; D4RL's files say nothing themselves."""
    return f"D4RL {name}"


def rebuilt_recipe(kind: str, how: str) -> str:
    """Return the recipe of a dataset that is made here as D4RL made its `kind`, e.g. `medium-replay`."""
    return f"D4RL's recipe for {kind}: {how}"


def d4rl_name(dataset: OfflineDataset) -> str | None:
    """Return D4RL's name, without version, of what a dataset is or rebuilds, e.g. `hopper-medium-replay`; None of any other.

    It is D4RL's own where it was opened by its D4RL name. It rebuilds one where its recipe says so (`rebuilt_recipe`) and
    its environment is of D4RL's robots.
    """
    if own := re.fullmatch(r"D4RL ([\w-]+?)(-v\d+)?", dataset.recipe):
        return own[1]
    rebuilt = re.match(r"D4RL's recipe for ([\w-]+): ", dataset.recipe)
    robot = family(dataset.env_id or "")
    return f"{robot}-{rebuilt[1]}" if rebuilt and robot else None
