"""Time of an action on one core: PyTorch, torch.compile, ONNX Runtime and OpenVINO, beside what this machine could do.

    python benchmarks/latency.py [--networks mlp unet] [--engines onnx openvino] [--batches 1] [--sampling "1 step"]
    python benchmarks/latency.py --run runs/a runs/b --episodes 50    # what smaller students and int8 cost in score
    python benchmarks/latency.py --networks mujoco --seconds 1        # the paper's U-Net, 1 GB of weights

Measures `act` with all it does: checks, noise, scaling, copies. Every cell is written as soon as it is measured; the same
command goes on where it stopped, `--again` measures anew. Networks have the weights they begin training with, but for
those of `--run`.

The physical limit of a cell is the larger of two times: the weights' bytes that have to be read, over the bandwidth at
which this core sums that many bytes again and again, and the operations over its best matrix multiplication. Both count the
network alone, with what depends on time folded away; both are measured before each cell, so that what else the machine does
meets them too. The 80-bin teacher is no single graph (157 evaluations): for ONNX Runtime and OpenVINO it is estimated from
graphs of 7 and 15 evaluations, and marked so. The paper's U-Net, of which such graphs take hours to make, is estimated from its
student's 1 and 4 evaluations, in PyTorch as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from common import RESULTS, machine, print_table, write_result
from inference import exported, observations, untrained
from onnx import helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode
from training import gemm_peak

from ractd.export import export_policy
from ractd.export.graph import PolicyGraph
from ractd.methods.ractd_settings import NAMED_NETWORKS, PRESETS, Config
from ractd.networks.mlp import MLP
from ractd.networks.unet import UNet
from ractd.policies import Policy
from ractd_runtime import Policy as Deployed
from ractd_runtime.engines import OnnxEngine

BATCHES = (1, 32, 256)
LEAST_CALLS, SLOW_SECONDS = 20, 20.0
"""Calls of a cell at least, unless they take longer than this together; three in any case."""
SAMPLING = ("1 step", "4 steps", "teacher")
GOAL_US, GOAL_RATIO, GOAL_LIMIT, GOAL_IMPORT_MS = 100.0, 1000.0, 2.0, 150.0
SMALL_BINS, LARGE_BINS = 5, 9
"""The teacher's graphs from which 80 bins are estimated: 7 and 15 evaluations. With fewer, what float32 rounds off at a
noise of 80 (2e-5) is not contracted away by the steps that follow."""


def configurations() -> dict[str, Config]:
    """Networks by name: the cpu preset, a student smaller than that, a small U-Net and the paper's."""
    mlp = PRESETS["cpu"]
    return {
        "mlp": mlp,
        "mlp-small": replace(mlp, teacher=replace(mlp.teacher, network=NAMED_NETWORKS["cpu-small"])),
        "unet": replace(mlp, horizon=16, teacher=replace(mlp.teacher, network=UNet(down_dims=(64, 128, 256)))),
        "mujoco": PRESETS["mujoco"],
    }


@dataclass(frozen=True)
class Cell:
    """One number of the table."""

    network: str
    engine: str
    sampling: str
    batch: int

    def __str__(self) -> str:
        return f"{self.network}, {self.engine}, {self.sampling}, batch {self.batch}"

    def policy(self) -> Policy:
        """The PyTorch policy of this cell."""
        policy = untrained(configurations()[self.network], jumps=self.sampling != "teacher")
        return policy.configured(steps=4) if self.sampling == "4 steps" else policy


Act = Callable[[Any], Any]


def eager(policy: Policy) -> Act:
    """PyTorch as it is."""
    return policy.act


def compiled(policy: Policy) -> Act:
    """`torch.compile` of what is exported, from noise to actions; of the network alone for the teacher's 157 calls."""
    # What other cells compiled counts against a limit, past which calls run uncompiled without a word.
    torch.compiler.reset()
    if policy.sampling.jumps:
        policy.sample = torch.compile(PolicyGraph(policy).policy.sample, fullgraph=True)  # type: ignore[method-assign]
    else:
        policy.network = torch.compile(policy.network, fullgraph=True)  # type: ignore[assignment]
    return policy.act


GRAPHS: dict[str, dict[str, Any]] = {"onnx": {}, "onnx int8": {"precision": "int8"}, "openvino": {"format": "openvino"}}
"""Options of `export_policy` of each engine that runs graphs."""


