"""One attempt at a trial: a process of its own, so that nothing it does can take the sweep down."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Attempt:
    """What a worker has to know: plain text, since it travels to other machines."""

    command: tuple[str, ...]
    """Arguments of `ractd`."""
    log: str
    """File that its output is appended to."""
    directory: str
    """Working directory."""
    threads: int
    """Threads of its numerical libraries."""


def run(attempt: Attempt, should_stop: Callable[[], bool] = lambda: False) -> int:
    """Run an attempt to its end and return its exit code, minus the signal's number where one ended it.

    When `should_stop()` says so, or on `KeyboardInterrupt`, it is asked to save and stop, and waited for. Raises `OSError`
    where it can't be started.
    """
    threads = str(attempt.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    with open(attempt.log, "ab") as log:
        log.write(f"$ ractd {shlex.join(attempt.command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "ractd.commands.guarded", *attempt.command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=attempt.directory,
            env=environment,
            start_new_session=True,  # a Ctrl-C at the terminal reaches the sweep alone, which asks once
        )
    try:
        while not should_stop():
            try:
                return process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    except KeyboardInterrupt:  # how Ray cancels a task
        pass
    process.terminate()
    return process.wait()
