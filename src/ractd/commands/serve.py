"""`ractd serve`. Heavy imports wait until it runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ractd.commands.parsing import read
from ractd.errors import RactdError


@dataclass
class Serve:
    """Serve a policy over WebSocket to clients that speak openpi-client's protocol; logs JSON lines.

    Also answers /healthz, /readyz, /metrics and /contract. SIGHUP opens the policy anew, SIGTERM answers what was asked
    and stops. Needs the extra 'serve': pip install "ractd[serve]".
    """

    policy: Annotated[Positional[Path], arg(metavar="DIR")]
    """An exported policy; with --torch a run, or one of its policies."""
    torch: bool = False
    """Serve a run's policy with PyTorch."""
    device: str | None = None
    """Where PyTorch computes: cpu (the default), cuda, cuda:1, ..."""
    host: str = "127.0.0.1"
    """Address to listen on; others than this machine's loopback want a key and TLS."""
    port: int = 8000
    """Port to listen on; 0 takes a free one, which the log names."""
    api_key_file: Path | None = None
    """File with the key that clients have to send."""
    tls_cert: Path | None = None
    """Certificate chain (PEM)."""
    tls_key: Path | None = None
    """Its private key (PEM)."""
    seed: int = 0
    """With a client's number it seeds that client's noise."""
    batch_wait_ms: float = 1.0
    """Longest time that a request waits for others to join its batch, in milliseconds."""
    max_batch: int = 64
    """Most requests of a batch."""
    max_message_bytes: int = 2**20
    """Largest request."""
    max_connections: int = 512
    """Most clients at a time."""
    idle_seconds: float = 600.0
    """Time without a request after which a client is disconnected."""

    def run(self) -> None:
        from ractd.serve import serve
        from ractd.serve.settings import ServerSettings, read_api_key, tls_context

        if self.device and not self.torch:
            raise RactdError("--device is for --torch; an exported policy runs on the processor")
        settings = ServerSettings(
            host=self.host,
            port=self.port,
            api_key=read_api_key(self.api_key_file) if self.api_key_file else None,
            tls=tls_context(self.tls_cert, self.tls_key),
            seed=self.seed,
            batch_wait=self.batch_wait_ms / 1e3,
            largest_batch=self.max_batch,
            message_bytes=self.max_message_bytes,
            connections=self.max_connections,
            idle_seconds=self.idle_seconds,
        )
        serve(self.policy, settings, device=(self.device or "cpu") if self.torch else None)


parse = partial(read, Serve, "serve")
