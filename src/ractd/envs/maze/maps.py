"""Mazes as text: D4RL's three, one's own from a file, their coordinates and the shortest ways through them.

A map is a rectangle of characters: `#` wall, `.` or a space an empty cell, `G` the goal (one), `S` a start (any number;
without one an episode starts in any cell). The outermost cells are walls. x counts rows downwards, y columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd.data.dataset import OfflineDataset
from ractd.errors import RactdError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

WALL, EMPTY, START, GOAL = "#", ". ", "S", "G"
OWN = "ractd/maze/"
"""What an own maze's environment id begins with; its name follows."""
LEGEND = "# (wall), . or a space (empty), S (start) or G (goal)"
CENTRE = -0.2
"""Cell i's centre is at coordinate `i + CENTRE`: D4RL's point starts 0.2 off the grid that its walls stand on."""
MIN_STEPS, STEPS_PER_CELL = 300, 50
"""An own maze's step limit: D4RL's for umaze, whose longest way has 6 cells, and its 50 steps a cell for longer ones."""
MAX_CELLS = 2_500
"""Open cells of the largest map taken: the table of shortest ways grows with their square."""
NEIGHBOURS = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])


@dataclass(frozen=True)
class Maze:
    """A checked map; make one with `parse_maze` or `read_maze`, or take one of `MAZES`.

    Positions are D4RL's coordinates, in cells: cell (row, column) covers [row - 0.7, row + 0.3] x [column - 0.7,
    column + 0.3], and `(row, column)` as a position is what D4RL means by a location, 0.2 off the cell's centre.
    """

    name: str
    text: str
    """The rows, top to bottom, joined by newlines."""
    env_id: str
    """What datasets and evaluations name the environment by."""
    max_episode_steps: int

    @cached_property
    def grid(self) -> NDArray[np.str_]:
        """The characters, [rows, columns]."""
        return np.array([list(row) for row in self.text.split("\n")])

    @cached_property
    def walls(self) -> Bools:
        """True in a wall, [rows, columns]."""
        return np.equal(self.grid, WALL)

    @cached_property
    def goal(self) -> Floats:
        """The goal's position, [2]."""
        return np.asarray(np.argwhere(self.grid == GOAL)[0], np.float64)

    @cached_property
    def cells(self) -> Ints:
        """Row and column of each cell that the goal can be reached from, its own among them, [K, 2], sorted."""
        return np.argwhere(_flood(~self.walls, self.grid == GOAL)[0])

    @cached_property
    def starts(self) -> Ints:
        """Row and column of the cells that an episode starts in, [S, 2]: those marked, else all of `cells`."""
        marked = np.argwhere(self.grid == START)
        return marked if len(marked) else self.cells

    @cached_property
    def index(self) -> Ints:
        """Number of each cell in `cells`, -1 for walls and cells cut off from the goal, [rows, columns]."""
        numbers = np.full(self.grid.shape, -1)
        numbers[tuple(self.cells.T)] = np.arange(len(self.cells))
        return numbers

    @cached_property
    def next_cells(self) -> NDArray[np.int16]:
        """The cell after the first step of a shortest way, [K from, K to]; a cell itself where the way ends."""
        return _first_steps(self.index, self.cells)

    def cell_of(self, positions: NDArray[np.floating[Any]]) -> Ints:
        """Return row and column of the cell that a position lies in, [..., 2], clipped to the map."""
        cells = np.floor(positions - (CENTRE - 0.5)).astype(np.int64)
        return np.asarray(np.clip(cells, 0, np.array(self.grid.shape) - 1))

    def number_of(self, positions: NDArray[np.floating[Any]]) -> Ints:
        """Return the number in `cells` of the cell that a position lies in, [...]; -1 in a wall or cut off from the goal."""
        rows, columns = np.moveaxis(self.cell_of(positions), -1, 0)
        return np.asarray(self.index[rows, columns])

    def check(self, what: str, positions: NDArray[np.floating[Any]]) -> None:
        """Raise RactdError where a position [..., 2] is not finite, outside the maze, in a wall or cut off from the goal.

        `what` names the positions in the message.
        """
        flat = np.asarray(positions, np.float64).reshape(-1, 2)
        finite = np.isfinite(flat[:, 0]) & np.isfinite(flat[:, 1])
        numbers = np.where(finite, self.number_of(np.where(finite[:, None], flat, 0)), -1)
        if (numbers >= 0).all():
            return
        first = int(np.flatnonzero(numbers < 0)[0])
        x, y = flat[first]
        where = f"{what} ({x:g}, {y:g})" + (f", number {first}," if len(flat) > 1 else "")
        if not finite[first]:
            raise RactdError(f"{where} is not a finite position")
        row, column = self.cell_of(flat[first])
        kind = "inside a wall" if self.walls[row, column] else "cut off from the goal"
        raise RactdError(f"{where} is {kind} of maze {self.name!r} (row {row + 1}, column {column + 1} of the map)")


def parse_maze(text: str, name: str, where: str | None = None) -> Maze:
    """Make a maze of one's own from its map; `where` names it in messages, by default its name.

    Its step limit is 50 steps for each cell of the longest of the shortest ways to the goal, and at least 300 (D4RL's
    umaze). Raises RactdError for an empty map, an unknown character, ragged rows, an open border, no goal or several,
    and a start, or a whole map, without a way to the goal.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[0].strip():
        lines.pop(0)
    while lines and not lines[-1].strip():
        lines.pop()
    for problem in _problems(lines):
        raise RactdError(f"{where or f'maze {name!r}'}: {problem}")
    grid = np.array([list(line) for line in lines])
    _, longest = _flood(grid != WALL, grid == GOAL)
    return Maze(name, "\n".join(lines), OWN + name, max(MIN_STEPS, STEPS_PER_CELL * longest))


def read_maze(path: str | Path, name: str | None = None) -> Maze:
    """Read a maze of one's own from a text file, named as the file is by default; raises RactdError as `parse_maze` does."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RactdError(f"{path}: not a text file, expected a map of {LEGEND}") from None
    except OSError as error:
        raise RactdError(f"{path}: can't be read ({error.strerror})") from None
    return parse_maze(text, name or path.stem, str(path))


