"""Where attempts run: one after the other beside this process, or through Ray on this machine or a cluster."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ractd.errors import RactdError
from ractd.sweeps import attempt
from ractd.sweeps.attempt import Attempt

OBJECT_STORE_BYTES = 80 * 2**20
"""Nearly the least that Ray takes: only commands and exit codes travel."""
ANSWER_SECONDS = 4.0
"""In which a cluster's address has to accept a connection."""
JOIN_SECONDS = 10.0
"""In which a cluster has to accept a driver, which takes it about two."""


@dataclass(frozen=True)
class Workers:
    """How attempts are started and stopped."""

    submit: Callable[[Attempt], Future[int]]
    """Starts an attempt; its result is what `attempt.run` returns."""
    stop: Callable[[], None]
    """Asks everything that was submitted to save and stop; what hasn't begun never begins."""
    slots: int | None
    """Attempts that can run at a time; None where a cluster decides."""


def ray_installed() -> bool:
    """Return whether Ray can be imported, without importing it."""
    return importlib.util.find_spec("ray") is not None


@contextmanager
def one_worker() -> Iterator[Workers]:
    """Run attempts one after the other as children of this process."""
    stopping = Event()

    def submit(what: Attempt) -> Future[int]:
        future: Future[int] = Future()

        def work() -> None:
            try:
                future.set_result(attempt.run(what, stopping.is_set))
            except OSError as error:
                future.set_exception(error)

        # Not of an executor, which would wait for it when a second Ctrl-C is to end everything.
        Thread(target=work, daemon=True).start()
        return future

    yield Workers(submit, stopping.set, 1)


@contextmanager
def ray_on_this_machine(jobs: int, cpus: float, gpus: float) -> Iterator[Workers]:
    """Run up to `jobs` attempts at a time through a Ray of our own. Raises `RactdError` for GPUs that aren't there."""
    # Without GPUs of its own a trial sees those that a 'ractd train' would.
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    # Ray's own folder may be another user's, and sockets in a deep one have names too long for the system.
    parent = "/tmp" if os.path.isdir("/tmp") else None
    with tempfile.TemporaryDirectory(prefix="ractd-", dir=parent, ignore_cleanup_errors=True) as directory:
        settings = {"num_cpus": math.ceil(jobs * cpus), "object_store_memory": OBJECT_STORE_BYTES}
        with _ray(address="local", include_dashboard=False, _temp_dir=directory, **settings) as ray:
            there = ray.cluster_resources().get("GPU", 0)
            if gpus > there:
                raise RactdError(f"--gpus is {gpus:g} for each trial, and Ray finds {there:g} on this machine")
            yield _ray_workers(ray, cpus, gpus, jobs)


@contextmanager
def ray_cluster(address: str, cpus: float, gpus: float) -> Iterator[Workers]:
    """Run attempts on a Ray cluster, as many at a time as its resources allow.

    `address` is HOST:PORT of its head, or auto. Raises `RactdError` where it doesn't answer within 15 seconds.
    """
    if address != "auto":
        _check_answers(address)
    # Ray waits for minutes, and may end the process, where something else answers: a process of its own tries first.
    command = [sys.executable, "-c", "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)", address]
    try:
        joined = subprocess.run(command, capture_output=True, text=True, timeout=JOIN_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        if b"Unauthenticated" in (error.stderr or b""):
            raise RactdError(
                f"--ray-address {address}: the cluster wants a token; set RAY_AUTH_MODE=token, and see Ray's 'ray get-auth-token'"
            ) from None
        raise RactdError(
            f"--ray-address {address}: something answers, but not as a Ray cluster within {JOIN_SECONDS:g} s"
        ) from None
    if joined.returncode:
        last = next(reversed(joined.stderr.strip().splitlines()), f"exit code {joined.returncode}")
        raise RactdError(f"--ray-address {address}: no cluster that this machine is part of answers there ({last})")
    with _ray(address=address) as ray:
        yield _ray_workers(ray, cpus, gpus, None)


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise RactdError(f"--ray-address is {address!r}, expected HOST:PORT as 'ray start --head' prints it, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RactdError(
            f"--ray-address {address}: no Ray cluster answers there ({error}); is it running ('ray start --head')?"
        ) from None


@contextmanager
def _ray(**settings: Any) -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **settings)
    except Exception as error:  # whatever Ray raises, its message says what it lacks
        raise RactdError(f"Ray could not be started: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _ray_workers(ray: Any, cpus: float, gpus: float, slots: int | None) -> Workers:
    # A failure counts as an attempt of ours, so Ray makes none of its own.
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_on_a_worker)
    references: list[Any] = []

    def submit(what: Attempt) -> Future[int]:
        reference = task.remote(what.command, what.log, what.directory, what.threads)
        references.append(reference)
        return reference.future()  # type: ignore[no-any-return]

    def stop() -> None:
        for reference in references:
            ray.cancel(reference, force=False)

    return Workers(submit, stop, slots)


def _on_a_worker(command: tuple[str, ...], log: str, directory: str, threads: int) -> int:
    if not Path(directory).is_dir():
        raise RactdError(f"{directory}: is not on {socket.gethostname()}; a cluster's machines have to share it")
    return attempt.run(Attempt(command, log, directory, threads))
