"""One connected client: requests in, actions or a sentence out."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from ractd.errors import RactdError
from ractd.serve.batching import Batcher, SampleFailed
from ractd.serve.metrics import ServerMetrics
from ractd.serve.served import FloatArray, ServedPolicy, request_shape
from ractd.serve.settings import ServerSettings
from ractd.serve.wire import BadMessage, pack, unpack
from ractd_runtime.past import PAST_ACTIONS, PAST_REWARDS, Past

OBSERVATION = ("observation", "observation/state", "state")
"""Names under which clients of this protocol send the observation vector; a request has one of them."""
GRACE = 0.1
"""Seconds after SIGTERM in which a request that is on its way still gets its answer."""


class ClientSession:
    """A client's connection, its noise, and what it did."""

    def __init__(
        self,
        connection: ServerConnection,
        number: int,
        batcher: Batcher,
        metrics: ServerMetrics,
        settings: ServerSettings,
    ) -> None:
        self.connection, self.number = connection, number
        self.batcher, self.metrics, self.settings = batcher, metrics, settings
        self.stream = np.random.default_rng([settings.seed, number])
        self.requests, self.refused = 0, 0
        self.ends_at = math.inf
        """When it stops waiting for requests because the server drains."""
        self._until, self._overdue = math.inf, self._cut_off
        self._closing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Answer the client until it goes, is idle for too long, doesn't read, or the server drains."""
        began, peer = time.monotonic(), self.connection.remote_address
        self._log("client connected", peer=str(peer[0]) if peer else None)
        try:
            await self._send(pack({**self.batcher.policy.contract, "client": self.number}))
            while (message := await self._receive()) is not None:
                at = time.monotonic()
                await self._send(await self._respond(message))
                self.metrics.seconds.observe(time.monotonic() - at)
        except ConnectionClosed:
            pass
        finally:
            self._until = math.inf
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
        self.ends_at = time.monotonic() + GRACE
        if self._overdue == self._say_goodbye and self._until < math.inf:
            self._until = min(self._until, self.ends_at)

    def watch(self, now: float) -> None:
        """End the connection where the client is silent, or doesn't read, for too long; called every now and then.

        A timer for each wait would cost more than everything else that a request needs here.
        """
        if now >= self._until:
            self._until = math.inf
            self._overdue()

    async def _receive(self) -> bytes | str | None:
        now = time.monotonic()
        if now >= self.ends_at:
            try:
                async with asyncio.timeout(0):  # what has come already is still answered
                    return await self.connection.recv()
            except TimeoutError:
                self._say_goodbye()
                return None
        self._overdue, self._until = self._say_goodbye, min(self.ends_at, now + self.settings.idle_seconds)
        message = await self.connection.recv()
        self._until = math.inf
        return message

    async def _send(self, message: bytes | str) -> None:
        self._overdue, self._until = self._cut_off, time.monotonic() + self.settings.send_seconds
        await self.connection.send(message)
        self._until = math.inf

    def _say_goodbye(self) -> None:
        if self.ends_at < math.inf:
            code, reason = 1001, "the server is shutting down"
        else:
            code, reason = 1008, f"no request for {self.settings.idle_seconds:g} s"
        self._closing = asyncio.get_running_loop().create_task(self.connection.close(code, reason))

    def _cut_off(self) -> None:
        self._log("client doesn't read, cut off")
        self.connection.transport.abort()

    async def _respond(self, message: bytes | str) -> bytes | str:
        """Return actions as bytes, or what went wrong as text, which is how openpi-client tells them apart."""
        self.requests += 1
        try:
            if isinstance(message, str):
                raise BadMessage("the message is text, expected msgpack in a binary frame")
            request = unpack(message)
            policy = self.batcher.policy
            observation = observation_of(request, request_shape(policy)).reshape(policy.observation_shape)
            past = past_of(request, policy) if policy.past_steps else None
            warning = policy.check(observation)
            if "seed" in request:
                self.stream = np.random.default_rng(seed_of(request))
            answer = await self.batcher.answer(observation, past, self.stream)
        except RactdError as error:
            if not self.refused:
                self._log("request refused", error=str(error))
            self.refused += 1
            self.metrics.refused.inc()
            return str(error)
        except SampleFailed as error:
            self.metrics.failed.inc()
            return str(error)
        self.metrics.answered.inc()
        timing = {"queue_ms": 1e3 * answer.queued, "infer_ms": 1e3 * answer.sampled, "batch": answer.batch}
        result = {"actions": answer.actions, "policy": answer.identity, "server_timing": timing}
        return pack(result if warning is None else result | {"warning": warning})

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
    observation: FloatArray = value
    if value.dtype != np.float32:
        with np.errstate(over="ignore", invalid="ignore"):
            observation = value.astype(np.float32)
    # A sum in double precision is finite if and only if every number in it is: single ones can't overflow it.
    if not math.isfinite(np.add.reduce(observation, axis=None, dtype=np.float64)):
        raise BadMessage(f"{names[0]} holds NaN or infinite values")
    return observation


def past_of(request: dict[str, Any], policy: ServedPolicy) -> Past:
    """Return what a policy needs of the episode so far; raises `RactdError` where a request lacks it, or it is wrong.

    The server keeps nothing of an episode: only the client knows which actions were executed, what they were paid, and when
    an episode began.
    """
    actions, rewards = request.get(PAST_ACTIONS), request.get(PAST_REWARDS)
    return Past.of(actions, rewards, policy.past_steps, policy.action_shape[1], None)


def seed_of(request: dict[str, Any]) -> int:
    """Return the seed in a request, which restarts its client's noise; raises `BadMessage` if it is none."""
    seed = request["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) < 2**63:
        raise BadMessage("seed is not a whole number from 0 to 2^63 - 1")
    return int(seed)
