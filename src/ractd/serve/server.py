"""The server: listens, batches, swaps its policy on SIGHUP, drains on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from websockets.asyncio.server import ServerConnection, serve

from ractd.errors import RactdError
from ractd.serve.batching import Batcher
from ractd.serve.http import respond
from ractd.serve.metrics import ServerMetrics
from ractd.serve.served import Load, ServedPolicy, checked
from ractd.serve.session import ClientSession
from ractd.serve.settings import ServerSettings, exposure_warning, reserve_files

HALF_OPEN = 64
"""Connections beyond the limit that may be in their handshake or asking for a page; more are cut off."""

BACKLOG = 1024
"""Connections that wait to be accepted: whoever finds the queue full comes back a second later."""
WATCH = 0.1
"""Seconds between two looks at how long each client has been silent or has not read."""


def on_signal(loop: asyncio.AbstractEventLoop, name: str, act: Callable[[], None]) -> None:
    """Have the loop call `act` at each signal of a name; nothing where the system has no such signal."""
    number = getattr(signal, name, None)
    if number is None:
        return
    try:
        loop.add_signal_handler(number, act)
    except NotImplementedError:  # the loops of Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(act))


class Server:
    """One policy for many clients, over WebSocket and plain HTTP on one port.

    `load` opens the policy, again at each SIGHUP: one that can't be opened, fails, or has other shapes leaves the old one.
    """

    def __init__(
        self,
        load: Load,
        settings: ServerSettings,
        logger: logging.Logger,
        api_key: bytes | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.load, self.logger, self.api_key, self.tls = load, logger, api_key, tls
        self.settings = replace(settings, max_connections=reserve_files(settings.max_connections))
        if self.settings.max_connections < settings.max_connections:
            self.logger.warning(
                f"this process may open files for {self.settings.max_connections} connections only, see ulimit -n"
            )
        self.metrics = ServerMetrics(logger)
        self.sessions: set[ClientSession] = set()
        self.draining = False
        self.numbers = count()
        first = checked(load(), None, settings.max_batch)
        self.batcher = Batcher(
            first,
            self.metrics,
            wait=settings.batch_wait_ms / 1e3,
            largest=settings.max_batch,
            clients=lambda: len(self.sessions),
        )
        self.metrics.policy.info({"identity": first.identity})
        self._stop, self._idle, self._swapping = asyncio.Event(), asyncio.Event(), asyncio.Lock()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises `RactdError` where it can't listen."""
        settings, loop = self.settings, asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        def start(work: Callable[[], Any]) -> None:
            task = loop.create_task(work())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        for name, work in {"SIGTERM": self.drain, "SIGINT": self.drain, "SIGHUP": self.reload}.items():
            on_signal(loop, name, partial(start, work))
        batching = loop.create_task(self.batcher.run())
        batching.add_done_callback(lambda _: self._stop.set())
        start(self._watch)
        try:
            listener = await serve(
                self._session,
                settings.host,
                settings.port,
                process_request=partial(respond, self),
                create_connection=partial(_connection, settings.max_connections + HALF_OPEN),  # type: ignore[arg-type]
                # A browser's page names its origin. Robots don't: no page can reach a server on the machine it is shown on.
                origins=[None],
                compression=None,
                max_size=settings.max_message_bytes,
                max_queue=2,
                open_timeout=settings.handshake_seconds,
                close_timeout=2,
                server_header=None,
                ssl=self.tls,
                backlog=BACKLOG,
                logger=logging.getLogger("ractd.serve.websockets"),
            )
        except (OSError, UnicodeError) as error:  # the latter of a host that can be no name
            raise RactdError(
                f"{settings.host}:{settings.port} can't be listened on ({getattr(error, 'strerror', None) or error}); "
                "name another with --host or --port"
            ) from None
        async with listener:
            port = int(next(iter(listener.sockets)).getsockname()[1])
            self._info("listening", host=settings.host, port=port, tls=self.tls is not None)
            if danger := exposure_warning(settings.host, self.api_key, self.tls):
                self.logger.warning(danger)
            await self._stop.wait()
            self.batcher.close()
        if batching.done():
            batching.result()
        batching.cancel()
        self._info("stopped")

    async def drain(self) -> None:
        """Answer what was asked, turn new clients away, then stop; called twice, stop at once."""
        if self.draining:
            self._stop.set()
            return
        self.draining = True
        self._info("draining", clients=len(self.sessions))
        for session in self.sessions:
            session.drain()
        try:
            async with asyncio.timeout(self.settings.drain_seconds):
                while self.sessions:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            self.logger.warning(f"{len(self.sessions)} clients were not done after {self.settings.drain_seconds:g} s")
        self._stop.set()

    async def reload(self) -> None:
        """Open the policy anew and let the next batch take it; a broken one changes nothing."""
        async with self._swapping:
            try:
                new = await asyncio.to_thread(self._opened)
            except Exception as error:
                self.metrics.reloads.labels("refused").inc()
                known = isinstance(error, RactdError)
                self.logger.error(
                    "policy not swapped, the old one stays",
                    exc_info=None if known else error,
                    extra={"fields": {"error": str(error)}},
                )
                return
            self.batcher.policy = new
            self.metrics.reloads.labels("swapped").inc()
            self.metrics.policy.info({"identity": new.identity})
            self._info("policy swapped", policy=new.identity)

    async def _watch(self) -> None:
        while not self._stop.is_set():
            await asyncio.sleep(WATCH)
            for session in tuple(self.sessions):
                session.watch(time.monotonic())

    def _opened(self) -> ServedPolicy:
        return checked(self.load(), self.batcher.policy, self.settings.max_batch)

    async def _session(self, connection: ServerConnection) -> None:
        session = ClientSession(connection, next(self.numbers), self.batcher, self.metrics, self.settings)
        self.sessions.add(session)
        self.metrics.clients.inc()
        self.metrics.connections.labels("accepted").inc()
        try:
            if self.draining:
                session.drain()
            await session.run()
        finally:
            self.sessions.discard(session)
            self.metrics.clients.dec()
            if not self.sessions:
                self._idle.set()

    def _info(self, event: str, **fields: Any) -> None:
        self.logger.info(event, extra={"fields": fields})


def _connection(limit: int, protocol: Any, server: Any, **options: Any) -> ServerConnection:
    """Return a connection that is cut off at once if there are too many, before it costs a handshake."""
    connection = ServerConnection(protocol, server, **options)
    made = connection.connection_made

    def connection_made(transport: asyncio.BaseTransport) -> None:
        made(transport)
        if len(server.handler_tasks) > limit:
            connection.transport.abort()

    connection.connection_made = connection_made  # type: ignore[method-assign]
    return connection


def run(
    load: Load,
    settings: ServerSettings,
    logger: logging.Logger,
    api_key: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, on uvloop where it is installed; raises `RactdError` before the first client."""
    try:
        from uvloop import new_event_loop
    except ModuleNotFoundError:
        new_event_loop = asyncio.new_event_loop

    async def main() -> None:
        server = Server(load, settings, logger, api_key, tls)
        gc.collect()
        gc.freeze()  # to look through what stays anyway takes 20 ms, with PyTorch 100, in which nobody is answered
        await server.run()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
