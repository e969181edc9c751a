import numpy as np
import pytest

from ractd.data.scores import family, normalized_score, reference


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("Hopper-v5", "hopper"),
        ("HOPPER-V4", "hopper"),
        ("hopper-medium-replay", "hopper"),
        ("hopper-medium-replay-v2", "hopper"),
        ("mujoco/hopper/expert-v0", "hopper"),
        ("D4RL/hopper/medium-v2", "hopper"),
        ("hopper-mixed", "hopper"),
        ("Walker2d-v5", "walker2d"),
        ("HalfCheetah-v5", "halfcheetah"),
        ("Ant-v5", "ant"),
        ("antmaze-umaze-v2", "antmaze"),
        ("maze2d-umaze-v1", "maze2d-umaze"),
        ("maze2d-large-dense-v1", "maze2d-large-dense"),
        ("ractd/maze2d-medium", "maze2d-medium"),
        ("ractd/maze/maze2d-medium", None),
        ("ractd/maze/hopper", None),
        ("pen-human-v1", "pen"),
        ("kitchen-partial-v0", "kitchen"),
        ("HopperHop-v1", None),
        ("PointMaze_UMaze-v3", None),
        ("maze2d-open-v0", None),
        ("Pendulum-v1", None),
        ("", None),
    ],
)
def test_family(env_id: str, expected: str | None) -> None:
    assert family(env_id) == expected


def test_score_is_0_and_100_at_the_references() -> None:
    known = reference("hopper-medium")
    assert known is not None
    low, high = known
    scores = normalized_score("Hopper-v5", [low, high, (low + high) / 2])
    assert scores is not None
    np.testing.assert_allclose(scores, [0, 100, 50])
    assert normalized_score("Pendulum-v1", [1.0]) is None
    # The issue's own figure: a mean return of 439 on hopper scores 14.1.
    assert normalized_score("hopper", 439.1) == pytest.approx(14.1, abs=0.05)
