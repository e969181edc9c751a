"""One connected client: requests in, actions or a sentence out."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from ractd.errors import RactdError
from ractd.serve.batching import Batcher, SampleFailed
from ractd.serve.metrics import Metrics
from ractd.serve.served import FloatArray, request_shape
from ractd.serve.settings import Settings
from ractd.serve.wire import BadMessage, pack, unpack

OBSERVATION = ("observation", "observation/state", "state")
"""Names under which clients of this protocol send the observation vector; a request has one of them."""
GRACE = 0.1
"""Seconds after SIGTERM in which a request that is on its way still gets its answer."""


class Session:
    """A client's connection, its noise, and what it did."""

    def __init__(
        self, connection: ServerConnection, number: int, batcher: Batcher, metrics: Metrics, settings: Settings
    ) -> None:
        self.connection, self.number = connection, number
        self.batcher, self.metrics, self.settings = batcher, metrics, settings
        self.stream = np.random.default_rng([settings.seed, number])
        self.requests, self.refused = 0, 0
        self.ends_at: float | None = None
        """When it stops waiting for requests because the server drains, in the loop's time."""
        self._receiving: asyncio.Timeout | None = None

    async def run(self) -> None:
        """Answer the client until it goes, is idle for too long, doesn't read, or the server drains."""
        began, peer = time.monotonic(), self.connection.remote_address
        self._log("client connected", peer=str(peer[0]) if peer else None)
        try:
            alive = await self._send(pack({**self.batcher.policy.contract, "client": self.number}))
            while alive and (message := await self._receive()) is not None:
                at = time.monotonic()
                alive = await self._send(await self._respond(message))
                self.metrics.seconds.observe(time.monotonic() - at)
        except ConnectionClosed:
            pass
        finally:
            self._log(
                "client gone",
                requests=self.requests,
                refused=self.refused,
                seconds=round(time.monotonic() - began, 3),
                code=self.connection.close_code,
                reason=self.connection.close_reason,
            )

    def drain(self) -> None:
        """Answer what has come and what comes in the next moment, then say goodbye."""
        self.ends_at = asyncio.get_running_loop().time() + GRACE
        if self._receiving is not None:
            self._receiving.reschedule(self.ends_at)

    async def _receive(self) -> bytes | str | None:
        until = self.ends_at or asyncio.get_running_loop().time() + self.settings.idle_seconds
        try:
            async with asyncio.timeout_at(until) as self._receiving:
                return await self.connection.recv()
        except TimeoutError:
            if self.ends_at is not None:
                await self.connection.close(1001, "the server is shutting down")
            else:
                await self.connection.close(1008, f"no request for {self.settings.idle_seconds:g} s")
            return None
        finally:
            self._receiving = None

    async def _respond(self, message: bytes | str) -> bytes | str:
        """Return actions as bytes, or what went wrong as text, which is how openpi-client tells them apart."""
        self.requests += 1
        try:
            if isinstance(message, str):
                raise BadMessage("the message is text, expected msgpack in a binary frame")
            request = unpack(message)
            policy = self.batcher.policy
            observation = observation_of(request, request_shape(policy)).reshape(policy.observation_shape)
            warning = policy.check(observation)
            if "seed" in request:
                self.stream = np.random.default_rng(seed_of(request))
            answer = await self.batcher.answer(observation, self.stream)
        except RactdError as error:
            if not self.refused:
                self._log("request refused", error=str(error))
            self.refused += 1
            self.metrics.requests.labels("refused").inc()
            return str(error)
        except SampleFailed as error:
            self.metrics.requests.labels("failed").inc()
            return str(error)
        self.metrics.requests.labels("answered").inc()
        timing = {"queue_ms": 1e3 * answer.queued, "infer_ms": 1e3 * answer.sampled, "batch": answer.batch}
        result = {"actions": answer.actions, "policy": answer.identity, "server_timing": timing}
        return pack(result if warning is None else result | {"warning": warning})

    async def _send(self, message: bytes | str) -> bool:
        try:
            async with asyncio.timeout(self.settings.send_seconds):
                await self.connection.send(message)
        except TimeoutError:
            self._log("client doesn't read, cut off")
            self.connection.transport.abort()
            return False
        return True

    def _log(self, event: str, **fields: Any) -> None:
        self.metrics.logger.info(event, extra={"fields": {"client": self.number, **fields}})


def observation_of(request: dict[str, Any], shape: list[int]) -> FloatArray:
    """Return the observation in a request, `[O]` or `[h, O]`, as float32; raises `BadMessage` if there is none.

    Other entries are ignored: clients of this protocol send prompts and pictures along.
    """
    names = [name for name in OBSERVATION if name in request]
    if len(names) != 1:
        found = ", ".join(repr(str(name)[:40]) for name in list(request)[:8]) or "nothing"
        raise BadMessage(f"the request holds {found}, expected one of {', '.join(map(repr, OBSERVATION))}")
    value = request[names[0]]
    if not isinstance(value, np.ndarray):
        raise BadMessage(f"{names[0]} is {type(value).__name__}, expected a numeric array of shape {shape}")
    if list(value.shape) != shape:
        raise BadMessage(f"{names[0]} has shape {list(value.shape)}, expected {shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        observation = value.astype(np.float32)
    if not np.isfinite(observation).all():
        raise BadMessage(f"{names[0]} holds NaN or infinite values")
    return observation


def seed_of(request: dict[str, Any]) -> int:
    """Return the seed in a request, which restarts its client's noise; raises `BadMessage` if it is none."""
    seed = request["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) < 2**63:
        raise BadMessage("seed is not a whole number from 0 to 2^63 - 1")
    return int(seed)