@cache
def graph(network: str, engine: str, student: bool, steps: int) -> Deployed:
    """The graph of a network with so many steps, for every batch: to make one can take minutes."""
    return exported(untrained(configurations()[network], student).configured(steps=steps), **GRAPHS[engine])


ENGINES: dict[str, Callable[[Policy], Act]] = {"eager": eager, "compile": compiled}


def timed(act: Act, observation: Any, seconds: float, least: int) -> list[float]:
    """Microseconds of each call for about so many seconds, after a call that is not counted."""
    act(observation)
    times: list[float] = []
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds or len(times) < (least if passed < SLOW_SECONDS else 3):
        start = time.perf_counter()
        act(observation)
        times.append(1e6 * (time.perf_counter() - start))
    return times


def quantiles(times: list[float]) -> dict[str, float]:
    """p50, p99 and the largest."""
    p50, p99 = np.percentile(times, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "max": max(times), "calls": len(times)}


def measure(cell: Cell, seconds: float, least: int) -> dict[str, Any]:
    """Measure one cell and the limits of its work."""
    policy, of_cell = cell.policy(), partial(calls, cell.network, cell.engine, cell.batch)
    limits = physical_limit(policy, cell.batch, cell.engine == "onnx int8")
    if cell.sampling == "teacher" and (cell.engine in GRAPHS or cell.network == "mujoco"):
        student = cell.network == "mujoco"
        few, many = (1, 4) if student else (SMALL_BINS, LARGE_BINS)
        small, large = (of_cell(student, steps, seconds, least) for steps in (few, many))
        evaluated = [
            untrained(configurations()[cell.network], student).configured(steps=k).evaluations for k in (few, many)
        ]
        each = (statistics.median(large) - statistics.median(small)) / (evaluated[1] - evaluated[0])
        rest = policy.evaluations - evaluated[1]
        return {**quantiles([t + rest * each for t in large]), "estimated": True, **limits}
    times = of_cell(policy.sampling.jumps, policy.sampling.steps, seconds, least)
    return {**quantiles(times), "estimated": False, **limits}


@cache
def calls(network: str, engine: str, batch: int, student: bool, steps: int, seconds: float, least: int) -> list[float]:
    """Microseconds of each call of a student, or a teacher; an estimate takes what another cell has measured already."""
    policy = untrained(configurations()[network], student).configured(steps=steps)
    act = graph(network, engine, student, steps).act if engine in GRAPHS else ENGINES[engine](policy)
    return timed(act, observations(policy, batch), seconds, least)


def physical_limit(policy: Policy, batch: int, int8: bool) -> dict[str, Any]:
    """Microseconds that reading the weights and multiplying with them take at least, measured now."""
    sequence = policy.sequence
    # The folded network of one evaluation does what all of them do.
    one = PolicyGraph(policy.configured(steps=1 if policy.sampling.jumps else 2)).policy.evaluated[0]
    size = sum(parameter.numel() for parameter in one.parameters()) * (1 if int8 else 4)
    x = torch.zeros(batch, *sequence.shape)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        one(x, torch.zeros(batch, sequence.condition_dim))
    rate, peak = bandwidth(size), 1e9 * gemm_peak(0.2)["best"]
    memory, compute = (1e6 * policy.evaluations * work for work in (size / rate, counter.get_total_flops() / peak))
    return {
        "evaluations": policy.evaluations,
        "weight_bytes": size,
        "flops_per_evaluation": counter.get_total_flops(),
        "gb_per_s": rate / 1e9,
        "gflop_per_s": peak / 1e9,
        "memory_us": memory,
        "compute_us": compute,
        "limit_us": max(memory, compute),
    }


