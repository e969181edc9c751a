"""A data format of one's own: an opener and a line in the registry, here for a robot's CSV logs.

    python examples/own_format.py robot.csv

Of what an opener returns, ractd checks names, shapes and values, so that an opener only says what is there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import ractd
from ractd.data.fields import Source, field_of
from ractd.data.formats import FILES

HEADER = "angle,velocity,torque,reward,fell,last"


def open_robot_csv(path: Path) -> Source | None:
    """Open a log with a column a sensor; None where the header is another's, so that the next opener is asked."""
    with path.open() as file:
        if file.readline().strip() != HEADER:
            return None
    table = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32, ndmin=2)
    fields = {
        "observations": table[:, :2],
        "actions": table[:, 2:3],
        "rewards": table[:, 3],
        "terminals": table[:, 4] == 1,
        "timeouts": table[:, 5] == 1,
    }
    return Source(
        where=str(path),
        name=path.stem,
        fields={name: field_of(array) for name, array in fields.items()},
        recipe="our robot's log",
    )


FILES[".csv"] = (f"{__name__}:open_robot_csv", *FILES.get(".csv", ()))


def write_log(path: Path) -> None:
    """Write ten episodes of twenty steps, as the robot would."""
    rng = np.random.default_rng(0)
    last = np.arange(200) % 20 == 19
    fell = last & (rng.random(200) < 0.5)
    columns = [*rng.normal(size=(2, 200)), rng.uniform(-1, 1, 200), 1.0 - fell, fell, last & ~fell]
    np.savetxt(path, np.stack(columns, 1), "%.4f", ",", header=HEADER, comments="")


def main() -> None:
    """Write a log, open it, and say what ractd thinks of it."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("log", type=Path, help="written where it isn't there")
    path = parser.parse_args().log
    if not path.exists():
        write_log(path)
    data = ractd.load_dataset(path)
    print(f"{data.name}: {data.num_transitions} transitions in {data.num_episodes} episodes, {data.recipe}")
    for finding in ractd.validate(data, ends="failure"):
        print(finding)


if __name__ == "__main__":
    main()
