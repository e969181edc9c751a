"""The policy server with openpi-client's own classes as clients: actions, noise, batches, pages, keys, TLS, the torch policy."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Answer
from serve_factory import ACTION, CRASH, HORIZON, NAN, OBSERVATION, LinearPolicy, Running, noise, start, told

from ractd.errors import RactdError
from ractd.serve.batching import QUICK, Batcher
from ractd.serve.metrics import ServerMetrics
from ractd.serve.settings import ServerSettings, exposure_warning, read_api_key, tls_context
from ractd.settings import check
from ractd_runtime.past import Past

pytest.importorskip("openpi_client")
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def connect(server: Running, **options: str) -> WebsocketClientPolicy:
    return WebsocketClientPolicy("127.0.0.1", server.port, **options)


def observation(x: float) -> dict[str, np.ndarray]:
    return {"observation": np.array([x, 0, 0], np.float32)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start(tmp_path_factory.mktemp("server"))
    yield running
    assert running.end() == 0


def test_metadata_come_on_connect_and_are_the_contract(server: Running) -> None:
    client = connect(server)
    metadata = client.get_server_metadata()
    client._ws.close()
    assert isinstance(metadata.pop("client"), int)
    assert metadata == json.loads(server.get("/contract")[1])
    assert metadata["observation"] == {"shape": [3], "dtype": "float32"}
    assert metadata["actions"]["shape"] == [HORIZON, ACTION]


def test_each_client_gets_its_own_noise_as_documented(server: Running) -> None:
    clients = [connect(server) for _ in range(3)]
    for client in clients:
        own = noise([0, client.get_server_metadata()["client"]], 3)
        for call in range(3):
            result = client.infer(observation(call))
            np.testing.assert_array_equal(result["actions"], call + own[call])
            assert result["actions"].dtype == np.float32
            assert result["policy"] == "gain 1"
    for client in clients:
        client._ws.close()


def test_a_seed_restarts_a_clients_noise(server: Running) -> None:
    client = connect(server)
    client.infer(observation(0))
    first = [client.infer({**observation(0), **seed})["actions"] for seed in ({"seed": 7}, {})]
    again = [client.infer({**observation(0), **seed})["actions"] for seed in ({"seed": np.int64(7)}, {})]
    client._ws.close()
    np.testing.assert_array_equal(first, noise(7, 2))
    np.testing.assert_array_equal(again, first)


def test_the_broker_executes_a_sequence_before_it_asks_again(server: Running) -> None:
    client = connect(server)
    broker = ActionChunkBroker(client, action_horizon=2)
    client.infer({**observation(0), "seed": 3})
    drawn = noise(3, 3)
    got = [broker.infer(observation(10 * step))["actions"] for step in range(4)]
    client._ws.close()
    np.testing.assert_array_equal(got, [drawn[1][0], drawn[1][1], 20 + drawn[2][0], 20 + drawn[2][1]])


@pytest.mark.parametrize("name", ["observation", "observation/state", "state"])
@pytest.mark.parametrize("dtype", ["f2", "f8", "i8", ">f4"])
def test_other_names_types_and_company_of_an_observation_are_understood(server: Running, name: str, dtype: str) -> None:
    client = connect(server)
    request = {name: np.array([2, 0, 0], dtype), "prompt": "go", "seed": 1, "image": np.zeros((8, 8, 3), np.uint8)}
    np.testing.assert_array_equal(client.infer(request)["actions"], 2 + noise(1)[0])
    client._ws.close()


def test_a_warning_of_the_policy_comes_with_the_actions(server: Running) -> None:
    client = connect(server)
    result = client.infer({"observation": np.array([1, 1e7, 0])})
    assert "warning" not in client.infer(observation(0))
    client._ws.close()
    assert result["warning"] == "far out"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"observation": np.zeros(4)}, r"observation has shape \[4\], expected \[3\]"),
        ({"observation": np.zeros((2, 3))}, r"observation has shape \[2, 3\], expected \[3\]"),
        ({"observation": [0, 0, 0]}, "observation is list, expected a numeric array"),
        ({"observation": np.array([0, np.nan, 0])}, "holds NaN or infinite"),
        ({"observation": np.array([0, 1e300, 0])}, "holds NaN or infinite"),
        ({"obs": np.zeros(3)}, "the request holds 'obs', expected one of 'observation'"),
        ({"state": np.zeros(3), "observation": np.zeros(3)}, "expected one of"),
        ({}, "the request holds nothing"),
        ({**observation(0), "seed": -1}, "seed is not a whole number"),
        ({**observation(0), "seed": True}, "seed is not a whole number"),
        ({**observation(0), "seed": 2**63}, "seed is not a whole number"),
        (observation(NAN), "the policy gave no finite actions"),
        (observation(CRASH), "the policy gave no finite actions"),
    ],
)
def test_a_bad_request_is_answered_with_its_reason_and_the_next_one_is_served(
    server: Running, request_: dict[str, object], reason: str
) -> None:
    client = connect(server)
    with pytest.raises(RuntimeError, match=reason):
        client.infer(request_)
    np.testing.assert_array_equal(client.infer({**observation(1), "seed": 2})["actions"], 1 + noise(2)[0])
    client._ws.close()


K = 3


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose policy needs to know the last K steps and draws nothing."""
    running = start(tmp_path_factory.mktemp("knowing"), {"past_steps": K, "draws": 0}, batch_wait_ms=200, max_batch=8)
    yield running
    assert running.end() == 0


