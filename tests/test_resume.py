"""Runs that are killed, interrupted, run twice at once or run out of disk end as if nothing had happened."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import STEPS, Answer, Trained, assert_same_tensors, call_command, options, rows_of, run_command, started

from ractd.errors import RactdError
from ractd.networks.tensors import read_header
from ractd.training import loop
from ractd.training.metrics import Metrics

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")
POLICIES = ("teacher", "plain", "student")


def arguments(trained: Trained, out: Path) -> list[str | Path]:
    """The command of the uninterrupted run, with a checkpoint whenever there can be one."""
    return ["train", trained.dataset, "--out", out, *options(), "--checkpoint-seconds", "0"]


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 900
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode}: {log.read_text()}"
        assert time.monotonic() < deadline, f"nothing happened: {log.read_text()}"
        time.sleep(0.005)


def checkpoint(run: Path, stage: str) -> Path:
    return run / "checkpoints" / stage / "last.safetensors"


def without_student(trained: Trained, out: Path) -> Path:
    """A copy of the finished run that has its student still to train."""
    shutil.copytree(trained.directory, out)
    for part in ("checkpoints", "policy", "tensorboard"):
        shutil.rmtree(out / part / "student")
    (out / "result.json").unlink()
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["stage"] != "student"))
    return out


def assert_same_run(out: Path, trained: Trained) -> None:
    """Weights bit for bit, and one metrics line per stage and step, with the same losses."""
    for name in POLICIES:
        assert_same_tensors(*(run / "policy" / name / "policy.safetensors" for run in (out, trained.directory)))

    def losses(run: Path) -> list[tuple[str, int, float]]:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [(line["stage"], line["step"], line["loss"]) for line in lines]

    assert losses(out) == losses(trained.directory)
    assert not list(out.rglob("*.partial")), "half-written files are cleaned up"


@pytest.mark.slow
def test_killed_at_three_random_moments(trained: Trained, tmp_path: Path) -> None:
    out, log, rng = tmp_path / "run", tmp_path / "output.txt", random.Random(20_240)
    words, reached = arguments(trained, out), {}
    for stage in ("return", "teacher", "student"):
        with started(*words, log=log) as process:
            wait_until(checkpoint(out, stage).exists, process, log)
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
            assert process.wait() == -signal.SIGKILL, f"the {stage} ended before it could be killed"
        reached[stage] = read_header(checkpoint(out, stage))["step"]
    assert 0 < reached["student"] < STEPS, "killed in the middle"
    final = run_command(*words)
    assert final.code == 0, final.err
    assert f"student: going on at step {reached['student']}" in final.out
    assert_same_run(out, trained)
    rows = rows_of(out)
    for label, row in rows_of(trained.directory).items():
        assert rows[label].returns == row.returns, label
    commands = json.loads((out / "config.json").read_text())["invocations"]
    assert len(commands) == 4, "every invocation is on record"


def test_a_second_process_is_refused_and_ctrl_c_saves(
    trained: Trained, tmp_path: Path, cli: Callable[..., Answer]
) -> None:
    out, log = without_student(trained, tmp_path / "run"), tmp_path / "output.txt"
    words = arguments(trained, out)
    with started(*words, log=log) as process:
        wait_until(checkpoint(out, "student").exists, process, log)
        # Stopped in its tracks, the first process can't finish before the second one is refused.
        process.send_signal(signal.SIGSTOP)
        second = cli(*words)
        assert second.code == 2
        assert "another process is using this run" in second.err
        assert str(out) in second.err
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=600) == 130
    said = log.read_text()
    assert "stopped and saved; go on with: ractd train" in said
    assert str(out) in said.partition("go on with:")[2]
    assert "Traceback" not in said
    saved = read_header(checkpoint(out, "student"))["step"]
    assert 0 < saved < STEPS
    rest = cli(*words, "--only", "student")
    assert rest.code == 0, rest.err
    assert f"student: going on at step {saved}" in rest.out
    assert_same_run(out, trained)


class Crash(BaseException):
    """Ends a training that nothing expects to end."""


@pytest.fixture(scope="module")
def early(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended right after the first checkpoint of its first stage."""
    out = tmp_path_factory.mktemp("early") / "run"
    save = loop.save_checkpoint

    def save_and_crash(*of: Any) -> None:
        save(*of)
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save_and_crash)
        with pytest.raises(Crash):
            call_command(*arguments(trained, out), "--only", "return")
    return out


