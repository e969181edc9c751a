"""Does the share of the data that eq. 7 sees hurt where no good episode is whole? Each episode cut in two, the halves shuffled.

    python benchmarks/halves.py --data DIR       # two RACTD students and a clone of each set; stop it and go on at will

DIR holds the datasets as HDF5 files. A first half ends as by a time limit, with the observation that came next; a second half
starts where no episode starts. So the best episodes by return are halves, and many of them never show a start. `ractd compare`
trains the default, RACTD of all data, and cloning of the best tenth on each. Writes benchmarks/results/halves.md and halves.csv.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from common import RESULTS
from goals import ractd

from ractd.data import OfflineDataset, load_dataset, write_hdf5
from ractd.files import replacing

METHODS = ("ractd", "ractd:student.share=1", "bc:preset=best-tenth")


@dataclass
class Options:
    """Which datasets, where the runs go."""

    data: Path
    """Folder of the datasets."""
    runs: Path = Path("runs/halves")
    """Folder of the data made here and the comparisons."""
    datasets: tuple[str, ...] = ("hopper-medium-replay", "walker2d-medium-replay")
    """Which of them; they are to choose settings on."""
    seeds: int = 1
    """Seeds of each."""


def halves(dataset: OfflineDataset, rng: np.random.Generator) -> OfflineDataset:
    """Cut each episode of two steps or more in the middle, and shuffle the pieces."""
    pieces, finals, timeouts, lengths = [], [], dataset.timeouts.copy(), dataset.episode_lengths
    unknown = np.full((len(lengths), dataset.observation_dim), np.nan, np.float32)
    ended = unknown if dataset.final_observations is None else dataset.final_observations
    for start, length, final in zip(np.cumsum(lengths) - lengths, lengths, ended, strict=True):
        middle, end = start + length // 2, start + length
        if middle > start:
            timeouts[middle - 1] = True
            pieces.append(np.arange(start, middle))
            finals.append(dataset.observations[middle])
        pieces.append(np.arange(middle, end))
        finals.append(final)
    order = rng.permutation(len(pieces))
    rows = np.concatenate([pieces[i] for i in order])
    fields = ("observations", "actions", "rewards", "terminals")
    return replace(
        dataset,
        name=f"{dataset.name}-halves",
        timeouts=timeouts[rows],
        final_observations=np.stack([finals[i] for i in order]),
        **{field: getattr(dataset, field)[rows] for field in fields},
    )


def main() -> None:
    """Make the data, train what is missing, write the tables."""
    options = tyro.cli(Options, description=__doc__)
    options.runs.mkdir(parents=True, exist_ok=True)
    texts, frames = [], []
    for name in options.datasets:
        path, out = options.runs / f"{name}-halves.hdf5", options.runs / name
        if not path.exists():
            with replacing(path) as partial:
                write_hdf5(partial, halves(load_dataset(options.data / f"{name}.hdf5"), np.random.default_rng(0)))
        words = ("--seeds", str(options.seeds), "--out", out, "--no-report")
        if code := ractd("compare", path, "--methods", *METHODS, *words):
            sys.exit(code)
        texts.append((out / "comparison.md").read_text())
        frames.append(pd.read_csv(out / "comparison.csv"))
    with replacing(RESULTS / "halves.md") as partial:
        partial.write_text("\n".join(texts))
    with replacing(RESULTS / "halves.csv") as partial:
        pd.concat(frames).to_csv(partial, index=False)
    print("\n".join(texts))


if __name__ == "__main__":
    main()
