"""What Windows does not have is not needed: neither to import a module, nor, but behind a question, when it runs."""

from __future__ import annotations

import ast
import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment

from ractd.serve.server import on_signal
from ractd.serve.settings import reserve_files

ROOT = Path(__file__).parent.parent
SOURCES = [*(ROOT / "src" / "ractd").rglob("*.py"), *(ROOT / "runtime" / "src").rglob("*.py")]

MODULES = {"resource", "fcntl", "termios", "tty", "pty", "pwd", "grp", "posix", "syslog", "readline", "curses"}
"""Modules of Python that Windows lacks."""
NAMES = {
    "signal": "SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGUSR2 SIGCHLD SIGALRM SIGPIPE SIGSTOP SIGCONT SIGWINCH alarm setitimer pause "
    "pthread_kill sigwait siginterrupt",
    "os": "fork forkpty getuid geteuid getgid getegid getpgid killpg setsid setpgid sched_getaffinity sched_setaffinity getloadavg "
    "uname nice mkfifo chown fchown lchown chroot sync sysconf statvfs posix_fadvise posix_fallocate sendfile wait3 wait4 WNOHANG "
    "WIFSIGNALED O_DIRECTORY O_NOFOLLOW O_SYNC O_CLOEXEC",
    "errno": "EDQUOT ESTALE",
    "socket": "AF_UNIX SO_REUSEPORT socketpair",
}
"""Names in Python's modules that Windows lacks."""

IMPORT_ALL = """
import builtins, errno, importlib, os, pkgutil, signal, sys
modules, names = {modules!r}, {names!r}
real = builtins.__import__

def without(name, globals=None, *rest, **options):
    # Other packages ask for the system and then know what it has: here it says Linux.
    if name.partition(".")[0] in modules and (globals or {{}}).get("__name__", "").startswith("ractd"):
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    return real(name, globals, *rest, **options)

import ractd, ractd_runtime
import torch, accelerate  # which take some of the names at import
for module, gone in names.items():
    for name in gone.split():
        vars(importlib.import_module(module)).pop(name, None)
builtins.__import__ = without
count = 0
for package in (ractd, ractd_runtime):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if found.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            assert error.name.partition(".")[0] not in modules | {{"ractd", "ractd_runtime"}}, (found.name, error)
        count += 1
print(count)
"""


def test_every_module_can_be_imported_without_what_windows_lacks() -> None:
    names = {"signal": "SIGHUP", "errno": NAMES["errno"]}
    code = IMPORT_ALL.format(modules=MODULES, names=names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_names_that_windows_lacks_are_asked_for_first(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    tried = {
        node
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try) and any("AttributeError" in ast.unparse(h.type or h) for h in attempt.handlers)
        for body in attempt.body
        for node in ast.walk(body)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node not in tried:
            module, name = node.value.id, node.attr
            if name in NAMES.get(module, "").split():
                assert re.search(rf'hasattr\({module}, "{name}"\)', source), f"line {node.lineno}: {module}.{name}"
        imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        taken = MODULES & {name.partition(".")[0] for name in imported}
        assert not taken or "except ImportError" in source, f"{taken} without 'except ImportError'"


def test_without_a_limit_of_open_files_every_connection_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert reserve_files(10_000) == 10_000


def test_signals_of_a_loop_that_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def raised() -> list[str]:
        loop, seen = asyncio.get_running_loop(), list[str]()
        monkeypatch.setattr(loop, "add_signal_handler", refuse)
        on_signal(loop, "SIGTERM", lambda: seen.append("SIGTERM"))
        on_signal(loop, "SIGNOTHING", lambda: seen.append("never"))
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.01)
        return seen

    def refuse(*_: object) -> None:
        raise NotImplementedError

    before = signal.getsignal(signal.SIGTERM)
    try:
        assert asyncio.run(raised()) == ["SIGTERM"]
    finally:
        signal.signal(signal.SIGTERM, before)
