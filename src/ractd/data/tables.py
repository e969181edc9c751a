"""Datasets as tables for people, and building one while they watch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from ractd.data.behaviors import make_dataset
from ractd.data.dataset import OfflineDataset
from ractd.data.inspect import summarize
from ractd.data.maze import check_name, make_maze_dataset
from ractd.data.registry import dataset_dir, list_datasets
from ractd.envs.maze import MAZES, read_maze
from ractd.errors import RactdError


def datasets_table() -> Table:
    """Return every dataset that can be named."""
    caption = (
        f"Datasets made here are in {escape(str(dataset_dir()))}; a path to an .hdf5 or .npz file is a dataset too."
    )
    table = Table(title="datasets", title_justify="left", caption=caption, caption_justify="left")
    for column in ("name", "kind", "here", "description"):
        table.add_column(column, overflow="fold")
    for info in list_datasets():
        table.add_row(escape(info.name), info.kind, "yes" if info.present else "", escape(info.description))
    return table


def summary_table(dataset: OfflineDataset) -> Table:
    """Return the facts of one dataset."""
    facts = summarize(dataset)
    table = Table(title=escape(dataset.name), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    def spread(name: str, digits: int) -> str:
        d = facts[name]
        return (
            f"mean {d['mean']:,.{digits}f}, std {d['std']:,.{digits}f}; min {d['min']:,.{digits}f}, "
            f"median {d['median']:,.{digits}f}, max {d['max']:,.{digits}f}"
        )

    ends = facts["ends"]
    rows = {
        "source": facts["source"],
        "recipe": facts["recipe"] or "not given",
        "environment": ", ".join(filter(None, [facts["env_id"], str(dataset.env_settings)])) or "not given (use --env)",
        **({"maze": facts["maze"]} if facts["maze"] else {}),
        "transitions": f"{facts['transitions']:,} in {facts['memory_bytes'] / 2**20:,.1f} MiB",
        "episodes": f"{facts['episodes']:,}: {ends['terminal']:,} terminated, {ends['timeout']:,} timed out, "
        f"{ends['cut_off']:,} cut off",
        "what ends mean": facts["told_of_ends"],
        "dimensions": f"{facts['observation_dim']} observations, {facts['action_dim']} actions",
        "return": spread("return", 1),
        "normalised score": spread("score", 1) if facts["score"] else "no reference known",
        "episode length": spread("length", 0),
        "reward": spread("reward", 3),
        "actions": " ".join(
            f"[{a:.3g}, {b:.3g}]" for a, b in zip(facts["action_low"], facts["action_high"], strict=True)
        ),
        "saturated actions": f"{facts['saturated_share']:.1%}",
        "constant": f"observations {facts['constant_observations']}, actions {facts['constant_actions']}",
        "fingerprint": facts["fingerprint"],
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table


def make_with_progress(
    name: str,
    transitions: int | None,
    seed: int,
    directory: Path | None,
    overwrite: bool,
    console: Console,
    map_file: Path | None = None,
) -> Path:
    """Build a dataset with a progress bar, unless it is there already; returns its path.

    `map_file` holds a maze of one's own, whose dataset gets the name.
    """
    make = partial(make_dataset, name)
    if map_file is not None:
        maze = read_maze(map_file, name)
        check_name(maze)
        make = partial(make_maze_dataset, maze)
    elif name in MAZES:
        make = partial(make_maze_dataset, MAZES[name])
    path = (directory or dataset_dir()) / f"{name}.hdf5"
    if path.exists() and not overwrite:
        console.print(
            f"{path} is there already; --overwrite builds it again", highlight=False, markup=False, soft_wrap=True
        )
        return path
    if transitions is not None and transitions < 1:
        raise RactdError(f"--steps is {transitions}, expected at least 1")
    if seed < 0:
        raise RactdError(f"--seed is {seed}, expected at least 0")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"making {name}", total=None)
        path = make(
            transitions=transitions,
            seed=seed,
            directory=directory,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    return path
