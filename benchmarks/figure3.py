"""The paper's Figure 3 of a run: episode returns of data, teacher, plain student and RACTD.

python benchmarks/figure3.py --run runs/demo --out docs/figures/demo.png
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from ractd.data import load_dataset
from ractd.errors import RactdError
from ractd.training.results import read_result

POLICIES = {"teacher": "#3b6fb6", "plain student": "#e08a2e", "RACTD": "#2f9e5b"}


@dataclass
class Options:
    """What is drawn and where to."""

    run: Path
    """A finished run, whose dataset is where it was."""
    out: Path = Path("docs/figures/figure3.png")
    """The picture."""


def main() -> None:
    """Draw one histogram over another, each a share of its own episodes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    options = tyro.cli(Options, description=__doc__)
    result = read_result(options.run)
    if result is None:
        raise RactdError(f"{options.run}: has no result yet")
    dataset, rows = result.content["dataset"], result.content["rows"]
    returns = {"data": load_dataset(dataset["source"] or dataset["name"]).episode_returns().tolist()}
    returns |= {name: rows[name]["evaluation"]["returns"] for name in POLICIES if name in rows}
    bins = np.linspace(min(map(min, returns.values())), max(map(max, returns.values())), 41).tolist()
    figure, axes = plt.subplots(len(returns), 1, figsize=(7, 5.2), sharex=True, layout="constrained")
    for axis, (name, values) in zip(axes, returns.items(), strict=True):
        weights = np.full(len(values), 100 / len(values))
        axis.hist(values, bins, weights=weights, color=POLICIES.get(name, "#8a8a8a"))
        axis.set_title(f"{name}: mean {np.mean(values):,.0f}, {len(values)} episodes", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylabel("% of episodes", fontsize=8)
    axes[-1].set_xlabel(f"episode return, {dataset['name']} in {dataset['env_id']}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=120)
    print(options.out)


if __name__ == "__main__":
    main()
