from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

from ractd.envs.maze import MAZES
from ractd.envs.maze.picture import FLOOR_COLOR, PAIR_COLORS, WALL_COLOR, MazePanel, draw, draw_panel

MAZE = MAZES["maze2d-umaze"]


def pixels(panel: MazePanel) -> Callable[[float, float], NDArray[np.int64]]:
    """Colours in [0, 255] by a position of the maze, of a panel drawn alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_panel(axes, MAZE, panel)
    canvas.draw()
    image: NDArray[np.int64] = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)

    def color(x: float, y: float) -> NDArray[np.int64]:
        column, row = axes.transData.transform((y, x))
        at: NDArray[np.int64] = image[round(500 - row), round(column)]
        return at

    return color


def rgb(name: str) -> NDArray[np.float64]:
    return np.round(255 * np.array(matplotlib.colors.to_rgb(name)))


def test_walls_floor_data_and_paths_are_where_they_are() -> None:
    rng = np.random.default_rng(0)
    data = rng.uniform([2.6, 1.6], [3.0, 2.0], (20_000, 2))
    path = np.array([[1, 1.4, 0, 0], [1, 3.0, 0, 0]])
    beside = path + np.array([0.1, 0, 0, 0])
    color = pixels(MazePanel("", data=data, plans=[path[::-1]], executed=[beside]))
    for x, y in ((1.8, 0.8), (1.8, 1.8), (0.05, 3.0), (2.0, 3.6), (3.5, 2.0)):
        np.testing.assert_allclose(color(x, y), rgb(WALL_COLOR), atol=4)
    for x, y in ((0.5, 1.8), (2.8, 0.8), (1.8, 2.5)):
        np.testing.assert_allclose(color(x, y), rgb(FLOOR_COLOR), atol=4)
    red, _, blue = color(2.8, 1.8)
    assert blue > red + 50
    drawn = rgb(PAIR_COLORS[0])
    np.testing.assert_allclose(color(1.1, 2.0), 0.85 * drawn + 0.15 * rgb(FLOOR_COLOR), atol=12)
    along = np.array([color(1.0, y) for y in np.linspace(1.6, 2.8, 200)])
    dashes = np.abs(along - drawn).max(axis=1) < 60
    assert 0.3 < dashes.mean() < 0.9  # a plan is dashed beside what was executed


def test_draw_writes_the_image_whole_or_not_at_all(tmp_path: Path) -> None:
    panels = [
        MazePanel("data", data=np.ones((3, 4))),
        MazePanel("plan", plans=[np.ones((2, 4))]),
    ]
    path = draw(MAZE, panels, tmp_path / "deep" / "maze.png")
    image = matplotlib.image.imread(path)
    assert image.shape[1] == 1200
    assert [file.name for file in path.parent.iterdir()] == ["maze.png"]
    draw(MAZE, [MazePanel("elsewhere", data=np.full((5, 4), 100.0))], tmp_path / "none.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["deep", "none.png"]
