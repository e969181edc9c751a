"""What every benchmark shares: the machine, the spread of repeats, committed results, a table."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ractd.files import replacing
from ractd.processors import cores, processor_name

RESULTS = Path(__file__).parent / "results"
LOAD_BEFORE = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
"""Processes that wanted a core in the last minute before this benchmark began: numbers from a busy machine say little."""
PACKAGES = ("ractd", "torch", "numpy", "mujoco", "envpool", "gymnasium", "onnxruntime", "openvino")


def machine() -> dict[str, Any]:
    """CPU model, cores this process may use, versions and git commit; nothing that names the machine or its paths."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": processor_name(),
        "cores": cores(),
        "load_before": LOAD_BEFORE,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "modified": bool(
            _git("status", "--porcelain", "--untracked-files=no", "--", "src", "runtime", "benchmarks/*.py")
        ),
    }


def repeat(measure: Callable[[], float], repeats: int) -> dict[str, Any]:
    """Measure `repeats` times: median, spread (largest minus smallest, as a share of the median) and every value."""
    return summary([measure() for _ in range(repeats)])


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, spread (largest minus smallest, as a share of the median) and every value."""
    median = statistics.median(values)
    return {"median": median, "spread": (max(values) - min(values)) / median, "values": list(values)}


def write_result(name: str, result: dict[str, Any], directory: Path = RESULTS) -> Path:
    """Write `<directory>/<name>.json` by atomic rename, with `machine()` beside the result."""
    path = directory / f"{name}.json"
    text = json.dumps({"benchmark": name, "machine": machine(), **result}, indent=2, allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(text + "\n")
    return path


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text, the first column to the left and numbers to the right; wide enough for all where nobody looks."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)


def _git(*arguments: str) -> str | None:
    done = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
