"""What the server's port answers before there is a WebSocket: the key, the limits, and four pages for machines."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

if TYPE_CHECKING:
    from ractd.serve.server import Server

STUCK_SECONDS = 30.0
"""A batch that runs for longer means that the policy hangs, and the server is not healthy."""


def respond(server: Server, connection: ServerConnection, request: Request) -> Response | None:
    """Return the answer to a plain request or to a client that may not connect; `None` lets a WebSocket open."""
    path = request.path.partition("?")[0]
    if path in OPEN:
        return OPEN[path](server, connection)
    if not allowed(request.headers.get_all("Authorization"), server.api_key):
        server.metrics.connections.labels("unauthorized").inc()
        response = connection.respond(HTTPStatus.UNAUTHORIZED, "expected the header 'Authorization: Api-Key KEY'\n")
        response.headers["WWW-Authenticate"] = "Api-Key"
        return response
    if path in WITH_KEY:
        return WITH_KEY[path](server, connection)
    if server.draining:
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "the server is shutting down\n")
    if len(server.sessions) >= server.settings.max_connections:
        server.metrics.connections.labels("full").inc()
        return connection.respond(
            HTTPStatus.SERVICE_UNAVAILABLE, f"all {server.settings.max_connections} connections are taken\n"
        )
    return None


def allowed(authorization: list[str], key: bytes | None) -> bool:
    """Tell whether a request's `Authorization` headers hold the key, in a time that doesn't depend on the key."""
    if key is None:
        return True
    header = authorization[0] if len(authorization) == 1 else ""
    return hmac.compare_digest(header.encode("utf-8", "surrogateescape"), b"Api-Key " + key)


def health(server: Server, connection: ServerConnection) -> Response:
    """Answer 200 unless the policy hangs."""
    began = server.batcher.began
    if began is not None and time.monotonic() - began > STUCK_SECONDS:
        return connection.respond(
            HTTPStatus.SERVICE_UNAVAILABLE, f"the policy has been busy for over {STUCK_SECONDS:g} s\n"
        )
    return connection.respond(HTTPStatus.OK, "OK\n")


def readiness(server: Server, connection: ServerConnection) -> Response:
    """Answer 200 while new clients are welcome."""
    if server.draining:
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "draining\n")
    return connection.respond(HTTPStatus.OK, "ready\n")


def metrics(server: Server, connection: ServerConnection) -> Response:
    """Answer with everything that is counted."""
    text = server.metrics.text().decode()
    return _typed(connection.respond(HTTPStatus.OK, text), "text/plain; version=0.0.4; charset=utf-8")


def contract(server: Server, connection: ServerConnection) -> Response:
    """Answer with what the policy takes and gives."""
    text = json.dumps(server.batcher.policy.contract, indent=2) + "\n"
    return _typed(connection.respond(HTTPStatus.OK, text), "application/json")


def _typed(response: Response, content_type: str) -> Response:
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = content_type
    return response


Page = Callable[["Server", ServerConnection], Response]
OPEN: dict[str, Page] = {"/healthz": health, "/readyz": readiness}
"""For whoever watches over the process; they say nothing about the policy."""
WITH_KEY: dict[str, Page] = {"/metrics": metrics, "/contract": contract}
