"""One request to stop: the first Ctrl-C or SIGTERM asks, the second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console


class Interrupted(Exception):
    """What was asked to stop has saved its work and stopped."""


@contextmanager
def stop_requests(console: Console, answer: str) -> Iterator[Callable[[], bool]]:
    """Tell whether Ctrl-C or SIGTERM asked to stop, which is answered with a line; a second one raises `KeyboardInterrupt`.

    Signals reach the main thread alone: in another, nothing asks.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return

    def request(number: int, frame: FrameType | None) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()
        console.print(answer, highlight=False)

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
