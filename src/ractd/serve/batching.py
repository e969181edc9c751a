"""Requests of many clients as batches of one policy: first come, first served, never two of a client in the queue."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ractd.serve.metrics import ServerMetrics
from ractd.serve.served import FloatArray, ServedPolicy
from ractd_runtime.past import Past

QUICK = 1e-3
"""Seconds: a batch that takes less is sampled in the event loop, where handing it to another thread and back costs more."""


class SampleFailed(Exception):
    """The policy failed on a request; its message is for the client."""


class Answer(NamedTuple):
    """The actions of one request and how it went."""

    actions: FloatArray
    """`[c, A]`."""
    identity: str
    """Of the policy that gave them."""
    queued: float
    """Seconds until its batch began."""
    sampled: float
    """Seconds its batch took."""
    batch: int
    """Requests in its batch."""


@dataclass(slots=True)
class _Request:
    observation: FloatArray
    past: Past | None
    stream: np.random.Generator
    answer: asyncio.Future[Answer]
    at: float


class Batcher:
    """Gathers requests and samples them in one worker thread, so that the event loop never waits for a slow policy.

    A policy whose last batch took less than `QUICK` has the next one in the event loop itself. A batch begins when none is
    under way and either `largest` requests wait, or one of every client does, or the first has waited `wait` seconds. Each
    caller awaits its answer before it asks again, so the queue holds at most one request a client. `policy` may be replaced
    at any time: the next batch takes the new one.
    """

    def __init__(
        self, policy: ServedPolicy, metrics: ServerMetrics, *, wait: float, largest: int, clients: Callable[[], int]
    ) -> None:
        self.policy, self.metrics, self.wait, self.largest, self.clients = policy, metrics, wait, largest, clients
        self.queue: deque[_Request] = deque()
        self.began: float | None = None
        """When the running batch began, `time.monotonic()`."""
        self._running: list[_Request] = []
        self._closed = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._arrived, self._enough = asyncio.Event(), asyncio.Event()

    async def answer(self, observation: FloatArray, past: Past | None, stream: np.random.Generator) -> Answer:
        """Return the actions for an observation [h, O] with the next noise of a stream.

        `past` is that of the one episode, for a policy that needs it.

        Raises:
            SampleFailed: The policy fails or gives no finite actions, or the server is shutting down.
        """
        if self._closed:
            raise SampleFailed("the server is shutting down")
        request = _Request(observation, past, stream, asyncio.get_running_loop().create_future(), time.monotonic())
        self.queue.append(request)
        self._arrived.set()
        if len(self.queue) >= self._expected():
            self._enough.set()
        return await request.answer

    async def run(self) -> None:
        """Answer requests until cancelled."""
        loop = asyncio.get_running_loop()
        quick: ServedPolicy | None = None
        while True:
            await self._arrived.wait()
            await self._gather()
            requests = [self.queue.popleft() for _ in range(min(len(self.queue), self.largest))]
            self._running = requests
            if not self.queue:
                self._arrived.clear()
            policy, self.began = self.policy, time.monotonic()
            if policy is quick:
                rows, seconds = self._sample(policy, requests)
            else:
                rows, seconds = await loop.run_in_executor(self._worker, self._sample, policy, requests)
            quick = policy if seconds < QUICK else None
            self._resolve(policy, requests, rows, self.began, seconds)
            self.began = None

    def close(self) -> None:
        """Fail every request that has no answer yet, and those to come; let the worker end."""
        self._closed = True
        for request in [*self.queue, *self._running]:
            if not request.answer.done():
                request.answer.set_exception(SampleFailed("the server is shutting down"))
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _expected(self) -> int:
        return min(self.largest, self.clients())

    async def _gather(self) -> None:
        left = self.queue[0].at + self.wait - time.monotonic()
        if left <= 0 or len(self.queue) >= self._expected():
            return
        self._enough.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._enough.wait()

    def _sample(self, policy: ServedPolicy, requests: list[_Request]) -> tuple[list[FloatArray | None], float]:
        """Return each request's actions, `None` where the policy failed, and the seconds that took; raises nothing."""
        began = time.monotonic()
        observations = np.empty((len(requests), *policy.observation_shape), np.float32)
        noise = np.empty((len(requests), *policy.noise_shape), np.float32)
        for i, request in enumerate(requests):
            observations[i] = request.observation
            request.stream.standard_normal(dtype=np.float32, out=noise[i])
        past = (
            Past.join([request.past for request in requests if request.past is not None]) if policy.past_steps else None
        )
        rows: list[FloatArray | None] = [None] * len(requests)
        try:
            rows = _rows(policy, observations, noise, past)
        except Exception as error:
            self.metrics.logger.error("policy failed on a batch", exc_info=error)
            # One request may have spoilt it for all: alone, the others are answered.
            for i, request in enumerate(requests if len(requests) > 1 else []):
                with suppress(Exception):
                    (rows[i],) = _rows(policy, observations[i : i + 1], noise[i : i + 1], request.past)
        return rows, time.monotonic() - began

    def _resolve(
        self,
        policy: ServedPolicy,
        requests: list[_Request],
        rows: list[FloatArray | None],
        began: float,
        seconds: float,
    ) -> None:
        self.metrics.batch_size.observe(len(requests))
        self.metrics.sample_seconds.observe(seconds)
        for request, row in zip(requests, rows, strict=True):
            if request.answer.done():
                continue
            if row is None:
                request.answer.set_exception(SampleFailed("the policy gave no finite actions, see the server's log"))
            else:
                answer = Answer(row, policy.identity, began - request.at, seconds, len(requests))
                request.answer.set_result(answer)


def _rows(
    policy: ServedPolicy, observations: FloatArray, noise: FloatArray, past: Past | None
) -> list[FloatArray | None]:
    actions = policy.sample(observations, noise, past)
    if actions.shape != (len(observations), *policy.action_shape):
        raise ValueError(f"the policy returned shape {actions.shape} for {len(observations)} requests")
    finite = np.logical_and.reduce(np.isfinite(actions), axis=(1, 2))
    return [row if fine else None for row, fine in zip(actions, finite, strict=True)]
