"""Commands of the pages that train several runs, or serve until they are stopped, as small as can be: `make proofs` runs them."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Answer, Trained, environment
from docs_commands import LONG, PLAYED, TINY, commands, replaced, tiny_for
from serve_factory import Running

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")]


@pytest.fixture
def folder(tmp_path: Path, trained: Trained, command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader works: two datasets of the reader's own, an exported policy, a key, a certificate."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RACTD_DATA", str(tmp_path / "datasets"))
    assert command("data", "make", "hopper-mixed", "--steps", "1500").code == 0
    for name in ("a.hdf5", "b.hdf5"):
        shutil.copy(trained.dataset, name)
    shutil.copytree(trained.directory, "runs/a")
    return tmp_path


def words_of(text: str) -> list[str]:
    """A command's words with the settings of `LONG`, and of its trainings the smallest."""
    own, _, trainings = text.removeprefix("ractd ").partition(" -- ")
    words = replaced(own.split(), LONG[text])
    if words[0] == "serve":
        return words
    # A student of another run's teacher has that teacher's settings.
    taken = "--teacher." if "--teacher runs" in trainings else "nothing"
    tiny = TINY | PLAYED if words[0] == "reproduce" else tiny_for(trainings.split())
    settings = {option: value for option, value in tiny.items() if not option.startswith(taken)}
    return [*words, "--", *replaced(trainings.split(), settings)]


@pytest.mark.parametrize("text", [text for text in LONG if not text.startswith("ractd serve")])
def test_commands_of_several_runs(text: str, folder: Path, command: Callable[..., Answer]) -> None:
    pytest.importorskip("ray")
    if "--teacher runs/a" in text:
        shutil.rmtree("runs/a")
        tiny = [word for pair in TINY.items() for word in pair]
        answer = command("train", "hopper-mixed", "--out", "runs/a", "--preset", "demo", "--no-report", *tiny)
        assert answer.code == 0, answer.err
    answer = command(*words_of(text))
    assert answer.code == 0, f"{answer.out}\n{answer.err}"
    written = [Path(word) for word in re.findall(r"\S+\.md", answer.out)]
    assert written, answer.out
    assert all(path.read_text().count("|") > 10 for path in written)


@pytest.mark.parametrize("text", [text for text in LONG if text.startswith("ractd serve")])
def test_commands_that_serve(text: str, folder: Path, command: Callable[..., Answer]) -> None:
    if "--torch" not in text:
        answer = command("export", "runs/a", "-o", "deployed")
        assert answer.code == 0, answer.err
    if "--tls-key" in text:
        (own,) = [c for c in commands() if c.words[:2] == ("openssl", "req")]
        subprocess.run(own.words, check=True, capture_output=True)
        Path("key").write_text("secret")
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "ractd.cli", *words_of(text)], stderr=stream, env=environment()
        )
    running = Running(process, log, folder)
    try:
        running.port = running.wait_for("listening")["port"]
        if "--tls-key" not in text:
            assert running.get("/readyz")[0] == 200
        running.signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
