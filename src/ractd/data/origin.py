"""What a dataset is, by what it says of itself: its recipe and its environment, never the name of its file."""

from __future__ import annotations

import re

from ractd.data.dataset import OfflineDataset
from ractd.data.scores import family


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
