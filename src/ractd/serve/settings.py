"""Where the server listens, who may connect, and how much anyone may ask of it."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ractd.errors import RactdError
from ractd.settings import Positive


@dataclass(frozen=True)
class ServerSettings:
    """Everything about a server that is neither its policy nor a secret."""

    host: str = "127.0.0.1"
    """Address to listen on; others than this machine's loopback want a key and TLS."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    """Port to listen on; 0 takes a free one, which the log names."""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """With a client's number it seeds that client's noise."""
    batch_wait_ms: Annotated[float, Meta(ge=0, le=10_000)] = 1.0
    """Longest time that a request waits for others to join its batch, in milliseconds."""
    max_batch: Annotated[int, Meta(ge=1, le=4096)] = 64
    """Most requests of a batch."""
    max_message_bytes: Annotated[int, Meta(ge=64, le=2**30)] = 2**20
    """Largest request."""
    max_connections: Annotated[int, Meta(ge=1, le=100_000)] = 512
    """Most clients at a time."""
    idle_seconds: Annotated[float, Meta(ge=0.01, le=1e7)] = 600.0
    """Time without a request after which a client is disconnected."""
    handshake_seconds: Positive = 10.0
    """A client that takes so long to ask for a WebSocket or a page is cut off."""
    send_seconds: Positive = 10.0
    """A client that takes so long to read an answer is cut off."""
    drain_seconds: Positive = 10.0
    """Longest time from SIGTERM to the end."""


def read_api_key(path: Path) -> bytes:
    """Return the key in a file, without the space around it; raises `RactdError` if it is none."""
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise RactdError(f"--api-key-file {path}: can't be read ({error.strerror})") from None
    if not key or not key.isascii() or len(key.split()) != 1:
        raise RactdError(f"--api-key-file {path}: expected one key of ASCII characters without spaces")
    return key


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the TLS side of a server, `None` without files; raises `RactdError` for files that don't fit."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise RactdError("--tls-cert and --tls-key belong together, one of them is missing")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An empty passphrase: a locked key is an error here, not a question on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise RactdError(f"--tls-cert {certificate}, --tls-key {key}: can't be used ({error})") from None
    return context


def exposure_warning(host: str, api_key: bytes | None, tls: ssl.SSLContext | None) -> str | None:
    """Return what is wrong with listening beyond this machine like that, `None` if nothing is."""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if local:
        return None
    if api_key is None:
        return "anyone who reaches this address can use the policy; --api-key-file asks for a key"
    if tls is None:
        return "the key and the data cross the network in the clear; --tls-cert and --tls-key encrypt them"
    return None


def reserve_files(connections: int) -> int:
    """Raise this process's limit of open files for so many connections, and return for how many it is enough."""
    try:
        import resource
    except ImportError:  # Windows, where sockets are no files
        return connections
    spare = 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < connections + spare:
        soft = connections + spare if hard == unlimited else min(connections + spare, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == unlimited else max(1, min(connections, soft - spare))
