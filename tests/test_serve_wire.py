"""Messages: the same bytes as openpi-client's, and nothing that a stranger sends does more than be refused."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from serve_factory import start

from ractd.serve.wire import MAX_ITEMS, BadMessage, pack, unpack

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import fuzz
from fuzz import DTYPES, survives

theirs = pytest.importorskip("openpi_client.msgpack_numpy")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_arrays_are_read_as_openpi_client_writes_them(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    message = {"observation": array, "scalar": np.float32(0.5), "prompt": "fold it", "n": 3, "none": None}
    data = theirs.packb(message)
    assert pack(message) == data
    read = unpack(data)
    assert read["observation"].dtype == array.dtype
    np.testing.assert_array_equal(read["observation"], array)
    assert not read["observation"].flags.writeable
    assert (read["scalar"], type(read["scalar"])) == (0.5, np.float32)
    assert (read["prompt"], read["n"], read["none"]) == ("fold it", 3, None)
    np.testing.assert_array_equal(theirs.unpackb(pack(message))["observation"], array)


def array(**changes: Any) -> bytes:
    """A message with one array, something in it changed."""
    item = {b"__ndarray__": True, b"data": bytes(12), b"dtype": "<f4", b"shape": [3]}
    packed: bytes = msgpack.packb({"observation": item | {name.encode(): value for name, value in changes.items()}})
    return packed


def test_a_changed_nothing_is_an_array() -> None:
    assert unpack(array())["observation"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (array(dtype="|O"), "type is '|O'"),
        (array(dtype="O8"), "type is 'O8'"),
        (array(dtype="|V12"), "type is"),
        (array(dtype="f4,i4"), "type is 'f4,i4'"),
        (array(dtype=[["a", "<f4"]]), "type is"),
        (array(dtype="<c8"), "type is"),
        (array(dtype="<U3"), "type is"),
        (array(dtype="<M8[s]"), "type is"),
        (array(dtype="<f4\n"), "type is"),
        (array(shape=[4]), "came with 12 bytes"),
        (array(shape=[-3]), "shape of an array"),
        (array(shape=[True, 3]), "shape of an array"),
        (array(shape=[3.0]), "shape of an array"),
        (array(shape=3), "shape of an array"),
        (array(shape=[1] * 40 + [3]), "at most 8"),
        (array(shape=[2**62, 2**62, 0]), "came with 12 bytes"),
        (array(shape=[2**62, 2**62, 0], data=b""), "not msgpack as openpi-client"),
        (array(data="text"), "expected bytes"),
        (msgpack.packb({"x": {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}}), "no number of type"),
        (msgpack.packb({"x": {b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}}), "expected a number"),
        (msgpack.packb([1, 2]), "one list"),
        (msgpack.packb(3.5), "one float"),
        (msgpack.packb({1: 2}), "int is not allowed for map key"),
        (msgpack.packb({"x": msgpack.ExtType(5, b"abc")}), "extension"),
        (msgpack.packb({"x": list(range(MAX_ITEMS + 1))}), "exceeds max_array_len"),
        (b"\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
        (b"\xdf\xff\xff\xff\xff", "exceeds max_map_len"),
        (b"\xc6\xff\xff\xff\xff", ""),
        (b"\x91" * 100_000, ""),
        (b"\x81\xa1a" * 100_000, ""),
        (msgpack.packb({"x": 1}) + b"\x00", "extra data"),
        (msgpack.packb({"x": "ä"}).replace(b"\xc3", b"\xff"), "not msgpack as openpi-client"),
        (b"\xc1", ""),
        (b"", ""),
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadMessage) as refused:
        unpack(data)
    assert reason in str(refused.value)
    assert 20 < len(str(refused.value)) < 300


def test_a_number_too_large_for_its_type_is_infinite_without_a_word() -> None:
    data = msgpack.packb({"x": {b"__npgeneric__": True, b"data": 1e300, b"dtype": "<f4"}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert unpack(data)["x"] == np.inf


@pytest.mark.parametrize(
    "value", [object(), np.array([None]), np.zeros(2, "c8"), np.zeros(2, "i4,f4"), np.array("text")]
)
def test_only_numeric_arrays_are_sent(value: object) -> None:
    with pytest.raises(TypeError, match="can't be sent"):
        pack({"x": value})


@pytest.mark.parametrize("count", [150, pytest.param(100_000, marks=pytest.mark.slow)])
def test_no_message_does_more_than_be_refused(count: int) -> None:
    assert fuzz.made_up(survives, count) >= count


@pytest.mark.parametrize("count", [150, pytest.param(100_000, marks=pytest.mark.slow)])
def test_every_message_to_a_server_is_answered_or_its_connection_closed_with_a_reason(
    tmp_path: Path, count: int
) -> None:
    server = start(tmp_path, max_message_bytes=4096, idle_seconds=20)
    clients = fuzz.Clients(server.port)
    with clients.stack:
        fuzz.made_up(clients.ask, count)
    fuzz.made_up(clients.stream, count // 10)
    assert sum(clients.outcomes.values()) >= count
    assert min(clients.outcomes.values()) > 0, clients.outcomes
    assert server.end() == 0
    assert not [line for line in server.events() if "traceback" in line]


@pytest.mark.slow
def test_what_atheris_finds_for_the_decoder_does_no_more_than_be_refused() -> None:
    pytest.importorskip("atheris")
    assert fuzz.guided(100_000)["runs"] >= 100_000
