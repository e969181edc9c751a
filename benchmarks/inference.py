"""Time of an action: one step of the student against the 80-bin Heun teacher on the same network.

    python benchmarks/inference.py [--threads 1] [--run runs/a]

Measures `Policy.act`, so checks, noise, scaling and copies are in it. A student keeps what its one pair of times decides
(embeddings, modulations, preconditioning) from call to call. The teacher, which visits 80 times, computes its own at each
evaluation, as samplers do; `folded` is the same teacher with all of them computed once as well. Policies take turns, in
which each is called again and again, and so is the student exported for each engine, beside PyTorch's teacher.
`cold` is the student's first call after one of the teacher's, which leaves other weights in the caches. Without `--run` the
networks have the weights they begin training with: what an action costs does not depend on them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import print_table, summary, write_result
from numpy.typing import NDArray

from ractd.critics.return_to_go import ReturnToGo, ReturnToGoPart
from ractd.export import export_policy
from ractd.export.formats import Format
from ractd.export.graph import PolicyGraph
from ractd.methods.ractd_settings import PRESETS, Config
from ractd.networks.unet import UNet
from ractd.policies import Policy, Sampling
from ractd.sequences.actions import Actions, ActionsPart
from ractd_runtime import Policy as Deployed

GOAL, GOAL_OF_PLANS = 142.0, 100.0
"""Of the ratio at batch 1: the paper's, and this project's for planners."""
OBSERVATIONS, ACTIONS = 11, 3
BATCHES = (1, 256)
FORMATS: tuple[Format, ...] = ("onnx", "openvino")
"""Of the exported student, in the order of the table's last columns: how much longer PyTorch's teacher takes."""
BLOCKS = 5
"""A run is divided into so many parts, whose ratios show the spread."""
TURN = 0.2
"""Seconds for which a policy is called again and again before the next."""


def untrained(config: Config, jumps: bool, folded: bool = True) -> Policy:
    """A student, or a teacher, of a configuration's network at Hopper's sizes."""
    settings, returns = config.teacher.network, config.return_model
    sequence = Actions(ActionsPart(OBSERVATIONS, ACTIONS, config.horizon, config.history))
    bins = config.diffusion.bins
    sampling = Sampling(
        "student" if jumps else "teacher",
        "consistency" if jumps else "heun",
        config.diffusion,
        1 if jumps else bins,
    )
    torch.manual_seed(0)
    network = settings.build(sequence.shape, sequence.condition_dim, jumps)
    critic = ReturnToGo.build(ReturnToGoPart(returns.layers, 1, 0.0, 1.0, 0.99), sequence)
    policy = Policy(sequence, network, sampling, network_settings=settings, critic=critic)
    return policy.fold() if folded else policy


def policies(run: Path | None, quick: bool) -> dict[str, tuple[Policy, Policy]]:
    """Pairs of student and teacher, by the name of their network."""
    if run is not None:
        student, teacher = (Policy.load(run / "policy" / name) for name in ("student", "teacher"))
        if student.network_settings != teacher.network_settings:
            raise SystemExit(f"{run}: student and teacher have different networks, their ratio says nothing")
        return {"trained": (student, teacher)}
    mlp, unet = PRESETS["cpu"], UNet(down_dims=(8,) if quick else (64, 128, 256))
    u = Config(horizon=16, teacher=type(mlp.teacher)(network=unet))
    return {name: (untrained(config, True), untrained(config, False)) for name, config in (("mlp", mlp), ("unet", u))}


def observations(policy: Policy, batch: int) -> NDArray[np.float32]:
    """Random observations as `act` takes them, where the data is."""
    sequence, normalizer = policy.sequence, policy.sequence.normalizer
    history = () if sequence.history == 1 else (sequence.history,)
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((*(() if batch == 1 else (batch,)), *history, sequence.observation_dim), np.float32)
    mean, std = normalizer.observation_mean.cpu().numpy(), normalizer.observation_std.cpu().numpy()
    near: NDArray[np.float32] = (mean + std * normal / 2).astype(np.float32)
    return near


def exported(policy: Policy, threads: int = 1, **options: Any) -> Deployed:
    """The runtime, on a graph that is exported for the purpose, with options of `export_policy`."""
    with tempfile.TemporaryDirectory() as directory:
        policy.save(Path(directory) / "policy")
        export_policy(Path(directory) / "policy", Path(directory) / "out", **options)
        return Deployed.load(Path(directory) / "out", threads=threads)


def timed(policy: Policy | Deployed, observation: NDArray[np.float32]) -> float:
    """Seconds of one call, which computes a whole sequence."""
    start = time.perf_counter()
    policy.act_chunk(observation)
    return time.perf_counter() - start


def turn(policy: Policy | Deployed, observation: NDArray[np.float32], seconds: float) -> list[float]:
    """Seconds of each call in so many seconds; but for the first, which finds other weights in the caches, if there are more."""
    stop = time.perf_counter() + seconds
    first, times = timed(policy, observation), []
    while time.perf_counter() < stop:
        times.append(timed(policy, observation))
    return times or [first]


def latencies(times: list[float], batch: int) -> dict[str, float]:
    """Median, p99 and quartiles of a call, and the median per action, in milliseconds."""
    ms = 1e3 * np.asarray(times)
    p25, p50, p75, p99 = np.percentile(ms, [25, 50, 75, 99])
    quartiles = {"p25": float(p25), "median": float(p50), "p75": float(p75), "p99": float(p99)}
    return {**quartiles, "calls": len(times), "median_per_action": float(p50) / batch}


def compare(
    student: Policy, teacher: Policy, graphs: dict[str, Deployed], batch: int, seconds: float, blocks: int
) -> dict[str, Any]:
    """Time them and the student's graphs block by block for about so many seconds, each at least once a block."""
    observation = observations(student, batch)
    policies: dict[str, Policy | Deployed] = {"student": student, "teacher_folded": PolicyGraph(teacher).policy}
    policies |= {**graphs, "teacher": teacher}
    times: dict[str, list[list[float]]] = {name: [[] for _ in range(blocks)] for name in policies}
    cold: list[float] = []
    for block in range(blocks):
        stop = time.perf_counter() + seconds / blocks
        while not times["student"][block] or time.perf_counter() < stop:
            cold.append(timed(student, observation))
            for name, policy in policies.items():
                times[name][block] += turn(policy, observation, min(TURN, seconds))

    def all_of(name: str) -> dict[str, float]:
        return latencies([t for block in times[name] for t in block], batch)

    def ratio(slow: str, fast: str) -> dict[str, Any]:
        pairs = zip(times[slow], times[fast], strict=True)
        return summary([statistics.median(a) / statistics.median(b) for a, b in pairs])

    return {
        "batch": batch,
        "student_evaluations": student.evaluations,
        "teacher_evaluations": teacher.evaluations,
        **{f"{name}_ms": all_of(name) for name in policies if name not in graphs},
        "student_cold_ms": latencies(cold, batch),
        "ratio": ratio("teacher", "student"),
        "ratio_to_folded": ratio("teacher_folded", "student"),
        "exported": {name: {"ms": all_of(name), "ratio": ratio("teacher", name)} for name in graphs},
    }