def bandwidth(size: int, seconds: float = 0.1) -> float:
    """Bytes a second that one core reads from a block of `size` bytes, over and over: cache where it fits, memory else."""
    block = torch.ones(max(size // 4, 16))
    times = timed(torch.sum, block, seconds, 5)
    return block.nbytes / (1e-6 * statistics.median(times))


def floors(seconds: float) -> dict[str, dict[str, float]]:
    """Microseconds of `act` where the MLP's graph computes nothing, and where it only multiplies with its weights.

    The first is checks, noise, copies and the call of ONNX Runtime; no other graph of these sizes is faster than the second.
    """
    policy = Cell("mlp", "onnx", "1 step", 1).policy()
    contract = exported(policy).contract
    x_dim, config = contract.horizon * contract.action_dim, configurations()["mlp"].teacher.network
    assert isinstance(config, MLP)
    sizes = [x_dim + contract.history * contract.observation_dim, *[config.width] * (config.blocks + 1), x_dim]
    shapes = {"noise": contract.noise_shape, "observation": (contract.history, contract.observation_dim)}
    shapes["actions"] = (contract.horizon, contract.action_dim)
    noise, observation, actions = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["B", *shape]) for name, shape in shapes.items()
    )
    numbers = {"shape": np.array([-1, *shapes["actions"]]), "row": np.array([0, -1])}
    numbers |= {f"w{i}": np.full(pair, 1 / pair[0], np.float32) for i, pair in enumerate(pairwise(sizes))}
    numbers |= {f"b{i}": np.zeros(size, np.float32) for i, size in enumerate(sizes[1:])}
    multiplications = [
        helper.make_node("Reshape", ["noise", "row"], ["x"]),
        helper.make_node("Reshape", ["observation", "row"], ["condition"]),
        helper.make_node("Concat", ["x", "condition"], ["h0"], axis=1),
        *(helper.make_node("Gemm", [f"h{i}", f"w{i}", f"b{i}"], [f"h{i + 1}"]) for i in range(len(sizes) - 1)),
        helper.make_node("Reshape", [f"h{len(sizes) - 1}", "shape"], ["actions"]),
    ]
    graphs = {"nothing": [helper.make_node("Reshape", ["noise", "shape"], ["actions"])], "weights": multiplications}
    found = {}
    for name, nodes in graphs.items():
        used = {word for node in nodes for word in node.input}
        tensors = [numpy_helper.from_array(value, key) for key, value in numbers.items() if key in used]
        graph = helper.make_graph(nodes, name, [observation, noise], [actions], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        deployed = Deployed(contract, OnnxEngine({"graph": model.SerializeToString()}, threads=1, spin=False))
        found[name] = quantiles(
            timed(deployed.act, np.zeros(contract.observation_shape, np.float32), seconds, LEAST_CALLS)
        )
    return found


def import_times() -> dict[str, float]:
    """Milliseconds that a fresh process takes to import the runtime, numpy in it, and onnxruntime after it; best of 5."""
    code = (
        "import time; a = time.perf_counter(); import numpy; b = time.perf_counter()\n"
        "import ractd_runtime.policy; c = time.perf_counter(); import onnxruntime; d = time.perf_counter()\n"
        "print(b - a, c - a, d - c)"
    )
    runs = []
    for _ in range(5):
        words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        runs.append([1e3 * float(word) for word in words])
    numpy, runtime, engine = (min(column) for column in zip(*runs, strict=True))
    return {"ractd_runtime_ms": runtime, "of_which_numpy_ms": numpy, "onnxruntime_ms": engine}


def scores(run: Path, precision: Any, episodes: int, seconds: float) -> dict[str, Any]:
    """Export a run's student, score it and PyTorch with the same seeds, and time it at batch 1."""
    with tempfile.TemporaryDirectory() as directory:
        done = export_policy(run, Path(directory) / "out", precision=precision, check_episodes=episodes)
        deployed = Deployed.load(Path(directory) / "out")
    assert done.scores is not None
    policy = Policy.load(run)
    mean = np.array(done.contract["inputs"]["observation"]["mean"], np.float32)
    observation = mean if deployed.contract.history == 1 else np.repeat(mean[None], deployed.contract.history, 0)
    names = ("pytorch", "exported")
    return {
        "network": str(policy.network_settings),
        "precision": precision,
        "episodes": episodes,
        "scores": {n: (e.mean_score, e.score_se, e.mean_return) for n, e in zip(names, done.scores, strict=True)},
        **quantiles(timed(deployed.act, observation, seconds, LEAST_CALLS)),
        "estimated": False,
        **physical_limit(policy, 1, precision == "int8"),
    }


def show(result: dict[str, Any]) -> None:
    """Print what is measured so far, and which goals it meets."""
    cells, rows = result["cells"], []
    for key, cell in {**cells, **result["scores"]}.items():
        numbers = [f"{cell[name]:,.0f}" for name in ("p50", "p99", "max", "memory_us", "compute_us")]
        score = [
            f"{mean_return if mean is None else mean:.1f} ± {error or 0:.1f}"
            for mean, error, mean_return in cell.get("scores", {}).values()
        ]
        limit = f"{cell['p50'] / cell['limit_us']:.1f}"
        rows.append([key + (" (est.)" if cell["estimated"] else ""), *numbers, limit, " / ".join(score)])
    columns = ["us per call of act, one core", "p50", "p99", "max", "bytes/bandwidth", "ops/peak", "p50/limit"]
    print_table(f"{result['threads']} thread", [*columns, "score by PyTorch / exported"], rows)
    imports = result["imports"]
    print(
        f"import: ractd_runtime {imports['ractd_runtime_ms']:.0f} ms, of which numpy {imports['of_which_numpy_ms']:.0f} "
        f"(goal {GOAL_IMPORT_MS:g}); onnxruntime {imports['onnxruntime_ms']:.0f} ms more"
    )
    nothing, weights = (result["floors"][name]["p50"] for name in ("nothing", "weights"))
    print(f"MLP, ONNX Runtime: {nothing:.0f} us with an empty graph, {weights:.0f} us with its multiplications alone")
    one = {name: cells.get(f"mlp, {name}, batch 1", {}).get("p50") for name in ("onnx, 1 step", "eager, teacher")}
    student, teacher = one.values()
    if student:
        print(f"MLP student, ONNX Runtime, batch 1: {student:.0f} us (goal {GOAL_US:g})")
    for batch in (1, 256):
        of_limit = {
            engine: cells[key]["p50"] / cells[key]["limit_us"]
            for engine in GRAPHS
            if (key := f"mlp, {engine}, 1 step, batch {batch}") in cells
        }
        said = ", ".join(f"{engine} {ratio:.1f}" for engine, ratio in of_limit.items())
        if of_limit:
            print(f"MLP student, batch {batch}, times its physical limit: {said} (goal {GOAL_LIMIT:g})")
    if student and teacher:
        print(f"PyTorch's 80-bin teacher takes {teacher / student:,.0f} times as long (goal {GOAL_RATIO:g})")


def main() -> None:
    """Measure what is missing, print, write `benchmarks/results/latency.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    names = tuple(configurations())
    parser.add_argument("--networks", nargs="+", choices=names, default=["mlp", "mlp-small", "unet"])
    parser.add_argument("--engines", nargs="+", choices=(*ENGINES, *GRAPHS), default=[*ENGINES, *GRAPHS])
    parser.add_argument("--sampling", nargs="+", choices=SAMPLING, default=list(SAMPLING))
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--seconds", type=float, default=5.0, help=f"of each cell, or {LEAST_CALLS} calls if longer")
    parser.add_argument(
        "--run", nargs="*", type=Path, default=[], help="runs whose students are scored in fp32 and int8"
    )
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument("--out", type=Path, help="the file of results, by default results/latency.json")
    parser.add_argument("--quick", action="store_true", help="see that it works; nothing is written without --out")
    arguments = parser.parse_args()
    out: Path | None = arguments.out or (None if arguments.quick else RESULTS / "latency.json")

    torch.set_num_threads(1)
    seconds, least = (0.02, 2) if arguments.quick else (arguments.seconds, LEAST_CALLS)
    result: dict[str, Any] = {"threads": 1, "seconds": seconds, "cells": {}, "scores": {}, "imports": import_times()}
    result["floors"] = floors(seconds)
    if out is not None and out.exists():
        before = json.loads(out.read_text())
        if before["machine"]["cpu"] != machine()["cpu"]:
            raise SystemExit(f"{out}: is from another machine; use another --out")
        result |= {name: before[name] for name in ("cells", "scores")}

    def missing(kind: str, key: str) -> bool:
        return arguments.again or key not in result[kind]

    def keep(kind: str, key: str, row: dict[str, Any]) -> None:
        result[kind][key] = row | {"load": os.getloadavg()[0], "commit": machine()["commit"]}
        if out is not None:
            write_result(out.stem, result, out.parent)
        print(f"{key}: p50 {row['p50']:.0f} us", flush=True)

    for words in product(arguments.networks, arguments.engines, arguments.sampling, arguments.batches):
        cell = Cell(*words)
        if cell.engine == "onnx int8" and not cell.network.startswith("mlp"):
            continue  # a U-Net's convolutions stay in fp32
        if missing("cells", str(cell)):
            keep("cells", str(cell), measure(cell, seconds, least))
    for run, precision in product(arguments.run, ("fp32", "int8")):
        key = f"{run.name}, {precision}"
        if missing("scores", key):
            keep("scores", key, scores(run, precision, arguments.episodes, seconds))
    show(result)


if __name__ == "__main__":
    main()
