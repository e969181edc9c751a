"""Is it worth its training on my data? Methods side by side, and what a lucky checkpoint would have been worth.

    python examples/compare_methods.py logs.hdf5 --methods ractd bc:preset=best-tenth iql --seeds 3 --jobs 2

`ractd compare` prints much the same. Here the rows are a table of pandas, for questions of your own.
"""

from __future__ import annotations

import argparse

import pandas as pd

import ractd


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a line a method: its last checkpoints over seeds, what picking by playing adds, and what it costs."""
    value = "mean_score" if rows.mean_score.notna().all() else "mean_return"
    seeds = rows.pivot_table(index=["method", "seed"], columns="checkpoint", values=value)
    lines = pd.DataFrame(
        {"last": seeds["last"].groupby("method").mean(), "s.e.": seeds["last"].groupby("method").sem()}
    )
    if "best" in seeds:
        lines["best - last"] = (seeds["best"] - seeds["last"]).groupby("method").mean()
    by_method = rows.groupby("method")
    # The seed that a robot would have got in the worst case.
    lines["worst seed"] = seeds["last"].groupby("method").min()
    lines["CPU minutes"] = by_method.processor_seconds.mean() / 60
    lines["ms/action"] = by_method.ms_per_action.first()
    return lines.sort_values("last", ascending=False)


def main() -> None:
    """Train what is missing and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("dataset", help="a file or a name, as for 'ractd train'")
    parser.add_argument("--methods", nargs="+", default=["ractd", "bc:preset=best-tenth"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", default="runs/compared")
    asked = parser.parse_args()

    rows = ractd.compare(asked.dataset, methods=asked.methods, seeds=asked.seeds, jobs=asked.jobs, out=asked.out)
    print(summary(rows).round(2).to_string())


if __name__ == "__main__":
    main()
