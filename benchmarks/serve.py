"""Throughput and latency of `ractd serve` on loopback, for clients that ask again as soon as they are answered.

    python benchmarks/serve.py [--policy runs/a] [--seconds 60] [--clients 1 8 32 64]
    python benchmarks/serve.py --soak 600        # 32 clients for ten minutes: is the memory flat, is there an error?

The same policy is served exported and with PyTorch. Server and clients are two processes of this machine and share its
cores. Latencies are what a client sees: encoding, two trips over loopback, queue, policy, decoding, and waiting for the other
clients of its process. Without `--policy` the network has the weights that it begins training with: what an answer costs does
not depend on them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from common import print_table, write_result
from inference import untrained
from uvloop import new_event_loop
from websockets.asyncio.client import connect

from ractd.export import export_policy
from ractd.methods.ractd_settings import PRESETS
from ractd.policies import Policy
from ractd.serve.wire import pack, unpack

GOAL_MS, GOAL_CLIENTS = 5.0, 32
"""p99 in milliseconds at so many clients of the MLP policy."""
WARM_UP = 20
"""Requests of each client that are not counted."""
SAMPLES = 120
"""Looks at the server's memory during a soak."""


def exported(policy: Policy, directory: Path) -> Path:
    """Export a policy."""
    return export_policy(policy.save(directory / "policy"), directory / "exported").directory


