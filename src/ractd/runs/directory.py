"""The run directory: what a run is, who may write to it, and whether it can go on."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ractd.errors import RactdError
from ractd.files import read_json, refuse_foreign, write_json
from ractd.methods import method_named
from ractd.settings import from_json, to_json

FORMAT_VERSION = 2
PACKAGES = ("ractd", "torch", "numpy", "accelerate", "safetensors", "gymnasium", "envpool", "mujoco")


def versions(*more: str) -> dict[str, str]:
    """Return the versions that a result depends on, and those of `more` packages."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in (*PACKAGES, *more):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the run directory for this process, without what a killed one left half-written.

    Raises `RactdError` when another process holds it, or when it is no run directory. A killed process lets go.
    """
    lock = FileLock(directory / ".lock")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        refuse_foreign(directory, "run", "config.json")
        lock.acquire(timeout=0)
    except Timeout:
        raise RactdError(
            f"{directory}: another process is using this run; wait for it, stop it, or use another --out"
        ) from None
    except OSError as error:
        raise RactdError(f"{directory}: can't be used as a run directory ({error.strerror})") from error
    try:
        for folder in ("", "checkpoints/*/", "policy/", "policy/*/", "report/"):
            for partial in directory.glob(f"{folder}.*.partial"):
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
        yield
    finally:
        lock.release()


def open_run(directory: Path, description: dict[str, Any], computed_by: Mapping[str, str]) -> list[str]:
    """Create the run's `config.json`, or check that it is the same run that goes on.

    Returns what has changed of what its numbers are `computed_by` since then, a phrase each.

    Raises `RactdError` naming the first field in which the run on disk differs from `description`.
    """
    path = directory / "config.json"
    invocation = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions(),
        "computed_by": dict(computed_by),
    }
    if not path.exists():
        write_json(
            path, {"format": "ractd-run", "format_version": FORMAT_VERSION, **description, "invocations": [invocation]}
        )
        return []
    on_disk = read_run(directory)
    for where, old, new in differences(path, on_disk, description):
        raise RactdError(
            f"{path}: {where} is {old!r} there and {new!r} now; go on with the old setting, or use another --out for a new run"
        )
    before = on_disk["invocations"][-1].get("computed_by", {})  # a run of 0.1 doesn't say
    on_disk["invocations"].append(invocation)
    write_json(path, on_disk)
    return [f"{name} {before[name]}, now {now}" for name, now in computed_by.items() if before.get(name, now) != now]


def read_run(directory: Path) -> dict[str, Any]:
    """Read a run's `config.json`; raises `RactdError` for anything that is no run of this version."""
    path = directory / "config.json"
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != "ractd-run":
        raise RactdError(f"{path}: not a ractd run")
    if content.get("format_version") == 1:
        raise RactdError(f"{path}: a run of ractd's first edition, which this one can't go on with; use another --out")
    if content.get("format_version") != FORMAT_VERSION:
        raise RactdError(f"{path}: run format {content.get('format_version')!r}, this ractd reads {FORMAT_VERSION}")
    return content


def differences(path: Path, run: dict[str, Any], description: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield in what a run, as `read_run` gave it, isn't the one described: field, what it has, what is described.

    `path` is its `config.json`. Only what `description` has is compared.
    """
    # An option that came after the run began has its default there.
    settings = method_named(run["method"]).settings
    run["config"] = to_json(from_json(settings, run.get("config"), path))
    # Method and data first: what else differs may follow from them.
    for name in sorted(description, key=lambda name: {"method": 0, "dataset": 1}.get(name, 2)):
        for difference in _differences(run.get(name), description[name], name):
            if difference[0] != "dataset.source":  # the same data (its fingerprint is compared too), from another place
                yield difference


def _differences(old: Any, new: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}")
    elif old != new:
        yield where, old, new
