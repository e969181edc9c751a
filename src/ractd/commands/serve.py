"""`ractd serve`. Heavy imports wait until it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ractd.commands.parsing import read
from ractd.errors import RactdError
from ractd.serve.settings import ServerSettings
from ractd.settings import check

UNSHOWN = ("handshake_seconds", "send_seconds", "drain_seconds")
"""Settings that nobody is expected to change."""


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
    api_key_file: Path | None = None
    """File with the key that clients have to send."""
    tls_cert: Path | None = None
    """Certificate chain (PEM)."""
    tls_key: Path | None = None
    """Its private key (PEM)."""
    config: Annotated[ServerSettings, arg(name="")] = field(default_factory=ServerSettings)
    """Everything else about the server."""

    def run(self) -> None:
        from ractd.serve import serve
        from ractd.serve.settings import read_api_key, tls_context

        if self.device and not self.torch:
            raise RactdError("--device is for --torch; an exported policy runs on the processor")
        key = read_api_key(self.api_key_file) if self.api_key_file else None
        device = (self.device or "cpu") if self.torch else None
        serve(self.policy, check(self.config), device, key, tls_context(self.tls_cert, self.tls_key))


parse = partial(read, Serve, "serve", shows=lambda place: None if place in UNSHOWN else True)
