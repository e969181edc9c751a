"""Metrics in trackio and Weights & Biases: the real packages, on this machine alone."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest
from accelerate import PartialState
from conftest import STEPS, Trained, options, run_command

from ractd.errors import RactdError
from ractd.runs.directory import read_run
from ractd.runs.rows import read_result
from ractd.runs.train import train
from ractd.training.tracking import tracking


def logged(folder: Path) -> dict[str, list[dict[str, float]]]:
    """What trackio has of each run, in order."""
    with sqlite3.connect(folder / "ractd.db") as database:
        rows = database.execute("SELECT run_name, metrics FROM metrics ORDER BY id").fetchall()
    runs: dict[str, list[dict[str, float]]] = {}
    for name, metrics in rows:
        runs.setdefault(name, []).append(json.loads(metrics))
    return runs


@pytest.mark.slow
def test_a_run_that_goes_on_is_one_run_in_trackio_with_the_metrics_of_its_file(tmp_path: Path, pendulum: Path) -> None:
    run, folder = tmp_path / "walk", tmp_path / "trackio"
    for only in ("return", "teacher"):
        answer = run_command(
            *("train", pendulum, "--out", run, *options(), "--only", only, "--track", "trackio"),
            env={"TRACKIO_DIR": str(folder)},
        )
        assert answer.code == 0, answer.out + answer.err
    ((name, entries),) = logged(folder).items()
    assert name.startswith("walk-")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    wanted = [{f"{line['stage']}/{key}": line[key] for key in line if key != "stage"} for line in lines]
    assert [entry for entry in entries if "teacher/step" in entry or "return/step" in entry] == wanted
    assert wanted[-1]["teacher/step"] == STEPS


def test_scores_are_there_in_the_end(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    PartialState()  # as in a training
    result = read_result(trained.directory)
    assert result is not None
    with tracking("trackio", trained.directory, read_run(trained.directory)) as tracked:
        tracked.scores(result.scores())
    (entries,) = logged(tmp_path).values()
    found = {key: value for entry in entries for key, value in entry.items()}
    assert found["mean_return/RACTD"] == result.row("RACTD").mean_return
    assert not any(key.startswith("mean_score/") for key in found), "Pendulum has no reference scores"


@pytest.mark.slow
def test_weights_and_biases_gets_the_same_offline(tmp_path: Path, pendulum: Path) -> None:
    run = tmp_path / "run"
    words: list[str | Path] = ["train", pendulum, "--out", run, *options(), "--only", "teacher", "--track", "wandb"]
    answer = run_command(*words, env={"WANDB_MODE": "offline"})
    assert answer.code == 0, answer.out + answer.err
    (written,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    content = written.read_bytes()
    assert b"teacher/dsm" in content
    assert b"teacher/step" in content


@pytest.mark.slow
def test_a_service_that_refuses_is_an_error_in_a_sentence(tmp_path: Path, pendulum: Path) -> None:
    words: list[str | Path] = [
        "train",
        pendulum,
        "--out",
        tmp_path / "run",
        *options(),
        "--only",
        "teacher",
        "--track",
        "wandb",
    ]
    answer = run_command(*words, env={"WANDB_MODE": "online", "WANDB_API_KEY": "", "HOME": str(tmp_path)})
    assert answer.code == 2
    assert "error: --track wandb: can't begin" in answer.err.replace("\n", " ")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_service_that_is_not_installed_is_said_before_anything_is_made(
    tmp_path: Path, pendulum: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RactdError, match=r"wandb is not installed: pip install 'ractd\[track\]'"):
        train(str(pendulum), out=tmp_path / "run", track="wandb")
    assert not (tmp_path / "run").exists()