def past(t: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The past of an episode after t steps, in eighths, so that sums are exact."""
    rng = np.random.default_rng(seed)
    return {"past_actions": rng.integers(-8, 9, (t, ACTION)) / 8, "past_rewards": rng.integers(-8, 9, t) / 8}


def closed_form(x: float, past_actions: np.ndarray, past_rewards: np.ndarray) -> np.ndarray:
    t = len(past_actions)
    actions, rewards = np.zeros((K, ACTION)), np.zeros(K)
    actions[K - min(t, K) :], rewards[K - min(t, K) :] = past_actions[-K:], past_rewards[-K:]
    return np.broadcast_to(x + told(actions, rewards, t, past_rewards.sum()), (HORIZON, ACTION)).astype(np.float32)


@pytest.mark.parametrize("t", [0, 1, 2, 3, 4, 300])
def test_a_policy_is_told_the_past_that_the_client_sends(knowing: Running, t: int) -> None:
    client = connect(knowing)
    metadata = client.get_server_metadata()
    assert metadata["past_actions"] == {"shape": ["t", ACTION]}
    assert metadata["past_rewards"] == {"shape": ["t"]}
    for _ in range(2):
        actions = client.infer({**observation(5), **past(t)})["actions"]
        np.testing.assert_array_equal(actions, closed_form(5, **past(t)))
    client._ws.close()


def test_clients_of_one_batch_may_be_at_different_steps(knowing: Running) -> None:
    clients = [connect(knowing) for _ in range(8)]
    answers: dict[int, dict[str, Any]] = {}
    pasts = [past(t, seed=t) for t in range(8)]

    def infer(i: int) -> None:
        answers[i] = clients[i].infer({**observation(i), **pasts[i]})

    threads = [threading.Thread(target=infer, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for i in range(8):
        np.testing.assert_array_equal(answers[i]["actions"], closed_form(i, **pasts[i]))
        clients[i]._ws.close()
    assert max(answer["server_timing"]["batch"] for answer in answers.values()) > 1


@pytest.mark.parametrize(
    ("told_", "reason"),
    [
        ({}, r"the policy needs past_actions, the actions .* so far, of shape \['t', 2\], and there is none"),
        ({"past_actions": np.zeros((2, 2))}, "the policy needs past_rewards, the rewards of the episode so far"),
        ({"past_rewards": np.zeros(2)}, "the policy needs past_actions"),
        (past(2) | {"past_actions": np.zeros((2, 3))}, r"past_actions has shape \[2, 3\], expected \['t', 2\]"),
        (past(2) | {"past_actions": np.zeros(2)}, r"past_actions has shape \[2\]"),
        (past(2) | {"past_rewards": np.zeros(3)}, r"past_rewards has shape \[3\], expected \[2\]"),
        (past(2) | {"past_rewards": [0.0, 0.0]}, "past_rewards is list, expected a numeric array"),
        (past(2) | {"past_rewards": np.array([0, np.nan])}, "past_rewards holds NaN or infinite values"),
        (past(2) | {"past_actions": np.full((2, 2), np.inf)}, "past_actions holds NaN or infinite values"),
        (past(2) | {"past_actions": "none"}, "past_actions is str, expected a numeric array"),
    ],
)
def test_a_missing_or_wrong_past_is_refused_by_name_and_the_next_request_is_served(
    knowing: Running, told_: dict[str, object], reason: str
) -> None:
    client = connect(knowing)
    with pytest.raises(RuntimeError, match=reason):
        client.infer({**observation(0), **told_})
    np.testing.assert_array_equal(client.infer({**observation(1), **past(2)})["actions"], closed_form(1, **past(2)))
    client._ws.close()


def test_a_policy_that_needs_no_past_ignores_it(server: Running) -> None:
    client = connect(server)
    assert "past_actions" not in client.get_server_metadata()
    request = {**observation(1), "seed": 2, "past_actions": "anything", "past_rewards": np.array([np.nan])}
    np.testing.assert_array_equal(client.infer(request)["actions"], 1 + noise(2)[0])
    client._ws.close()


def test_clients_that_send_no_past_get_no_policy_that_needs_it(tmp_path: Path) -> None:
    server = start(tmp_path)
    server.write(past_steps=K)
    server.signal(signal.SIGHUP)
    refused = server.wait_for("policy not swapped, the old one stays")
    assert (
        "the new policy's number of past steps is 3, the connected clients' is 0; start another server"
        in refused["error"]
    )
    assert server.end() == 0


def ask(client: WebsocketClientPolicy, x: float, results: list[Any]) -> None:
    try:
        results.append(client.infer(observation(x)))
    except RuntimeError as error:
        results.append(str(error))


def test_concurrent_clients_share_batches_and_one_bad_request_spoils_none(tmp_path: Path) -> None:
    server = start(tmp_path, {"delay": 0.05}, batch_wait_ms=200, max_batch=8)
    clients = [connect(server) for _ in range(10)]
    results: list[list[Any]] = [[] for _ in clients]
    inputs = [CRASH, NAN, *range(8)]
    threads = [threading.Thread(target=ask, args=(c, x, r)) for c, x, r in zip(clients, inputs, results, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all("no finite actions" in str(results[i][0]) for i in (0, 1))
    for i in range(2, 10):
        result = results[i][0]
        number = clients[i].get_server_metadata()["client"]
        np.testing.assert_array_equal(result["actions"], np.float32(inputs[i]) + noise([0, number])[0])
    sizes = [r[0]["server_timing"]["batch"] for r in results[2:]]
    assert 1 < max(sizes) <= 8
    assert server.metric('ractd_requests_total{outcome="answered"}') == 8
    assert server.metric('ractd_requests_total{outcome="failed"}') == 2
    assert server.metric("ractd_batch_size_sum") == 10
    assert server.metric("ractd_batch_size_count") < 10
    assert server.metric("ractd_clients") == 10
    for client in clients:
        client._ws.close()
    assert server.end() == 0


def test_a_lone_client_does_not_wait_for_others(tmp_path: Path) -> None:
    server = start(tmp_path, batch_wait_ms=10000)
    client = connect(server)
    queued = [client.infer(observation(0))["server_timing"]["queue_ms"] for _ in range(3)]
    client._ws.close()
    assert max(queued) < 10_000, "the batch began before its wait was over"
    assert server.end() == 0


class Noting(LinearPolicy):
    """Notes in which thread each batch is sampled."""

    def sample(self, observations: np.ndarray, noise: np.ndarray, past: Past | None) -> np.ndarray:
        self.threads = [*getattr(self, "threads", []), threading.current_thread()]
        return super().sample(observations, noise, past)


def test_a_quick_policy_is_sampled_in_the_event_loop_and_a_slow_or_new_one_elsewhere() -> None:
    """Quick or slow is what its last batch was, so that no client's connection waits for a slow one."""
    quick, slow = Noting(), Noting(delay=2 * QUICK)

    async def ask(batcher: Batcher) -> None:
        await batcher.answer(np.zeros((1, OBSERVATION), np.float32), None, np.random.default_rng(0))

    async def work() -> None:
        metrics = ServerMetrics(logging.getLogger(__name__))
        batcher = Batcher(slow, metrics, wait=0.0, largest=4, clients=lambda: 1)
        running = asyncio.create_task(batcher.run())
        for policy, times in ((slow, 3), (quick, 20), (slow, 3)):
            batcher.policy = policy
            for _ in range(times):
                await ask(batcher)
        running.cancel()
        batcher.close()

    asyncio.run(work())
    assert len(slow.threads) == 6
    assert all(thread is not threading.current_thread() for thread in slow.threads)
    first, *others = quick.threads
    assert first is not threading.current_thread()
    assert any(thread is threading.current_thread() for thread in others)


def test_pages(server: Running) -> None:
    assert server.get("/healthz") == (200, "OK\n")
    assert server.get("/readyz") == (200, "ready\n")
    status, text = server.get("/metrics")
    assert status == 200
    assert "# TYPE ractd_request_seconds histogram" in text
    assert "process_resident_memory_bytes" in text
    assert 'ractd_policy_info{identity="gain 1"} 1.0' in text
    assert server.get("/other")[0] == 426


@pytest.mark.parametrize("path", ["/", "/metrics", "/contract"])
@pytest.mark.parametrize("header", [None, "", "Api-Key wrong", "Api-Key secre", "Bearer secret", "Api-Key sécret"])
def test_without_the_key_nobody_comes_in(keyed: Running, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    assert keyed.get(path, **headers) == (401, "expected the header 'Authorization: Api-Key KEY'\n")


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start(tmp_path_factory.mktemp("keyed"), api_key="secret", host="0.0.0.0")
    yield running
    assert running.end() == 0


def test_with_the_key_everything_is_open_and_without_tls_the_log_warns(keyed: Running) -> None:
    with pytest.raises(Exception, match="401"):
        connect(keyed)
    with pytest.raises(Exception, match="401"):
        connect(keyed, api_key="other")
    client = connect(keyed, api_key="secret")
    assert client.infer({**observation(1), "seed": 2})["actions"].shape == (HORIZON, ACTION)
    client._ws.close()
    assert keyed.get("/contract", Authorization="Api-Key secret")[0] == 200
    assert [keyed.get(path)[0] for path in ("/healthz", "/readyz")] == [200, 200]
    assert any("in the clear" in line["event"] for line in keyed.events() if line["level"] == "warning")


def test_a_page_in_a_browser_can_not_connect(server: Running) -> None:
    from websockets.sync.client import connect as plain
    from websockets.typing import Origin

    with pytest.raises(Exception, match="403"):
        plain(f"ws://127.0.0.1:{server.port}", origin=Origin("http://evil.example"), compression=None)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    key, cert = directory / "key.pem", directory / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return cert, key


def test_openpi_client_connects_over_tls(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(tmp_path, tls=[str(path) for path in certificate])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    client = WebsocketClientPolicy("wss://127.0.0.1", server.port)
    np.testing.assert_array_equal(client.infer({**observation(1), "seed": 2})["actions"], 1 + noise(2)[0])
    client._ws.close()
    assert server.end() == 0


def test_bad_keys_and_certificates_are_named(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    assert tls_context(None, None) is None
    assert tls_context(cert, key) is not None
    with pytest.raises(RactdError, match="belong together"):
        tls_context(cert, None)
    with pytest.raises(RactdError, match="can't be used"):
        tls_context(cert, cert)
    with pytest.raises(RactdError, match="can't be used"):
        tls_context(tmp_path / "none", key)
    (tmp_path / "key").write_bytes(b" secret\n")
    assert read_api_key(tmp_path / "key") == b"secret"
    for content in (b"\n", "schlüssel".encode(), b"two words"):
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(RactdError, match="expected one key"):
            read_api_key(tmp_path / "key")
    with pytest.raises(RactdError, match="can't be read"):
        read_api_key(tmp_path / "none")


def test_only_an_open_door_is_warned_of(certificate: tuple[Path, Path]) -> None:
    tls = tls_context(*certificate)
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        assert exposure_warning(host, None, None) is None
    for host in ("0.0.0.0", "::", "robot.example"):
        assert "--api-key-file" in str(exposure_warning(host, None, None))
        assert "--tls-cert" in str(exposure_warning(host, b"k", None))
        assert exposure_warning(host, b"k", tls) is None


@pytest.mark.parametrize(
    ("name", "value"), [("port", 70_000), ("max_batch", 0), ("batch_wait_ms", -1), ("idle_seconds", 0)]
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(RactdError, match=f"--{name.replace('_', '-')} is {value}, expected a"):
        check(ServerSettings(**{name: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("deployed", "--device", "cuda"), "--device is for --torch"),
        (("--torch", "deployed", "--device", "abacus"), "--device abacus can't be used"),
        (("deployed", "--tls-cert", "tls.crt"), "belong together"),
        (("deployed", "--api-key-file", "key"), "--api-key-file key: can't be read"),
        (("deployed", "--max-batch", "0"), "--max-batch is 0, expected a whole number from 1 to 4,096"),
        (("deployed",), "policy.json: not found"),
        (("--torch", "deployed"), "deployed: no policy here"),
    ],
)
def test_what_can_not_be_served_is_said_in_a_sentence(
    words: tuple[str, ...], said: str, cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = cli("serve", *words)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1


def serving(directory: Path, *words: str | Path) -> Running:
    """`ractd serve` as a process, once it listens."""
    log = directory / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "ractd.cli", "serve", *map(str, words), "--port", "0"],
            stderr=stream,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    server = Running(process, log, directory)
    server.port = server.wait_for("listening")["port"]
    return server


def test_a_torch_policy_is_served_by_the_command_line_with_its_own_actions(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from export_factory import make_policy

    policy = make_policy(history=2, candidates=3)
    server = serving(tmp_path, "--torch", policy.save(tmp_path / "policy"), "--seed", "5")
    client = connect(server)
    sequence = policy.sequence
    raw = np.random.default_rng(1).standard_normal((sequence.history, sequence.observation_dim), np.float32)
    got = client.infer({"observation": raw})["actions"]
    stream = np.random.default_rng([5, client.get_server_metadata()["client"]])
    drawn = stream.standard_normal((1, 3, sequence.horizon, sequence.action_dim), np.float32)
    expected = policy.sample(torch.from_numpy(raw)[None], torch.from_numpy(drawn))[0]
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)
    assert server.end() == 0


def test_an_exported_policy_is_served_without_torch_and_swapped_for_whole_ones_only(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from export_factory import make_policy, observations

    from ractd.export import export_policy
    from ractd.export.graph import draws_first
    from ractd_runtime import Policy

    policy, out = make_policy(candidates=3, steps=2), tmp_path / "out"
    export_policy(policy.save(tmp_path / "policy"), out)
    server = serving(tmp_path, out)
    libraries = Path(f"/proc/{server.process.pid}/maps")
    assert not libraries.exists() or "torch" not in libraries.read_text()
    client = connect(server)
    assert client.get_server_metadata()["policy"]["format"] == "ractd-deployed-policy"
    seen = observations(policy, 1)[0, 0].numpy()

    def served() -> np.ndarray:
        actions: np.ndarray = client.infer({"observation": seen, "seed": 7})["actions"]
        return actions

    first = served()
    np.testing.assert_array_equal(first, Policy.load(out).reset(7).act_chunk(seen), "the runtime's, to the bit")
    drawn = torch.from_numpy(np.random.default_rng(7).standard_normal((1, 2, 3, 4, ACTION), np.float32))
    expected = policy.sample(torch.from_numpy(seen)[None, None], draws_first(drawn))[0]
    np.testing.assert_allclose(first, expected.numpy(), rtol=0, atol=1e-5)
    assert "far outside" in client.infer({"observation": seen + 1e4})["warning"]

    whole = (out / "policy.onnx").read_bytes()
    for number, broken in enumerate((whole[:1000], b""), 1):
        (out / "policy.onnx").write_bytes(broken)
        server.signal(signal.SIGHUP)
        refused = server.wait_for("policy not swapped, the old one stays", number)
        assert "SHA-256" in refused["error"]
        np.testing.assert_array_equal(served(), first)
    other = policy.configured(candidates=1)
    export_policy(other.save(tmp_path / "other"), out)
    server.signal(signal.SIGHUP)
    server.wait_for("policy swapped")
    np.testing.assert_array_equal(served(), Policy.load(out).reset(7).act_chunk(seen))
    assert not np.array_equal(served(), first)
    client._ws.close()
    assert server.end() == 0


@pytest.mark.parametrize("kind", ["without noise", "with past"])
def test_exported_graphs_without_noise_and_with_a_past_are_served(tmp_path: Path, kind: str) -> None:
    """To the bit what the runtime gives, and a seed changes nothing."""
    pytest.importorskip("torch")
    from graph_factory import write_graph

    from ractd_runtime import Policy, RactdError

    out = write_graph(kind, tmp_path / "out")
    server, policy = serving(tmp_path, out), Policy.load(out)
    client, seen = connect(server), np.array([1, 2, 3], np.float32)
    now = past(7) if kind == "with past" else {}
    expected = policy.act_chunk(seen, **now)
    for seed in ({}, {"seed": 1}):
        np.testing.assert_array_equal(client.infer({"observation": seen, **now, **seed})["actions"], expected)
    if now:
        with pytest.raises(RactdError) as said:
            policy.act_chunk(seen)
        with pytest.raises(RuntimeError, match="the policy needs past_actions") as answered:
            client.infer({"observation": seen})
        assert str(said.value) in str(answered.value), "the same sentence"
    client._ws.close()
    assert server.end() == 0
