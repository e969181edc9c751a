"""What tests of whole runs share: a tiny dataset, settings that train in seconds, the command line, one trained run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ractd.data import write_hdf5
from ractd.data.dataset import OfflineDataset
from ractd.runs.rows import Row, labels, read_file

STEPS = 150
TINY = {
    "--teacher.network.width": "32",
    "--return-model.optimization.steps": str(STEPS),
    "--teacher.optimization.steps": str(STEPS),
    "--student.optimization.steps": str(STEPS),
    "--return-model.optimization.batch-size": "32",
    "--teacher.optimization.batch-size": "32",
    "--student.optimization.batch-size": "32",
    "--evaluation.episodes": "4",
    "--evaluation.checkpoints": "3",
    "--evaluation.checkpoint-episodes": "2",
    "--diffusion.bins": "10",
}
"""Trains all stages in seconds on one core."""
ENV_ID = "InvertedPendulum-v5"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny networks: threads cost more than they give, most of all on a busy machine."""
    torch.set_num_threads(1)


def options(**changes: str) -> list[str]:
    """The tiny run's options, with others in place of some, named as they are typed: `**{"--horizon": "8"}`."""
    return ["--no-report", *(word for pair in {**TINY, **changes}.items() for word in pair)]


def environment() -> dict[str, str]:
    """One thread: processes under test do not compete, and numbers do not depend on the cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def run_command(*arguments: str | Path, timeout: float = 900, env: dict[str, str] | None = None) -> Answer:
    """Run `ractd` as a process of its own, its output in pipes."""
    done = subprocess.run(
        [sys.executable, "-m", "ractd.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment() | (env or {}),
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def rows_of(file: Path) -> dict[str, Row]:
    """The rows of a result's file, or of a run's `result.json`, by what tables call them."""
    path = file / "result.json" if file.is_dir() else file
    rows = read_file(path, path.parent).rows
    return dict(zip(labels(rows), rows, strict=True))


@contextmanager
def started(*words: str | Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running `ractd` in a process group of its own, its output in a file, gone when the block is left."""
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "ractd.cli", *map(str, words)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def command() -> Callable[..., Answer]:
    """`ractd` as a process."""
    return run_command


@pytest.fixture
def short_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results time each policy for half a second, which no test looks at: here it is a blink."""
    monkeypatch.setattr("ractd.runs.latency.SECONDS", 0.01)
    monkeypatch.setattr("ractd.runs.latency.TURN", 0.001)


@pytest.fixture
def cli(
    short_latency: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Answer]]:
    """`ractd` in this process, on one thread like the others; it spares the seconds that importing torch takes."""
    import torch

    def call(*arguments: str | Path) -> Answer:
        from ractd.cli import main

        monkeypatch.setattr(sys, "argv", ["ractd", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "120")
        capfd.readouterr()
        code: int | str | None = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        printed = capfd.readouterr()
        return Answer(int(code or 0), printed.out, printed.err)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield call
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if program is None:
        pytest.skip("no Chromium here; install one, or name it in CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def pendulum_data(rows: int = 3000, env_id: str | None = ENV_ID) -> OfflineDataset:
    """Random actions in the inverted pendulum: episodes of about 10 steps, all terminated."""
    import gymnasium

    env = gymnasium.make(ENV_ID)
    rng = np.random.default_rng(0)
    columns: list[list[object]] = [[], [], [], [], []]
    observation, _ = env.reset(seed=0)
    for _ in range(rows):
        action = np.clip(rng.normal(0, 0.3, 1), -3, 3).astype(np.float32)
        after, reward, terminated, truncated, _ = env.step(action)
        for column, value in zip(columns, (observation, action, reward, terminated, truncated), strict=True):
            column.append(value)
        observation = env.reset()[0] if terminated or truncated else after
    env.close()
    return OfflineDataset("pendulum", *map(np.array, columns), env_id=env_id, recipe="random actions")


@pytest.fixture(scope="session")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that names its environment."""
    path = tmp_path_factory.mktemp("data") / "pendulum.hdf5"
    write_hdf5(path, pendulum_data())
    return path


@dataclass(frozen=True)
class Trained:
    """A finished run of the tiny settings and how its command answered; tests copy it before they change it."""

    directory: Path
    dataset: Path
    answer: Answer


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, pendulum: Path) -> Trained:
    """One uninterrupted run, start to end."""
    directory = tmp_path_factory.mktemp("runs") / "trained"
    answer = run_command("train", pendulum, "--out", directory, *options())
    assert answer.code == 0, answer.out + answer.err
    return Trained(directory, pendulum, answer)


def assert_same_tensors(a: Path, b: Path) -> None:
    """Both safetensors files hold the same tensors, bit for bit."""
    from safetensors.numpy import load_file

    left, right = load_file(a), load_file(b)
    assert left.keys() == right.keys()
    different = [name for name in left if left[name].tobytes() != right[name].tobytes()]
    assert not different, f"{a} and {b} differ in {different}"
