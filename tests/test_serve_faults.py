"""What goes wrong around a policy server: dead clients, garbage, floods, broken policies, restarts. It answers or says why."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from serve_factory import Running, launch, noise, start

from ractd.errors import RactdError
from ractd.serve.http import allowed
from ractd.serve.served import checked, served_contract

pytest.importorskip("openpi_client")
from openpi_client.msgpack_numpy import packb, unpackb
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.asyncio.client import connect as wait_to_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as plain

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %b\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n" % KEY
)


def connect(server: Running) -> WebsocketClientPolicy:
    return WebsocketClientPolicy("127.0.0.1", server.port)


def raw(server: Running, **options: Any) -> ClientConnection:
    """A WebSocket past the metadata."""
    connection: ClientConnection = plain(f"ws://127.0.0.1:{server.port}", compression=None, max_size=None, **options)
    connection.recv(timeout=20)
    return connection


def opened(server: Running) -> socket.socket:
    """A socket past the handshake, for what no client library would send."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    sock.sendall(HANDSHAKE)
    assert b"101 Switching" in sock.recv(65536)
    return sock


def observation(x: float) -> dict[str, np.ndarray]:
    return {"observation": np.array([x, 0, 0], np.float32)}


def frame(payload: bytes) -> bytes:
    """A masked binary frame."""
    return b"\x82" + bytes([0x80 | len(payload)]) + bytes(4) + payload


def serves(server: Running) -> None:
    """A fresh client gets its actions."""
    client = connect(server)
    np.testing.assert_array_equal(client.infer({**observation(3), "seed": 1})["actions"], 3 + noise(1)[0])
    client._ws.close()