def main() -> None:
    """Measure, print, write `benchmarks/results/inference.json`, or one that is named after the run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path, help="a run directory, whose student and teacher are measured")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=30.0, help="of each network and batch size")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--quick", action="store_true", help="see that it works; nothing is written")
    arguments = parser.parse_args()
    before = torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    seconds, batches = (0.0, (1, 2)) if arguments.quick else (arguments.seconds, arguments.batches)
    pairs = policies(arguments.run, arguments.quick)
    goal = GOAL_OF_PLANS if any(student.sequence.open_loop for student, _ in pairs.values()) else GOAL
    results, blocks = {}, 1 if arguments.quick else BLOCKS
    for name, (student, teacher) in pairs.items():
        graphs: dict[str, Deployed] = {
            format: exported(student, arguments.threads, format=format) for format in FORMATS
        }
        for batch in batches:
            results[f"{name}, batch {batch}"] = compare(student, teacher, graphs, batch, seconds, blocks)
    torch.set_num_threads(before)
    rows = [
        [
            label,
            f"{row['student_ms']['median']:.3f}",
            f"{row['student_ms']['p99']:.3f}",
            f"{row['student_cold_ms']['median']:.3f}",
            f"{row['teacher_ms']['median']:.2f}",
            f"{row['teacher_ms']['p99']:.2f}",
            f"{row['ratio']['median']:.0f}",
            f"{row['ratio']['spread']:.0%}",
            f"{row['ratio_to_folded']['median']:.0f}",
            *(f"{row['exported'][format]['ratio']['median']:.0f}" for format in FORMATS),
        ]
        for label, row in results.items()
    ]
    evaluations = {row["teacher_evaluations"] for row in results.values()}
    title = f"1 network evaluation against {evaluations.pop()}, ms a call; goal {goal:g} at batch 1"
    print_table(
        title, ["network", "one step", "p99", "cold", "teacher", "p99", "ratio", "spread", "to folded", *FORMATS], rows
    )
    if not arguments.quick:
        settings = {"threads": arguments.threads, "seconds": seconds, "trained": arguments.run is not None}
        result = "inference" if arguments.run is None else f"inference_{arguments.run.resolve().name}"
        print(write_result(result, {**settings, "goal": goal, "results": results}).name)


if __name__ == "__main__":
    main()
