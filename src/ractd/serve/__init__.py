"""A policy server: WebSocket and msgpack as openpi-client speaks them, batching, limits, swaps without a lost connection."""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path

from ractd.errors import RactdError
from ractd.serve.settings import ServerSettings


def serve(
    path: Path,
    settings: ServerSettings,
    device: str | None = None,
    api_key: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve a policy until SIGTERM or Ctrl-C.

    Args:
        path: A run's policy where there is a device, an exported policy where there is none.
        settings: Everything else about the server.
        device: Where PyTorch computes.
        api_key: What clients have to send, None for no key.
        tls: The server's side of TLS, None for connections in the clear.

    Raises:
        RactdError: The policy can't be opened, the address can't be listened on, or the extra 'serve' isn't installed.
    """
    try:
        from ractd.serve.server import run
    except ModuleNotFoundError as error:
        if error.name not in ("msgpack", "prometheus_client", "websockets"):
            raise
        raise RactdError(f'the server needs {error.name}: pip install "ractd[serve]"') from None
    from ractd.serve.exported import exported_policy
    from ractd.serve.logs import json_logger
    from ractd.serve.served import torch_policy

    load = partial(exported_policy, path) if device is None else partial(torch_policy, path, device)
    run(load, settings, json_logger(), api_key, tls)