def request() -> bytes:
    packed: bytes = packb(observation(1))
    return packed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start(tmp_path_factory.mktemp("server"), {"delay": 0.02}, max_message_bytes=4096)
    yield running
    serves(running)
    assert running.end() == 0
    assert not [line for line in running.events() if "traceback" in line]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Few connections, little patience."""
    running = start(tmp_path_factory.mktemp("strict"), max_connections=3, idle_seconds=1, handshake_seconds=1)
    yield running
    serves(running)
    assert running.end() == 0
    assert not [line for line in running.events() if "traceback" in line]


def test_clients_killed_in_a_request_leave_nothing_behind(server: Running) -> None:
    before = server.metric("ractd_clients")
    for _ in range(10):
        sock = opened(server)
        sock.sendall(frame(request()))
        # Linger of zero: a reset, as when the client's machine dies.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        sock.close()
    serves(server)
    stop = time.monotonic() + 20
    while server.metric("ractd_clients") > before and time.monotonic() < stop:
        time.sleep(0.02)
    assert server.metric("ractd_clients") == before


def test_half_a_frame_holds_up_nobody_and_is_cut_when_idle(strict: Running) -> None:
    before = len([line for line in strict.events() if line["event"] == "client gone"])
    sock = opened(strict)
    sock.sendall(frame(request())[:40])
    serves(strict)
    gone = strict.wait_for("client gone", before + 2)
    sock.close()
    assert (gone["requests"], gone["code"]) == (0, 1006), "it never answered the close frame"


def test_an_idle_client_is_told_why_it_has_to_go(strict: Running) -> None:
    with raw(strict) as connection, pytest.raises(ConnectionClosed, match=r"1008.*no request for 1 s"):
        connection.recv(timeout=20)


def test_garbage_frames_close_with_a_reason(server: Running) -> None:
    sock = opened(server)
    sock.sendall(b"\xff" * 500)
    data = b""
    while piece := sock.recv(65536):
        data += piece
    assert b"\x03\xea" in data, "closed for a protocol error (1002)"
    sock.close()


def test_garbage_instead_of_a_handshake_is_dropped(strict: Running) -> None:
    for garbage in (
        b"\x16\x03\x01" + bytes(200),
        b"\xff" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500,
        b"\r\n\r\n",
    ):
        sock = socket.create_connection(("127.0.0.1", strict.port), timeout=20)
        try:
            sock.sendall(garbage)
            while piece := sock.recv(65536):
                assert not piece.startswith(b"HTTP/1.1 101")
        except ConnectionError:
            pass
        sock.close()


def test_every_garbage_message_is_answered_with_text(server: Running) -> None:
    rng = random.Random(0)
    good = request()
    with raw(server) as connection:
        for _ in range(100):
            data = bytearray(good)
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(40)] = rng.randrange(256)
            connection.send(
                rng.randbytes(rng.randint(0, 300)) if rng.random() < 0.5 else bytes(data[: rng.randint(1, len(data))])
            )
            answer = connection.recv(timeout=20)
            assert isinstance(answer, str) or b"actions" in msgpack.unpackb(answer, strict_map_key=False, raw=True)
        connection.send("text")
        assert "the message is text" in str(connection.recv(timeout=20))
        connection.send(good)
        assert isinstance(connection.recv(timeout=20), bytes)


def test_a_message_above_the_limit_is_refused_before_it_is_read(server: Running) -> None:
    before = server.metric("process_resident_memory_bytes")
    sock = opened(server)
    # The header of a frame of 100 MB, whose payload never has to come.
    sock.sendall(b"\x82\xff" + (100_000_000).to_bytes(8, "big") + bytes(4))
    data = b""
    while piece := sock.recv(65536):
        data += piece
    sock.close()
    assert b"\x03\xf1" in data, "closed as too big (1009)"
    with raw(server) as connection:
        connection.send(bytes(4097))
        with pytest.raises(ConnectionClosed, match="1009"):
            connection.recv(timeout=20)
    assert server.metric("process_resident_memory_bytes") - before < 50e6


def test_a_client_that_does_not_read_is_cut_off_and_holds_up_nobody(tmp_path: Path) -> None:
    # Answers of 800 kB, so that a few fill every buffer on the way.
    server = start(tmp_path, {"chunk": 100_000}, send_seconds=0.5)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(HANDSHAKE)
    try:
        for _ in range(100):
            sock.sendall(frame(request()))
    except ConnectionError:
        pass
    client = connect(server)
    assert client.infer(observation(1))["actions"].shape == (100_000, 2)
    client._ws.close()
    server.wait_for("client doesn't read, cut off")
    sock.close()
    assert server.end() == 0


def test_a_client_that_asks_ahead_waits_for_its_turn(tmp_path: Path) -> None:
    """One request a batch: 100 of a flood are on their way when another client asks, and it does not wait for them."""
    server = start(tmp_path, {"delay": 0.02}, max_batch=1)
    with raw(server) as flood, raw(server) as polite:
        for _ in range(100):
            flood.send(request())
        polite.send(request())
        assert isinstance(polite.recv(timeout=20), bytes)
        before = 0
        with contextlib.suppress(TimeoutError):
            while before < 100 and flood.recv(timeout=0):
                before += 1
        assert before < 50
        for _ in range(100 - before):
            assert isinstance(flood.recv(timeout=20), bytes)
    assert server.end() == 0


def test_connections_beyond_the_limit_are_turned_away(strict: Running) -> None:
    clients = [connect(strict) for _ in range(3)]
    with pytest.raises(InvalidStatus, match="503"):
        connect(strict)
    assert strict.get("/healthz")[0] == 200
    clients.pop()._ws.close()
    stop = time.monotonic() + 20
    while strict.metric("ractd_clients") > 2 and time.monotonic() < stop:
        time.sleep(0.01)
    clients.append(connect(strict))
    for client in clients:
        assert client.infer(observation(0))["policy"] == "gain 1"
        client._ws.close()


def test_a_flood_of_connections_leaves_the_clients_alone(strict: Running) -> None:
    client = connect(strict)
    flood = [socket.create_connection(("127.0.0.1", strict.port), timeout=20) for _ in range(500)]
    for _ in range(20):
        assert client.infer(observation(0))["policy"] == "gain 1"
    for sock in flood:
        sock.close()
    client._ws.close()


def test_500_clients_at_a_time_are_all_answered(server: Running) -> None:
    async def ask(number: int, all_there: asyncio.Barrier) -> float:
        async with wait_to_connect(f"ws://127.0.0.1:{server.port}", compression=None, open_timeout=60) as connection:
            await connection.recv()
            await all_there.wait()
            await connection.send(packb({**observation(number), "seed": number}))
            actions = unpackb(await connection.recv())["actions"]
        return float((actions - noise(number)[0] - number).max())

    async def all_of_them() -> list[float]:
        all_there = asyncio.Barrier(500)
        return await asyncio.gather(*(ask(number, all_there) for number in range(500)))

    assert max(map(abs, asyncio.run(all_of_them()))) < 1e-3


def test_sighup_swaps_the_policy_under_connected_clients(tmp_path: Path) -> None:
    server = start(tmp_path, {"gain": 1})
    client = connect(server)
    results: list[float] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            result = client.infer({**observation(100), "seed": 0})
            gain = float(np.median(result["actions"] - noise(0)[0])) / 100
            assert result["policy"] == f"gain {gain:.3g}"
            results.append(round(gain, 3))

    asking = threading.Thread(target=ask)
    asking.start()
    while not results and asking.is_alive():
        time.sleep(0.01)
    server.write(gain=2)
    server.signal(signal.SIGHUP)
    server.wait_for("policy swapped")
    count = len(results)
    for number, broken in enumerate(
        ["{", '{"broken": true, "gain": 3}', '{"observation_dim": 5}', '{"unknown": 1}'], 1
    ):
        server.policy.write_text(broken)
        server.signal(signal.SIGHUP)
        server.wait_for("policy not swapped, the old one stays", number)
    while len(results) < count + 20 and asking.is_alive():
        time.sleep(0.01)
    done.set()
    asking.join(20)
    assert set(results) == {1, 2}
    assert results == sorted(results), "never back to the old policy"
    errors = [line["error"] for line in server.events() if line["event"].startswith("policy not swapped")]
    assert "Expecting property name" in errors[0]
    assert "FloatingPointError: as asked" in errors[1]
    assert "observation shape is [1, 5], the connected clients' is [1, 3]" in errors[2]
    assert server.metric('ractd_reloads_total{outcome="swapped"}') == 1
    assert server.metric('ractd_reloads_total{outcome="refused"}') == 4
    assert connect(server).infer(observation(0))["policy"] == "gain 2"
    client._ws.close()
    assert server.end() == 0


def test_sigterm_answers_every_request_in_flight_and_turns_new_clients_away(tmp_path: Path) -> None:
    server = start(tmp_path, {"delay": 2}, max_batch=6, batch_wait_ms=0)
    clients = [connect(server) for _ in range(12)]
    quiet = raw(server)
    answers: list[np.ndarray] = []

    def ask(client: WebsocketClientPolicy) -> None:
        answers.append(client.infer({**observation(2), "seed": 4})["actions"])

    threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    stop = time.monotonic() + 20
    while server.metric("ractd_batch_size_count") < 1 and time.monotonic() < stop:
        time.sleep(0.02)
    server.signal(signal.SIGTERM)
    server.wait_for("draining")
    assert server.get("/readyz") == (503, "draining\n")
    assert server.get("/healthz")[0] == 200
    with pytest.raises(InvalidStatus, match="503"):
        connect(server)
    for thread in threads:
        thread.join(30)
    assert len(answers) == 12
    np.testing.assert_array_equal(answers, [2 + noise(4)[0]] * 12)
    with pytest.raises(ConnectionClosed, match=r"1001.*shutting down"):
        quiet.recv(timeout=20)
    assert server.process.wait(20) == 0
    assert server.events()[-1]["event"] == "stopped"


def test_a_second_sigterm_does_not_wait(tmp_path: Path) -> None:
    server = start(tmp_path, {"delay": 3}, drain_seconds=60)
    client = connect(server)
    heard: list[str] = []

    def ask() -> None:
        try:
            client.infer(observation(0))
        except (RuntimeError, ConnectionClosed) as error:
            heard.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.5)
    server.signal(signal.SIGTERM)
    server.wait_for("draining")
    server.signal(signal.SIGTERM)
    asking.join(20)
    assert server.process.wait(20) == 0
    assert len(heard) == 1
    assert "shutting down" in heard[0] or "1001" in heard[0]


def test_a_client_that_reconnects_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    first = start(tmp_path)
    client = connect(first)
    client.infer(observation(0))
    first.process.kill()
    first.process.wait(20)
    with pytest.raises(ConnectionClosed):
        client.infer(observation(0))
    second = start(tmp_path, port=first.port)
    again = connect(second)
    np.testing.assert_array_equal(again.infer({**observation(0), "seed": 9})["actions"], noise(9)[0])
    again._ws.close()
    assert second.end() == 0


def test_a_host_that_is_no_name_is_named(tmp_path: Path) -> None:
    server = launch(tmp_path, host="a..b")
    assert server.process.wait(60) == 1
    assert "RactdError: a..b:0 can't be listened on" in server.log.read_text()


def test_a_taken_port_is_named(server: Running, tmp_path: Path) -> None:
    second = launch(tmp_path, port=server.port)
    assert second.process.wait(60) == 1
    assert f"RactdError: 127.0.0.1:{server.port} can't be listened on" in second.log.read_text()


@pytest.mark.parametrize(
    ("headers", "in_"),
    [
        (["Api-Key secret"], True),
        ([], False),
        (["Api-Key secret", "Api-Key secret"], False),
        (["Api-Key secret "], False),
        (["api-key secret"], False),
        (["Api-Key \udcff"], False),
        (["Api-Key "], False),
    ],
)
def test_only_the_whole_key_opens(headers: list[str], in_: bool) -> None:
    assert allowed(headers, b"secret") is in_
    assert allowed(headers, None)


def test_a_policy_that_gives_nan_or_other_shapes_is_not_served() -> None:
    class Bad:
        observation_shape, action_shape, identity, past_steps = (1, 2), (3, 1), "bad", 0
        noise_shape: tuple[int, ...] = (1, 1, 3, 1)
        contract: dict[str, Any]

        def __init__(self, shape: tuple[int, ...], value: float) -> None:
            self.shape, self.value = shape, value
            self.contract = served_contract(self, [0.0], [1.0])

        def check(self, observation: np.ndarray) -> None: ...

        def sample(self, observations: np.ndarray, noise: np.ndarray, past: object) -> np.ndarray:
            return np.full((len(observations), *self.shape), self.value, np.float32)

    assert checked(Bad((3, 1), 0.0), None, 4)
    for shape, value in (((3, 1), np.nan), ((3, 2), 0.0)):
        with pytest.raises(RactdError, match="no finite actions for a batch of 1"):
            checked(Bad(shape, value), None, 4)