def start(policy: Path, torch: bool, wait_ms: float, log: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start the server, and return it with its port once it listens."""
    command = [sys.executable, "-m", "ractd.cli", "serve", str(policy), "--port", "0", "--batch-wait-ms", str(wait_ms)]
    with log.open("wb") as stream:
        server = subprocess.Popen([*command, *(["--torch"] if torch else [])], stderr=stream)
    while server.poll() is None:
        for line in log.read_text().splitlines():
            if '"event": "listening"' in line:
                return server, int(json.loads(line)["port"])
        time.sleep(0.05)
    raise SystemExit(f"the server did not start:\n{log.read_text()}")


@dataclass
class Seen:
    """What the clients saw so far."""

    seconds: list[float] = field(default_factory=list)
    """Of each answer, in the order of their arrival."""
    errors: list[str] = field(default_factory=list)


async def client(port: int, message: bytes, stop: float, all_ready: asyncio.Barrier, seen: Seen) -> None:
    """Ask in closed loop until `stop` seconds after all clients are warm."""
    try:
        async with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None) as connection:
            await connection.recv()
            for _ in range(WARM_UP):
                await connection.send(message)
                await connection.recv()
            await all_ready.wait()
            end = time.perf_counter() + stop
            while (begin := time.perf_counter()) < end:
                await connection.send(message)
                answer = await connection.recv()
                if isinstance(answer, bytes) and np.isfinite(unpack(answer)["actions"]).all():
                    seen.seconds.append(time.perf_counter() - begin)
                else:
                    seen.errors.append(str(answer))
    except Exception as error:
        seen.errors.append(f"{type(error).__name__}: {error}")
        await all_ready.abort()


async def load(port: int, message: bytes, clients: int, seconds: float, seen: Seen) -> None:
    """Run so many clients."""
    ready = asyncio.Barrier(clients)
    await asyncio.gather(*(client(port, message, seconds, ready, seen) for _ in range(clients)))


def resident_mb(port: int) -> float:
    """The server's memory."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        text = page.read().decode()
    return float(text.split("\nprocess_resident_memory_bytes ")[1].split()[0]) / 1e6


def latencies(seen: Seen, seconds: float) -> dict[str, Any]:
    """Answers a second, quantiles in milliseconds, errors."""
    if not seen.seconds:
        raise SystemExit(f"no answer: {seen.errors[0] if seen.errors else 'the clients were too slow'}")
    p50, p99 = np.percentile(1e3 * np.asarray(seen.seconds), [50, 99])
    return {
        "answers_per_second": len(seen.seconds) / seconds,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": 1e3 * max(seen.seconds),
        "errors": len(seen.errors),
        "first_error": seen.errors[0] if seen.errors else None,
    }


def measure(port: int, message: bytes, clients: int, seconds: float) -> dict[str, Any]:
    """One row of the table."""
    before, seen = resident_mb(port), Seen()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(load(port, message, clients, seconds, seen))
    return {
        "clients": clients,
        **latencies(seen, seconds),
        "memory_mb": {"before": before, "after": resident_mb(port)},
    }


def soak(port: int, message: bytes, clients: int, seconds: float) -> dict[str, Any]:
    """Run for long, look at the memory `SAMPLES` times on the way, and fit a line through all but the first tenth."""
    seen, memory = Seen(), []

    async def watched() -> None:
        under_way = asyncio.create_task(load(port, message, clients, seconds, seen))
        began = time.perf_counter()
        while not under_way.done():
            await asyncio.wait([under_way], timeout=seconds / SAMPLES)
            memory.append((time.perf_counter() - began, await asyncio.to_thread(resident_mb, port)))
        await under_way

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(watched())
    at, megabytes = np.array(memory[len(memory) // 10 :]).T
    return {
        "clients": clients,
        **latencies(seen, seconds),
        "mb_per_hour": float(3600 * np.polyfit(at, megabytes, 1)[0]),
        "memory_mb": memory,
    }


def main() -> None:
    """Measure, print, write `benchmarks/results/serve.json` or `soak.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--policy", type=Path, help="a run, or one of its policies; by default untrained weights")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each number of clients")
    parser.add_argument("--soak", type=float, metavar="SECONDS", help=f"{GOAL_CLIENTS} clients for so long instead")
    parser.add_argument("--batch-wait-ms", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true", help="see that it works; nothing is written")
    arguments = parser.parse_args()
    seconds = 0.5 if arguments.quick else arguments.seconds
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    policy = Policy.load(arguments.policy) if arguments.policy else untrained(PRESETS["cpu"], True)
    observation = np.repeat(policy.sequence.normalizer.observation_mean.numpy()[None], policy.sequence.history, 0)
    message = pack({"observation": observation if policy.sequence.history > 1 else observation[0]})
    settings = {"batch_wait_ms": arguments.batch_wait_ms, "trained": arguments.policy is not None}
    goal = {"p99_ms": GOAL_MS, "clients": GOAL_CLIENTS, "errors": 0}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        wait: float = arguments.batch_wait_ms
        graph, network = exported(policy, directory), directory / "policy"
        engines = {
            "exported": (graph, False, wait),
            f"exported, batches wait {2 * wait:g} ms": (graph, False, 2 * wait),
            "PyTorch": (network, True, wait),
        }

        def served(engine: str, work: Callable[[int], Any]) -> Any:
            server, port = start(*engines[engine], directory / "log")
            try:
                return work(port)
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(30)

        if arguments.soak:
            row = served("exported", lambda port: soak(port, message, GOAL_CLIENTS, arguments.soak))
            print(
                f"{GOAL_CLIENTS} clients, {arguments.soak:g} s: {row['answers_per_second']:.0f} answers/s, "
                f"p50 {row['p50_ms']:.2f} ms, p99 {row['p99_ms']:.2f} ms, {row['errors']} errors; memory "
                f"{row['memory_mb'][0][1]:.1f} -> {row['memory_mb'][-1][1]:.1f} MB, {row['mb_per_hour']:+.1f} MB/hour"
            )
            if not arguments.quick:
                print(write_result("soak", {**settings, "seconds": arguments.soak, "goal": goal, "result": row}).name)
            return
        rows = [
            {"engine": engine, **row}
            for engine in engines
            for row in served(
                engine, lambda port: [measure(port, message, clients, seconds) for clients in arguments.clients]
            )
        ]
    columns = ["", "clients", "answers/s", "p50 ms", "p99 ms", "max ms", "errors", "memory MB"]
    table = [
        [
            row["engine"],
            str(row["clients"]),
            f"{row['answers_per_second']:.0f}",
            *(f"{row[name]:.2f}" for name in ("p50_ms", "p99_ms", "max_ms")),
            str(row["errors"]),
            f"{row['memory_mb']['before']:.0f} -> {row['memory_mb']['after']:.0f}",
        ]
        for row in rows
    ]
    print_table(f"over loopback; goal: p99 {GOAL_MS:g} ms at {GOAL_CLIENTS} clients", columns, table)
    if not arguments.quick:
        print(write_result("serve", {**settings, "seconds": seconds, "goal": goal, "results": rows}).name)


if __name__ == "__main__":
    main()
