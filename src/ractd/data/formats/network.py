"""What comes over the network: files that appear whole or not at all, and servers that don't answer."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

from ractd.errors import RactdError
from ractd.files import replacing

ATTEMPTS = 3
"""At a download that stops on the way."""


def download(url: str, path: Path, check: Callable[[Path], object]) -> None:
    """Download a file by pooch, with a progress bar; it appears at `path` whole and checked, or not at all.

    Pooch can't go on with a part of a file, so a download that stops on the way begins again, `ATTEMPTS` times in all.

    Args:
        url: its address.
        path: where it is to be.
        check: opens it, and raises `RactdError` where it isn't what it should be.

    Raises:
        RactdError: with the address, what happened and what to do.
    """
    import pooch
    import requests

    headers = {"User-Agent": "ractd", "Accept-Encoding": "identity"}
    fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=1 << 18, timeout=30, headers=headers)
    advice = f"try again later, or put the file at {path} yourself"
    with replacing(path) as partial:
        for attempt in range(ATTEMPTS):
            try:
                fetch(url, partial, None)
                break
            except requests.HTTPError as error:
                answer = cast(requests.Response, error.response)
                what = f"the server answered {answer.status_code} {answer.reason}"
                raise RactdError(f"{url}: {what}; {advice}") from error
            except requests.RequestException as error:
                reason = _reason(error)
                if not partial.stat().st_size and "IncompleteRead" not in reason:
                    raise RactdError(f"{url}: can't be reached ({reason}); {advice}") from error
                if attempt == ATTEMPTS - 1:
                    raise RactdError(f"{url}: the download stopped {ATTEMPTS} times ({reason}); {advice}") from error
        try:
            check(partial)
        except RactdError as error:
            reason = str(error).removeprefix(f"{partial}: ")
            raise RactdError(f"{url}: what came is {reason}; {advice}") from error


def unreachable(server: str, patience: float) -> str:
    """Say why a server can't be reached, "" where it answers within so many seconds, whatever it answers.

    What downloads from it would ask again and again, each time for as long as its own timeouts are.
    """
    import requests

    reasons: queue.SimpleQueue[str] = queue.SimpleQueue()

    def ask() -> None:
        try:
            requests.head(server, timeout=patience)
            reasons.put("")
        except (requests.exceptions.SSLError, requests.exceptions.InvalidSchema):
            # A certificate that isn't known here is an answer, and what downloads may know how to talk to the proxy.
            reasons.put("")
        except (OSError, ValueError) as error:
            reasons.put(_reason(error))

    # Looking up a name has no timeout, so a thread does it that nobody has to wait for.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return reasons.get(timeout=patience + 1)
    except queue.Empty:
        return f"no answer in {patience:g} s"


def _reason(error: Exception) -> str:
    """Return the innermost cause, which requests puts last."""
    return str(error).split(": ")[-1].rstrip("')\"") or type(error).__name__
