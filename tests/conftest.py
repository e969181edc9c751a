"""What tests of whole runs share: a tiny dataset, settings that train in seconds, the command line, one trained run."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

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
    "--diffusion.bins": "10",
}
"""Trains all stages in seconds on one core."""
PLAYED = {
    "--evaluation.select": "online",
    "--evaluation.checkpoints": "3",
    "--evaluation.checkpoint-episodes": "2",
}
"""Keeps the best checkpoints beside the last ones."""
ENV_ID = "InvertedPendulum-v5"
FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts")
WIDTH = "120"
"""Columns of the terminal that commands in this process find."""
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


LONGEST = (
    "without_rewards",
    "resume",
    "methods",
    "two_modes",
    "docs",
    "compare",
    "cli_planner",
    "sweeps",
    "report_page",
    "loop",
)
"""Files whose tests take longest: they begin first, so that all workers end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; each keeps its order."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONGEST)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny networks: threads cost more than they give, most of all on a busy machine."""
    torch.set_num_threads(1)


def options(played: bool = True, /, **changes: str) -> list[str]:
    """The tiny run's options, with others in place of some, named as they are typed: `**{"--horizon": "8"}`."""
    chosen = {**TINY, **(PLAYED if played else {}), **changes}
    return ["--no-report", "--preset", "cpu", *(word for pair in chosen.items() for word in pair)]


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
def short_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results time each policy for half a second and compare it with 1024 states, which no test looks at."""
    shorten_scoring(monkeypatch)


def shorten_scoring(patch: pytest.MonkeyPatch) -> None:
    """Time each policy for a blink, and compare it with the data at a few states."""
    patch.setattr("ractd.runs.latency.SECONDS", 0.01)
    patch.setattr("ractd.runs.latency.TURN", 0.001)
    patch.setattr("ractd.runs.scoring.STATES", 64)


def call_command(*arguments: str | Path, env: dict[str, str] | None = None) -> Answer:
    """Run `ractd` in this process, for fixtures that tests share: it spares the seconds that its imports take."""
    with pytest.MonkeyPatch.context() as patch:
        shorten_scoring(patch)
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = _main(arguments, patch)
    return Answer(code, out.getvalue(), err.getvalue())


def _main(arguments: Sequence[str | Path], patch: pytest.MonkeyPatch) -> int:
    """Run `ractd` with these words and return its exit code."""
    from ractd.cli import main

    patch.setattr(sys, "argv", ["ractd", *map(str, arguments)])
    patch.setenv("COLUMNS", WIDTH)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    code: int | str | None = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    finally:
        torch.set_num_threads(threads)
    return int(code or 0)


@pytest.fixture
def cli(
    short_scoring: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """`ractd` in this process, what libraries write past Python included; it spares the seconds that its imports take."""

    def call(*arguments: str | Path) -> Answer:
        capfd.readouterr()
        code = _main(arguments, monkeypatch)
        printed = capfd.readouterr()
        return Answer(code, printed.out, printed.err)

    return call


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
    columns: dict[str, list[Any]] = {name: [] for name in FIELDS}
    observation, _ = env.reset(seed=0)
    for _ in range(rows):
        action = np.clip(rng.normal(0, 0.3, 1), -3, 3).astype(np.float32)
        after, reward, terminated, truncated, _ = env.step(action)
        for column, value in zip(columns.values(), (observation, action, reward, terminated, truncated), strict=True):
            column.append(value)
        observation = env.reset()[0] if terminated or truncated else after
    env.close()
    fields: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
    return OfflineDataset("pendulum", **fields, env_id=env_id, recipe="random actions")


class Shared:
    """Files that all workers of a test run share: the first who asks for a name makes them, the others wait for it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the folder of that name, which `make(folder)` fills once."""
        folder, finished = self.root / name, self.root / f"{name}.finished"
        with FileLock(self.root / f"{name}.lock"):
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                finished.touch()
        return folder

    def run(self, name: str, *words: str | Path, env: dict[str, str] | None = None) -> tuple[Path, Answer]:
        """Return a run of `ractd train` with these words and the command's answer; the folder is to be copied."""

        def train(folder: Path) -> None:
            answer = call_command("train", *words, "--out", folder / "run", env=env)
            assert answer.code == 0, answer.out + answer.err
            (folder / "answer.json").write_text(json.dumps(asdict(answer)))

        folder = self.get(name, train)
        return folder / "run", Answer(**json.loads((folder / "answer.json").read_text()))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Shared:
    """What the workers share."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "shared"
    root.mkdir(exist_ok=True)
    return Shared(root)


@pytest.fixture(scope="session")
def pendulum(shared: Shared) -> Path:
    """A dataset that names its environment; read only."""
    return shared.get("data", lambda folder: write_hdf5(folder / "pendulum.hdf5", pendulum_data())) / "pendulum.hdf5"


@dataclass(frozen=True)
class Trained:
    """A finished run of the tiny settings and how its command answered; tests copy it before they change it."""

    directory: Path
    dataset: Path
    answer: Answer


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, shared: Shared, pendulum: Path) -> Trained:
    """One uninterrupted run, start to end, in a folder of this worker's own."""
    made, answer = shared.run("trained", pendulum, *options())
    directory = tmp_path_factory.mktemp("runs") / "trained"
    shutil.copytree(made, directory)
    out, err = (text.replace(str(made), str(directory)) for text in (answer.out, answer.err))
    return Trained(directory, pendulum, Answer(answer.code, out, err))


def assert_same_tensors(a: Path, b: Path) -> None:
    """Both safetensors files hold the same tensors, bit for bit."""
    from safetensors.numpy import load_file

    left, right = load_file(a), load_file(b)
    assert left.keys() == right.keys()
    different = [name for name in left if left[name].tobytes() != right[name].tobytes()]
    assert not different, f"{a} and {b} differ in {different}"
