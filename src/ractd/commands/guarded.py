"""`python -m ractd.commands.guarded train ...`: `ractd train ...` that ends with whoever holds the other end of its standard input.

A sweep that is killed can't tell its trials, and they would hold their run directories when it goes on.
"""

from __future__ import annotations

import os
import runpy
import threading


def _end_with_starter() -> None:
    """Wait for the other end of the pipe, which the system closes however the starter ended."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_starter, daemon=True).start()
    runpy.run_module("ractd.cli", run_name="__main__")
