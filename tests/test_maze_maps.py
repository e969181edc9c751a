import re
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import shortest_path

from ractd.envs.maze import MAZES, Maze, parse_maze, read_maze
from ractd.errors import RactdError

OWN = """
#######
#S..#.#
#.#.#.#
#.#...#
#S#.#G#
#######
"""


@pytest.mark.parametrize("maze", [*MAZES.values(), parse_maze(OWN, "own")], ids=lambda maze: maze.name)
def test_ways_are_shortest(maze: Maze) -> None:
    beside = np.abs(maze.cells[:, None] - maze.cells).sum(axis=-1) == 1
    lengths = shortest_path(beside, unweighted=True)
    assert np.isfinite(lengths).all()
    for i in range(len(maze.cells)):
        for j in range(len(maze.cells)):
            step = maze.next_cells[i, j]
            assert (step == i) if i == j else (beside[i, step] and lengths[step, j] == lengths[i, j] - 1)


@pytest.mark.parametrize(
    ("name", "cells", "goal", "limit"),
    [("maze2d-umaze", 7, (1, 1), 300), ("maze2d-medium", 26, (6, 6), 600), ("maze2d-large", 46, (7, 9), 800)],
)
def test_d4rl_mazes(name: str, cells: int, goal: tuple[int, int], limit: int) -> None:
    # Goals: the environments' `_target` in D4RL; the number of cells counts the O and G of its map strings.
    maze = MAZES[name]
    assert maze.env_id == f"ractd/{name}"
    assert (len(maze.cells), tuple(maze.goal), maze.max_episode_steps) == (cells, goal, limit)
    np.testing.assert_array_equal(maze.starts, maze.cells)
    assert maze.walls[[0, -1]].all()
    assert maze.walls[:, [0, -1]].all()


def test_coordinates_are_those_of_the_walls() -> None:
    maze = parse_maze(OWN, "own")
    # D4RL: the ball at position p is at p + 1.2, cell (i, j) is the unit square around (i + 1, j + 1).
    positions = np.random.default_rng(0).uniform(-0.69, [5.29, 6.29], (500, 2))
    np.testing.assert_array_equal(maze.cell_of(positions), np.round(positions + 1.2 - 1).astype(int))
    in_wall = maze.walls[tuple(maze.cell_of(positions).T)]
    np.testing.assert_array_equal(maze.number_of(positions) < 0, in_wall)
    np.testing.assert_array_equal(maze.number_of(maze.cells.astype(float)), np.arange(len(maze.cells)))
    assert maze.number_of(np.array([-50.0, 50.0])) == -1


def test_own_maze() -> None:
    maze = parse_maze(OWN.replace("\n", "\r\n"), "own")
    assert maze.text == OWN.strip()
    assert maze.env_id == "ractd/maze/own"
    np.testing.assert_array_equal(maze.goal, [4, 5])
    np.testing.assert_array_equal(maze.starts, [[1, 1], [4, 1]])
    # The longest way is from the lower start: 3 up, 2 right, 2 down, 2 right, 1 down.
    assert maze.max_episode_steps == 50 * 10
    assert parse_maze("####\n#G #\n####\n", "tiny").max_episode_steps == 300


def test_a_pocket_without_a_way_is_left_out_unless_it_is_a_start() -> None:
    pocket = "#######\n#G..#.#\n#######"
    maze = parse_maze(pocket, "pocket")
    assert maze.cells.tolist() == maze.starts.tolist() == [[1, 1], [1, 2], [1, 3]]
    assert maze.number_of(np.array([1.0, 5.0])) == -1
    with pytest.raises(RactdError, match="no way leads from the start at row 2, column 6 to the goal"):
        parse_maze(pocket.replace("#.#", "#S#"), "pocket")


BAD = {
    "the map is empty": "\n \n",
    "row 2, column 3 is 'x', expected # (wall), . or a space (empty), S (start) or G (goal)": "####\n#Gx#\n####",
    "row 2, column 2 is '\\t', expected": "####\n#\tG#\n####",
    "row 3 has 5 characters, row 1 has 4; make all rows equally long": "####\n#G.#\n#...#\n####",
    "the outer wall is open at row 2, column 4; close it with #": "####\n#G..\n####",
    "the outer wall is open at row 1, column 2": "#.##\n#G.#\n####",
    "the goal at row 2, column 1 is in the outer wall": "####\nG..#\n####",
    "the start at row 3, column 2 is in the outer wall": "####\n#G.#\n#S##",
    "the map has no goal; mark one cell with G": "####\n#S.#\n####",
    "the map has 2 goals (row 2 column 2, row 2 column 4); keep one G": "#####\n#G.G#\n#####",
    "no way leads to the goal from any other cell": "#####\n#G#.#\n#####",
    "the map has 2,704 open cells, expected at most 2,500": "\n".join(
        ["#" * 54, "#G" + "." * 51 + "#", *["#" + "." * 52 + "#"] * 51, "#" * 54]
    ),
}


@pytest.mark.parametrize("problem", BAD)
def test_bad_maps_are_one_sentence(problem: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(BAD[problem])
    with pytest.raises(RactdError, match="^" + re.escape(f"{path}: {problem}")):
        read_maze(path)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(RactdError, match=r"missing\.txt: can't be read"):
        read_maze(tmp_path / "missing.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00#")
    with pytest.raises(RactdError, match=r"binary\.txt: not a text file, expected a map of # "):
        read_maze(tmp_path / "binary.txt")


def test_positions_are_checked() -> None:
    maze = parse_maze("#######\n#G..#.#\n#######", "pocket")
    maze.check("start", np.array([[1.0, 1.0], [1.2, 3.2]]))
    with pytest.raises(
        RactdError, match=r"^goal \(1, 4\) is inside a wall of maze 'pocket' \(row 2, column 5 of the map\)"
    ):
        maze.check("goal", np.array([1.0, 4.0]))
    with pytest.raises(RactdError, match=r"start \(1, 5\), number 1, is cut off from the goal"):
        maze.check("start", np.array([[1.0, 1.0], [1.0, 5.0]]))
    with pytest.raises(RactdError, match=r"start \(nan, 1\) is not a finite position"):
        maze.check("start", np.array([np.nan, 1.0]))
    with pytest.raises(RactdError, match="is inside a wall"):
        maze.check("goal", np.array([1e9, -1e9]))
