"""A server as a process of its own, with a policy whose actions are known in closed form.

    python serve_factory.py POLICY.json '{"batch_wait_ms": 2}'

actions[b, i, a] = gain * observations[b, -1, 0] + noise[b, 0, 0, i, a], after `delay` seconds a batch; without noise for
`draws` 0. With `past_steps` there is `told` of it in addition. An observation that
begins with `NAN` gets NaN, a batch with one that begins with `CRASH` raises.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

from ractd_runtime.past import Past

NAN, CRASH = 666.0, 667.0
OBSERVATION, HORIZON, ACTION = 3, 4, 2


@dataclass
class LinearPolicy:
    """See above; fulfils `ractd.serve.served.ServedPolicy`."""

    gain: float = 1.0
    delay: float = 0.0
    observation_dim: int = OBSERVATION
    broken: bool = False
    chunk: int = HORIZON
    draws: int = 1
    past_steps: int = 0

    def __post_init__(self) -> None:
        from ractd.serve.served import served_contract

        self.observation_shape: tuple[int, int] = (1, self.observation_dim)
        self.action_shape = (self.chunk, ACTION)
        self.noise_shape: tuple[int, ...] = (self.draws, 1, self.chunk, ACTION)
        self.identity = f"gain {self.gain:g}"
        self.contract = served_contract(self, [-1e9] * ACTION, [1e9] * ACTION)

    def check(self, observation: np.ndarray) -> str | None:
        return "far out" if observation[0, 1] > 1e6 else None

    def sample(self, observations: np.ndarray, noise: np.ndarray, past: Past | None) -> np.ndarray:
        time.sleep(self.delay)
        first = observations[:, -1, 0]
        if self.broken or (first == CRASH).any():
            raise FloatingPointError("as asked")
        first = np.where(first == NAN, np.nan, first)
        actions = np.float32(self.gain) * first[:, None, None] + noise.sum(axis=(1, 2))
        if past is not None:
            actions = actions + [
                told(*row) for row in zip(past.actions, past.rewards, past.steps, past.returns, strict=True)
            ]
        rounded: np.ndarray = actions.astype(np.float32)
        return rounded


def told(actions: np.ndarray, rewards: np.ndarray, steps: int, returns: float) -> np.ndarray:
    """What the last K actions [K, A] and rewards [K], the steps and the return of an episode add to each action, [1, A]."""
    told_of: np.ndarray = np.arange(len(actions)) @ actions + 10 * rewards.sum() + 100 * steps + 1000 * returns
    return told_of[None]


def noise(seed: int | list[int], calls: int = 1) -> list[np.ndarray]:
    """The draws of a client's first calls, by the documented rule."""
    stream = np.random.default_rng(seed)
    return [stream.standard_normal((HORIZON, ACTION), np.float32) for _ in range(calls)]


@dataclass
class Running:
    """A server process and its log."""

    process: subprocess.Popen[bytes]
    log: Path
    policy: Path
    port: int = 0

    def events(self) -> list[dict[str, Any]]:
        """Every line of the log so far, each of which has to be JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, event: str, number: int = 1, seconds: float = 60) -> dict[str, Any]:
        """Return the n-th such line of the log."""
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            found = [line for line in self.events() if line["event"] == event]
            if len(found) >= number:
                return found[number - 1]
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"no {event!r} in {self.log.read_text()}")

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and body of a page."""
        try:
            with urlopen(Request(f"http://127.0.0.1:{self.port}{path}", headers=headers), timeout=20) as response:
                return response.status, response.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """One value of /metrics."""
        lines = self.get("/metrics")[1].splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[-1])

    def write(self, **policy: Any) -> None:
        """Replace the policy's file."""
        self.policy.write_text(json.dumps(policy))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Ask it to stop, and return its exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.process.wait(30)


def start(directory: Path, policy: dict[str, Any] | None = None, **settings: Any) -> Running:
    """Start a server and wait until it listens."""
    running = launch(directory, policy, **settings)
    running.port = running.wait_for("listening")["port"]
    return running


def launch(directory: Path, policy: dict[str, Any] | None = None, **settings: Any) -> Running:
    """Start a server."""
    directory.mkdir(exist_ok=True)
    number = len(list(directory.glob("*.log")))
    file, log = directory / "policy.json", directory / f"{number}.log"
    file.write_text(json.dumps(policy or {}))
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, __file__, str(file), json.dumps({"port": 0, **settings})],
            stderr=stream,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    return Running(process, log, file)


def main() -> None:
    from ractd.errors import RactdError
    from ractd.serve.logs import json_logger
    from ractd.serve.server import run
    from ractd.serve.settings import ServerSettings

    def load() -> LinearPolicy:
        try:
            return LinearPolicy(**json.loads(Path(sys.argv[1]).read_text()))
        except ValueError as error:
            raise RactdError(f"{sys.argv[1]}: {error}") from None

    options = json.loads(sys.argv[2])
    key, tls = options.pop("api_key", None), options.pop("tls", None)
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
    run(load, ServerSettings(**options), json_logger(), key.encode() if key else None, context)


if __name__ == "__main__":
    main()
