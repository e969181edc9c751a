"""Messages that nobody should send: each is answered, or its connection closed with a reason, and nothing else happens.

    python benchmarks/fuzz.py [--messages 100000]

So many messages made up by hypothesis are read by the decoder and sent to a running server, a tenth as many are sent as broken
frames, and so many are found for the decoder by atheris, which looks for those that reach new lines. What goes wrong ends the
command with the message that did it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from ractd.serve import wire
from ractd.serve.wire import BadMessage, pack, unpack

PATIENCE = 20.0
"""Seconds after which an answer counts as a hang."""
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
DTYPES = ["?", "i1", "i2", "<i4", "<i8", "u1", "<u2", ">u4", "<u8", "<f2", "<f4", ">f4", "<f8"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_subnormal=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
KEYS = st.text(max_size=8) | st.sampled_from([b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape"])
ARRAYS = st.fixed_dictionaries(
    {b"__ndarray__": st.just(True)},
    optional={
        b"data": st.binary(max_size=64) | SCALARS,
        b"dtype": st.sampled_from([*DTYPES, "|O", "|V4", "<c8", "f4,f4", "<U1", "S0", "", "f4" * 99]) | SCALARS,
        b"shape": st.lists(st.integers(-2, 2**64 - 1) | st.integers(0, 4), max_size=10) | SCALARS,
    },
)
NUMBERS = st.fixed_dictionaries(
    {b"__npgeneric__": SCALARS}, optional={b"data": SCALARS, b"dtype": st.sampled_from(DTYPES) | SCALARS}
)
REQUESTS: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {
        "observation": st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), max_size=12).map(
            lambda x: {
                b"__ndarray__": True,
                b"data": np.array(x, np.float32).tobytes(),
                b"dtype": "<f4",
                b"shape": [len(x)],
            }
        )
    },
    optional={"seed": SCALARS, "prompt": SCALARS},
)
TREES = st.recursive(
    SCALARS | ARRAYS | NUMBERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Random bytes, or a message whose bytes are kept, cut, or changed in places."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(msgpack.packb(draw(TREES | REQUESTS)))
    for _ in range(draw(st.integers(0, 3))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def survives(data: bytes) -> None:
    """Read a message: a dict of plain values and numeric arrays, or a refusal; anything else fails the test."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning would be a line in the server's log that is no JSON
            read = unpack(data)
    except BadMessage:
        return
    assert isinstance(read, dict)
    waiting: list[Any] = [read]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, np.ndarray | np.generic):
            assert value.dtype.kind in "biuf"
        else:
            assert value is None or isinstance(value, bool | int | float | str | bytes | msgpack.Timestamp)


def made_up(look: Callable[[bytes], None], count: int) -> int:
    """Show so many messages to `look`, which raises where something is wrong; return how many it saw."""
    seen = 0

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(messages())
    def each(data: bytes) -> None:
        nonlocal seen
        seen += 1
        look(data)

    each()
    return seen


class Clients:
    """Clients of a server that send what they are given, and count what became of it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.outcomes = Counter({"actions": 0, "refused": 0, "closed": 0})
        self.stack = ExitStack()
        """Closes the connections."""
        self._connection: ClientConnection | None = None

    def ask(self, data: bytes) -> None:
        """Send a message: the answer is actions or a sentence, or the connection is closed with a reason.

        Every tenth is asked with an observation that is right, or nothing but refusals would be seen.
        """
        if sum(self.outcomes.values()) % 10 == 9:
            data = self.right
        goodbye, answer = None, None
        try:
            connection = self._connection or self._connected()
            connection.send(data)
            answer = connection.recv(timeout=PATIENCE)
        except ConnectionClosed as closed:
            goodbye, self._connection = closed.rcvd, None
        if answer is None:
            assert goodbye is not None
            assert goodbye.reason
            self.outcomes["closed"] += 1
        elif isinstance(answer, bytes):
            assert np.isfinite(unpack(answer)["actions"]).all()
            self.outcomes["actions"] += 1
        else:
            assert 10 < len(answer) < 1000
            self.outcomes["refused"] += 1

    def stream(self, data: bytes) -> None:
        """Send bytes where a frame should be, and no more after them: the server ends the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as sock:
            sock.sendall(HANDSHAKE + data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        self.outcomes["closed"] += 1

    def _connected(self) -> ClientConnection:
        opening = connect(f"ws://127.0.0.1:{self.port}", compression=None, max_size=None, ping_interval=None)
        self._connection = connection = self.stack.enter_context(opening)
        shape = unpack(bytes(connection.recv()))["observation"]["shape"]  # type: ignore[arg-type]
        self.right = pack({"observation": np.zeros(shape, np.float32)})
        return connection


def guided(runs: int) -> dict[str, Any]:
    """Let atheris look for so many messages in a process of its own; return what it says of them."""
    with tempfile.TemporaryDirectory() as corpus:
        for i, value in enumerate((np.zeros(3, np.float32), np.float64(1), {"a": [1, None, "b"]})):
            (Path(corpus) / str(i)).write_bytes(pack({"observation": value, "seed": 3}))
        words = [sys.executable, __file__, "--guided", f"-runs={runs}", "-max_len=512", "-timeout=10", corpus]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = re.search(r"Done (\d+) runs in (\d+) second", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"atheris stopped:\n{done.stderr[-3000:]}")
    reached = re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)", done.stderr)[-1]
    return {"runs": int(found[1]), "seconds": int(found[2]), "branches": int(reached[0]), "corpus": int(reached[1])}


def _guided() -> None:
    import atheris

    atheris.instrument_func(unpack)
    for name in ("_array_of_map", "_dtype", "_no_extension", "_short"):
        setattr(wire, name, atheris.instrument_func(getattr(wire, name)))
    atheris.Setup([sys.argv[0], *sys.argv[2:]], survives)
    atheris.Fuzz()


def main() -> None:
    """Fuzz, print, write `benchmarks/results/fuzz.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=100_000)
    arguments = parser.parse_args()
    count: int = arguments.messages

    from common import write_result
    from inference import untrained
    from serve import exported, resident_mb, start

    from ractd.methods.ractd_settings import PRESETS

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    result: dict[str, Any] = {"messages": count}
    began = time.perf_counter()
    result["decoder, hypothesis"] = {"messages": made_up(survives, count)}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        server, port = start(exported(untrained(PRESETS["cpu"], True), directory), False, 0.0, directory / "log")
        try:
            before, clients = resident_mb(port), Clients(port)
            made_up(clients.ask, count)
            asked = dict(clients.outcomes)
            streams = made_up(clients.stream, count // 10)
            clients.stack.close()
            memory = {"before": before, "after": resident_mb(port)}
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(30)
        tracebacks = (directory / "log").read_text().count('"traceback"')
    if code or tracebacks:
        raise SystemExit(f"the server ended with code {code} and logged {tracebacks} tracebacks")
    result["server, hypothesis"] = {**asked, "streams": streams, "memory_mb": memory}
    result["decoder, atheris"] = guided(count)
    result["minutes"] = (time.perf_counter() - began) / 60
    for what, row in result.items():
        print(what, row)
    print(write_result("fuzz", result).name)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--guided"]:
        _guided()
    else:
        main()