def _problems(lines: list[str]) -> Iterator[str]:
    """Yield what is wrong with a map, the first first: each check may rely on those before it."""
    if not lines:
        yield f"the map is empty, expected rows of {LEGEND}"
    for row, line in enumerate(lines, 1):
        for column, character in enumerate(line, 1):
            if character not in WALL + EMPTY + START + GOAL:
                yield f"row {row}, column {column} is {character!r}, expected {LEGEND}"
        if len(line) != len(lines[0]):
            yield f"row {row} has {len(line)} characters, row 1 has {len(lines[0])}; make all rows equally long"
    grid = np.array([list(line) for line in lines])
    border = np.ones(grid.shape, np.bool_)
    border[1:-1, 1:-1] = False
    for row, column in np.argwhere(border & (grid != WALL)):
        at = f"row {row + 1}, column {column + 1}"
        what = {START: "the start", GOAL: "the goal"}.get(grid[row, column])
        yield f"{what} at {at} is in the outer wall" if what else f"the outer wall is open at {at}; close it with #"
    goals = np.argwhere(grid == GOAL)
    if not len(goals):
        yield "the map has no goal; mark one cell with G"
    if len(goals) > 1:
        listed = ", ".join(f"row {row + 1} column {column + 1}" for row, column in goals[:4])
        yield f"the map has {len(goals)} goals ({listed}); keep one G"
    open_cells = grid != WALL
    if open_cells.sum() > MAX_CELLS:
        yield f"the map has {open_cells.sum():,} open cells, expected at most {MAX_CELLS:,}"
    connected, _ = _flood(open_cells, grid == GOAL)
    for row, column in np.argwhere((grid == START) & ~connected):
        yield f"no way leads from the start at row {row + 1}, column {column + 1} to the goal"
    if connected.sum() == 1:
        yield "no way leads to the goal from any other cell"


def _flood(open_cells: Bools, seed: Bools) -> tuple[Bools, int]:
    """Return the open cells that a way through the sides of cells joins to the seed, and the steps to the farthest of them."""
    found, steps = seed, 0
    while True:
        grown = found.copy()
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            grown |= np.roll(found, shift, axis)  # nothing comes around: the border is closed
        grown &= open_cells
        if (grown == found).all():
            return found, steps
        found, steps = grown, steps + 1


def _first_steps(index: Ints, cells: Ints) -> NDArray[np.int16]:
    """Search breadth-first from all goals at once: first steps of the shortest ways between the cells, [K, K]."""
    count = len(cells)
    beside = cells[:, None] + NEIGHBOURS
    neighbours = index[beside[..., 0], beside[..., 1]]  # [K, 4]; -1, the last row below, for walls
    distances = np.full((count + 1, count), np.iinfo(np.int16).max - 1, np.int16)
    np.fill_diagonal(distances, 0)
    while True:
        nearer = distances.copy()
        for side in neighbours.T:
            np.minimum(nearer[:-1], distances[side] + np.int16(1), out=nearer[:-1])
        if (nearer == distances).all():
            break
        distances = nearer
    nearest = np.argmin(distances[neighbours], axis=1)  # which neighbour, [K, K]
    steps = np.take_along_axis(neighbours, nearest, axis=1).astype(np.int16)
    np.fill_diagonal(steps, np.arange(count))
    return steps


def _d4rl(size: str, max_episode_steps: int, text: str) -> Maze:
    return Maze(f"maze2d-{size}", text.strip(), f"ractd/maze2d-{size}", max_episode_steps)


MAZES: dict[str, Maze] = {
    maze.name: maze
    for maze in (
        _d4rl(
            "umaze",
            300,
            """
#####
#G..#
###.#
#...#
#####
""",
        ),
        _d4rl(
            "medium",
            600,
            """
########
#..##..#
#..#...#
##...###
#..#...#
#.#..#.#
#...#.G#
########
""",
        ),
        _d4rl(
            "large",
            800,
            """
############
#....#.....#
#.##.#.#.#.#
#......#...#
#.####.###.#
#..#.#.....#
##.#.#.#.###
#..#...#.G.#
############
""",
        ),
    )
}
"""D4RL's mazes with their fixed evaluation goals and step limits (D4RL, `pointmaze`, version 1), by dataset name."""


def maze_named(env_id: str | None, text: str, where: str) -> Maze | None:
    """Return the maze that an environment is, None for another one; `text` is the map of a maze of one's own.

    Raises:
        RactdError: The map is damaged; `where` names what it is from.
    """
    env_id = env_id or ""
    for maze in MAZES.values():
        if maze.env_id == env_id:
            return maze
    return parse_maze(text, env_id.removeprefix(OWN), where) if env_id.startswith(OWN) else None


def maze_of(dataset: OfflineDataset) -> Maze | None:
    """Return the maze that a dataset's environment is, None for another one.

    Raises:
        RactdError: Its map is damaged.
    """
    return maze_named(dataset.env_id, dataset.maze, f"{dataset.where}, attribute 'maze'")
