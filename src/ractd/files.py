"""Files that appear whole or not at all, and JSON with its faults named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ractd.errors import RactdError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which then takes the place of `path` in one step; on any failure nothing is left.

    It gets the permissions that any new file would have. Raises `RactdError` where it can't be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise RactdError(f"{path}: a part of this path is a file and no folder; name another place") from error
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        # Some writers make a file that is their user's alone.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(partial, 0o666 & ~mask)
        os.replace(partial, path)
    except OSError as error:
        raise RactdError(f"{path}: could not be written ({error}); what was there before is untouched") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_directory(path: Path, last: str = "") -> Iterator[Path]:
    """Yield a directory to fill, which then takes the place of `path`; on any failure nothing is changed.

    That is one step where there is none yet, else it is file by file, `last` at the end. Raises `RactdError` where it can't be
    written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a process of this number that was killed, as in a container
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            for file in sorted(partial.iterdir(), key=lambda file: file.name == last):
                os.replace(file, path / file.name)
        else:
            os.replace(partial, path)
    except OSError as error:
        raise RactdError(f"{path}: could not be written ({error.strerror or error}); nothing was changed") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_foreign(directory: Path, kind: str, marker: str, option: str = "--out", format: str | None = None) -> None:
    """Raise `RactdError` where a directory holds something that is not ours, before anything is written there.

    It is ours where it has the file `marker`, of that `format` if one is given. `kind` and `option` are for the message: what the
    directory should be, and what the user can change.
    """
    if not directory.exists():
        return
    if not directory.is_dir():
        raise RactdError(f"{directory}: is a file, expected a directory; use another {option}")
    names = sorted(item.name for item in directory.iterdir())
    names = [name for name in names if name != ".lock" and not name.endswith(".partial")]
    if names and (marker not in names or (format is not None and _format_of(directory / marker) != format)):
        raise RactdError(f"{directory}: is not empty and no {kind} (it holds {names[0]!r}); use another {option}")


def _format_of(path: Path) -> Any:
    content = read_json(path)
    return content.get("format") if isinstance(content, dict) else None


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, its line ends as they are, by atomic rename."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: Any) -> None:
    """Write JSON by atomic rename."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; raises `RactdError` where it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise RactdError(f"{path}: not found") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RactdError(f"{path}: not valid JSON ({error})") from None