@pytest.fixture
def stopped(early: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(early, tmp_path / "run"))


def assert_return_stage_ends_as_in(trained: Trained, out: Path, cli: Callable[..., Answer]) -> None:
    rest = cli(*arguments(trained, out), "--only", "return")
    assert rest.code == 0, rest.err
    for name in ("last", "best"):
        path = Path("checkpoints") / "return" / f"{name}.safetensors"
        assert_same_tensors(out / path, trained.directory / path)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(50, STEPS + 1, 50))


def test_a_full_disk_is_said_and_loses_nothing(stopped: Path, trained: Trained, cli: Callable[..., Answer]) -> None:
    before, limit = checkpoint(stopped, "return").read_bytes(), 100_000
    assert len(before) > limit

    largest = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, largest[1]))
    try:
        done = cli(*arguments(trained, stopped), "--only", "return")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, largest)
    assert done.code == 2, done.out + done.err
    (line,) = done.err.splitlines()
    assert line.startswith(f"error: {checkpoint(stopped, 'return').parent}")
    assert "could not be written" in line
    assert checkpoint(stopped, "return").read_bytes() == before
    assert not list(stopped.rglob("*.partial"))
    assert_return_stage_ends_as_in(trained, stopped, cli)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_metrics_on_a_full_disk_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.begin("return", 0, 100)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    metrics.log("return", 50, {"loss": 1.0})
    with pytest.raises(RactdError, match=r"metrics\.jsonl: could not be written .*No space left"):
        metrics.flush()
    metrics.close()


def test_a_torn_line_of_metrics_is_dropped(stopped: Path, trained: Trained, cli: Callable[..., Answer]) -> None:
    with open(stopped / "metrics.jsonl", "a") as file:
        file.write('{"stage": "return", "st')
    assert_return_stage_ends_as_in(trained, stopped, cli)


def test_a_damaged_checkpoint_is_named_and_left(stopped: Path, trained: Trained, cli: Callable[..., Answer]) -> None:
    path = checkpoint(stopped, "return")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\x80\x04garbage" * 100):
        path.write_bytes(damaged)
        answer = cli(*arguments(trained, stopped), "--only", "return")
        assert answer.code == 2, answer.out
        (line,) = answer.err.splitlines()
        assert line.startswith(f"error: {path}: ")
        assert path.read_bytes() == damaged


def test_a_run_that_moves_to_another_processor_says_so(
    stopped: Path, trained: Trained, cli: Callable[..., Answer]
) -> None:
    path = stopped / "config.json"
    content = json.loads(path.read_text())
    here = content["invocations"][-1]["computed_by"]
    assert here["torch"] == torch.__version__
    assert here["precision"] == "fp32"
    same = cli(*arguments(trained, stopped), "--only", "return")
    assert same.code == 0, same.err
    assert "began elsewhere" not in same.out

    content["invocations"][-1]["computed_by"] = here | {"processor": "an abacus"}
    path.write_text(json.dumps(content))
    moved = cli(*arguments(trained, stopped), "--only", "return")
    assert moved.code == 0, moved.err
    assert f"began elsewhere (processor an abacus, now {here['processor']})" in " ".join(moved.out.split())


def test_precision_belongs_to_the_run(stopped: Path, trained: Trained, cli: Callable[..., Answer]) -> None:
    other = cli(*arguments(trained, stopped), "--precision", "bf16")
    assert other.code == 2
    assert "config.precision is 'auto' there and 'bf16' now" in " ".join(other.err.split())
