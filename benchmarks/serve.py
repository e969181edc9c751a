"""Throughput and latency of `ractd serve` on loopback, for clients that ask again as soon as they are answered.

    python benchmarks/serve.py [--seconds 60] [--clients 1 8 32 64] [--policy runs/a | --exported DIR]

Server and clients are two processes of this machine and share its cores. Latencies are what a client sees: encoding,
two trips over loopback, queue, policy, decoding. Without `--policy` the network has the weights that it begins training
with: what an answer costs does not depend on them.
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
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from common import print_table, write_result
from websockets.asyncio.client import connect

from ractd.serve.wire import pack, unpack

GOAL_MS, GOAL_CLIENTS = 5.0, 32
"""p99 in milliseconds at so many clients of the MLP policy."""
WARM_UP = 20
"""Requests of each client that are not counted."""


def untrained_policy(directory: Path) -> Path:
    """Save the cpu preset's student at Hopper's sizes."""
    from inference import untrained

    from ractd.config import PRESETS

    return untrained(PRESETS["cpu"], True).save(directory / "policy")


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


async def client(port: int, stop: float, all_ready: asyncio.Barrier, times: list[float], errors: list[str]) -> None:
    """Ask in closed loop until `stop` seconds after all clients are warm."""
    try:
        async with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None) as connection:
            metadata = unpack(bytes(await connection.recv()))  # type: ignore[arg-type]
            message = pack({"observation": np.zeros(metadata["observation"]["shape"], np.float32)})
            for _ in range(WARM_UP):
                await connection.send(message)
                await connection.recv()
            await all_ready.wait()
            end = time.perf_counter() + stop
            while (begin := time.perf_counter()) < end:
                await connection.send(message)
                answer = await connection.recv()
                if isinstance(answer, bytes):
                    unpack(answer)
                    times.append(time.perf_counter() - begin)
                else:
                    errors.append(answer)
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
        await all_ready.abort()


async def load(port: int, clients: int, seconds: float) -> tuple[list[float], list[str]]:
    """Run so many clients, and return every latency in seconds and every error."""
    times: list[float] = []
    errors: list[str] = []
    ready = asyncio.Barrier(clients)
    await asyncio.gather(*(client(port, seconds, ready, times, errors) for _ in range(clients)))
    return times, errors


def resident_mb(port: int) -> float:
    """The server's memory."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        text = page.read().decode()
    return float(text.split("\nprocess_resident_memory_bytes ")[1].split()[0]) / 1e6


def measure(port: int, clients: int, seconds: float) -> dict[str, Any]:
    """One row of the table."""
    before = resident_mb(port)
    times, errors = asyncio.run(load(port, clients, seconds))
    p50, p99 = np.percentile(1e3 * np.asarray(times), [50, 99]) if times else (float("inf"), float("inf"))
    return {
        "clients": clients,
        "answers_per_second": len(times) / seconds,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": 1e3 * max(times, default=float("inf")),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        "memory_mb": {"before": before, "after": resident_mb(port)},
    }


def main() -> None:
    """Measure, print, write `benchmarks/results/serve.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--policy", type=Path, help="a run, served with PyTorch")
    parser.add_argument("--exported", type=Path, help="an exported policy, served with its runtime")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each number of clients")
    parser.add_argument("--batch-wait-ms", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true", help="see that it works; nothing is written")
    arguments = parser.parse_args()
    seconds = 0.5 if arguments.quick else arguments.seconds
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        policy = arguments.exported or arguments.policy or untrained_policy(directory)
        server, port = start(policy, arguments.exported is None, arguments.batch_wait_ms, directory / "log")
        try:
            rows = [measure(port, clients, seconds) for clients in arguments.clients]
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    columns = ["clients", "answers/s", "p50 ms", "p99 ms", "max ms", "errors", "memory MB"]
    table = [
        [
            str(row["clients"]),
            f"{row['answers_per_second']:.0f}",
            *(f"{row[name]:.2f}" for name in ("p50_ms", "p99_ms", "max_ms")),
            str(row["errors"]),
            f"{row['memory_mb']['before']:.0f} -> {row['memory_mb']['after']:.0f}",
        ]
        for row in rows
    ]
    engine = "exported" if arguments.exported else "PyTorch"
    print_table(f"{engine} policy over loopback; goal: p99 {GOAL_MS:g} ms at {GOAL_CLIENTS} clients", columns, table)
    if not arguments.quick:
        settings = {"seconds": seconds, "engine": engine, "batch_wait_ms": arguments.batch_wait_ms}
        settings["trained"] = bool(arguments.policy or arguments.exported)
        goal = {"p99_ms": GOAL_MS, "clients": GOAL_CLIENTS}
        print(write_result("serve", {**settings, "goal": goal, "results": rows}).name)


if __name__ == "__main__":
    main()
