"""Is a policy as quick as it was? Two commits train the same policy, and their PyTorch and exported ones act in turns.

    python benchmarks/act_before.py COMMIT                 # COMMIT against what is checked out

Both commits train a student of the `cpu` preset on data that is made here (a few steps: its speed doesn't depend on its weights),
and export it. Then, on one thread and a batch of one observation: `act` in PyTorch, of each commit's own package, and the two
graphs in one process of ONNX Runtime. Medians of calls, ten rounds in turns. Writes benchmarks/results/act_before.json.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import tyro
from common import print_table, summary, write_result
from same_numbers import ROOT, RUNS, checked_out, make_data, run, train
from same_numbers import Options as Training
from tyro.conf import Positional

ROUNDS, CALLS = 10, 2000
TIME_ACT = f"""
import statistics, sys, time
import numpy as np
import torch
import ractd
torch.set_num_threads(1)
policy = ractd.Policy.load(sys.argv[1])
policy.fold() if hasattr(policy, "fold") else None
observation = np.zeros(11, np.float32)
for line in sys.stdin:
    times = []
    for _ in range({CALLS}):
        began = time.perf_counter()
        policy.act(observation)
        times.append(time.perf_counter() - began)
    print(1e6 * statistics.median(times), flush=True)
"""
"""What each commit runs: a median in microseconds for each line that it reads."""


@dataclass
class Options:
    """Which commit."""

    commit: Positional[str]
    """The commit that what is checked out is compared with."""


def acting(tree: Path, policy: Path) -> subprocess.Popen[str]:
    """Start the process in which a checkout's policy acts."""
    environment = {"PYTHONPATH": f"{tree / 'src'}:{tree / 'runtime/src'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TIME_ACT, str(policy)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def act_microseconds(process: subprocess.Popen[str]) -> float:
    """Return the median of one round of `act`."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


class Graph:
    """An exported policy in ONNX Runtime, on one thread."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = {
            each.name: np.zeros([size if isinstance(size, int) else 1 for size in each.shape], np.float32)
            for each in self.session.get_inputs()
        }

    def microseconds(self) -> float:
        """Return the median of one round of calls."""
        times = []
        for _ in range(CALLS):
            began = time.perf_counter()
            self.session.run(None, self.inputs)
            times.append(time.perf_counter() - began)
        return 1e6 * float(np.median(times))


def main() -> None:
    """Train and export with both, time both in turns, and write the ratios."""
    commit = tyro.cli(Options, description=__doc__).commit
    training = Training(commit, steps=4)
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name, checked_out(commit, Path(name)) as before:
        folder = Path(name)
        make_data(RUNS["hopper"], folder / "hopper.npz")
        processes, graphs = {}, {}
        for when, tree in (("before", before), ("now", ROOT)):
            out = folder / f"run-{when}"
            train(tree, folder / "hopper.npz", out, 0, training)
            run(tree, "-m", "ractd.cli", "export", str(out), "--out", str(folder / f"{when}-graph"))
            processes[when] = acting(tree, out / "policy" / "student")
            graphs[when] = Graph(next((folder / f"{when}-graph").glob("*.onnx")))
        for _ in range(ROUNDS):
            for when, process in processes.items():
                times.setdefault(f"act, {when}", []).append(act_microseconds(process))
                times.setdefault(f"graph, {when}", []).append(graphs[when].microseconds())
        for process in processes.values():
            process.communicate()
    ratios = {
        what: summary([n / b for n, b in zip(times[f"{what}, now"], times[f"{what}, before"], strict=True)])
        for what in ("act", "graph")
    }
    rows = [
        [what, *(f"{np.median(times[f'{what}, {when}']):.1f}" for when in ("before", "now")), f"{ratio['median']:.2f}"]
        for what, ratio in ratios.items()
    ]
    print_table(f"microseconds of an action, {commit} and what is checked out", ["", "before", "now", "ratio"], rows)
    microseconds = {name: summary(values) for name, values in times.items()}
    write_result("act_before", {"before": commit, "ratios": ratios, "microseconds": microseconds})


if __name__ == "__main__":
    main()
