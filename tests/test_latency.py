"""Times are measured in turns, with their spread, and it is said when the machine was busy. No time is asserted."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Answer, Trained, options
from report_factory import make_run
from rich.console import Console

from ractd.policies import Policy
from ractd.processors import cores
from ractd.report.contents import read_contents
from ractd.report.tables import protocol
from ractd.runs import latency
from ractd.runs.latency import FEWEST, Load, busy_sentence, time_in_turns, time_policies
from ractd.runs.rows import Result, read_result
from ractd.runs.tables import table_of

Command = Callable[..., Answer]
BUSY = {"waiting": 7.9, "others": 1.94, "cores": 2, "busy": True}
SAID = (
    "The machine was busy while times were measured (others used 1.9 of 2 cores): they may be up to 7.9 times too long."
)


def sleeper(seconds: float, label: str, order: list[str]) -> Callable[[], None]:
    """A policy's call that takes a known time and says that it was called."""

    def call() -> None:
        order.append(label)
        time.sleep(seconds)

    return call


def work() -> None:
    """A millisecond or so of a processor."""
    sum(range(40_000))


@pytest.fixture
def load() -> Iterator[None]:
    """Two processes a core that do nothing but compute."""
    code = "print(flush=True)\nwhile True: pass"
    burners = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2 * cores())]
    try:
        for burner in burners:
            assert burner.stdout is not None
            assert burner.stdout.readline() == b"\n"
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def test_policies_are_timed_in_turns() -> None:
    order: list[str] = []
    durations = {"student": 0.001, "two steps": 0.003, "teacher": 0.03}
    calls = {label: sleeper(seconds, label, order) for label, seconds in durations.items()}
    times, _ = time_in_turns(calls, 0.2)
    labels = list(durations)
    assert order[: len(labels)] == labels, "a call of each before the clock starts"
    turns = [label for label, _ in itertools.groupby(order[len(labels) :])]
    assert len(turns) >= FEWEST * len(labels)
    assert turns == labels * (len(turns) // len(labels)), "round by round, each as often as the others"
    assert {label: len(each) for label, each in times.items()} == {label: order.count(label) - 1 for label in labels}
    for label, each in times.items():
        assert len(each) >= FEWEST
        assert min(each) >= durations[label] * 0.9, "a sleep is never shorter"


def test_slow_calls_are_made_a_few_times_and_no_more() -> None:
    order: list[str] = []
    time_in_turns({label: sleeper(latency.TURN, label, order) for label in "ab"}, 0.0)
    assert order == list("ab") * (1 + FEWEST)


def test_a_busy_machine_is_said_to_be_busy(load: None) -> None:
    def longer() -> None:
        for _ in range(20):
            work()

    times, found = time_in_turns({"a": work, "b": longer}, 1.5)
    assert found.busy, found
    assert found.waiting > 1, "calls had to wait for a core"
    assert busy_sentence(found.to_dict()).startswith("The machine was busy while times were measured")
    assert all(len(each) >= FEWEST for each in times.values())


@pytest.mark.parametrize(
    ("waiting", "others", "of", "busy"),
    [
        (1.0, 0.0, 2, False),
        (1.05, 0.3, 2, False),
        (1.0, 1.0, 2, True),
        (1.0, 1.0, 64, False),
        (1.0, 40.0, 64, True),
        (1.5, 0.0, 2, True),
        (1.5, None, 8, True),
        (1.0, None, 8, False),
    ],
)
def test_what_is_busy(waiting: float, others: float | None, of: int, busy: bool) -> None:
    found = Load(waiting, others, of)
    assert found.busy is busy
    said = busy_sentence(json.loads(json.dumps(found.to_dict())))
    assert bool(said) is busy
    assert ("of" in said) is (busy and others is not None)
    assert ("1.5 times too long" in said) is (waiting == 1.5)


def test_a_result_of_before_says_nothing_of_load() -> None:
    assert busy_sentence(None) == ""


def test_a_system_that_does_not_tell_what_others_do_is_judged_by_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", refuse)
    _, found = time_in_turns({"a": work}, 0.05)
    assert found.others is None
    assert found.waiting >= 1


def test_a_row_has_median_and_spread(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy.load(trained.directory)
    seconds = np.linspace(0.001, 0.101, 101).tolist()
    monkeypatch.setattr(latency, "time_in_turns", lambda calls, _: ({name: seconds for name in calls}, Load(1, 0, 2)))
    rows, found = time_policies({"RACTD": policy})
    assert rows["RACTD"] == pytest.approx({"ms_per_action": 51, "ms_low": 11, "ms_high": 91})
    assert found == {"waiting": 1, "others": 0, "cores": 2, "busy": False}


def test_a_run_times_its_policies_at_its_end_and_again_where_it_ended_before(
    trained: Trained, tmp_path: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(trained.directory, tmp_path / "run")
    finished = read_result(run)
    assert finished is not None
    assert finished.content["load"].keys() == BUSY.keys()
    for row in finished.rows:
        assert 0 < (row.ms_low or 0) <= (row.ms_per_action or 0) <= (row.ms_high or 0)
    untimed = tuple(replace(row, ms_per_action=None, ms_low=None, ms_high=None) for row in finished.rows)
    content = {key: value for key, value in finished.content.items() if key != "load"}
    Result(run, content | {"complete": False}, untimed).write(run / "result.json")
    timed: list[list[tuple[str, str]]] = []
    real = latency.time_in_turns

    def busy(calls: Any, seconds: float) -> Any:
        timed.append(list(calls))
        return real(calls, seconds)[0], Load(7.9, 1.94, 2)

    monkeypatch.setattr(latency, "time_in_turns", busy)
    answer = cli("train", trained.dataset, "--out", run, *options())
    assert answer.code == 0, answer.err
    assert [set(each) for each in timed] == [{(row.variant, row.policy) for row in finished.rows}], "all in one go"
    again = read_result(run)
    assert again is not None
    for before, row in zip(finished.rows, again.rows, strict=True):
        assert None not in (row.ms_low, row.ms_per_action, row.ms_high)
        times = {name: getattr(before, name) for name in ("ms_low", "ms_per_action", "ms_high")}
        assert replace(row, **times) == before, "nothing was played again"
    assert again.content["load"] == BUSY
    assert SAID in " ".join(answer.out.split())


def test_an_evaluation_is_timed_beside_the_run_s_student(trained: Trained, tmp_path: Path, cli: Command) -> None:
    run = shutil.copytree(trained.directory, tmp_path / "run")
    for words, beside in ((("--policy", "teacher"), True), (("--steps", "2"), True), ((), False)):
        shutil.rmtree(run / "evaluations", ignore_errors=True)
        answer = cli("eval", run, "--episodes", "1", *words)
        assert answer.code == 0, answer.err
        (path,) = (run / "evaluations").iterdir()
        content = json.loads(path.read_text())
        assert content["load"].keys() == BUSY.keys()
        assert content["rows"][0]["ms_per_action"] > 0
        assert ("beside" in content) is beside
        assert ("times that of student, timed in turns with it" in answer.out) is beside


def shown(table: Any) -> str:
    """A table's text in one line."""
    text = io.StringIO()
    Console(width=200, file=text).print(table)
    return " ".join(text.getvalue().replace("│", " ").split())


def test_tables_show_the_spread_and_say_that_the_machine_was_busy(trained: Trained) -> None:
    result = read_result(trained.directory)
    assert result is not None
    rows = [replace(row, ms_per_action=1.0, ms_low=0.5, ms_high=2.0) for row in result.rows]
    (at,) = (index for index, row in enumerate(rows) if row.variant == "teacher")
    rows[at] = replace(rows[at], ms_per_action=47.0, ms_low=46.5, ms_high=371.25)
    results = [Result(trained.directory, result.content | {"load": load}, tuple(rows)) for load in (BUSY, None)]
    busy, idle = (shown(table_of(each)) for each in results)
    for said in (busy, idle):
        assert " 47.00 " in said
        assert "80% of calls within 0.5 to 7.9 times these" in said
    assert SAID in busy
    assert "busy" not in idle
    said = shown(
        table_of(Result(Path(), {"beside": {"policy": "student", "ms_per_action": 0.25}, "load": BUSY}, (rows[at],)))
    )
    assert "47.00 [46.50, 371.25] ms" in said
    assert "188 times that of student" in said
    assert SAID in said
    assert "busy" not in shown(table_of(Result(Path(), {"complete": True}, (rows[at],))))


def test_rows_that_were_not_timed_are_shown(trained: Trained) -> None:
    result = read_result(trained.directory)
    assert result is not None
    untimed = tuple(replace(row, ms_per_action=None, ms_low=None, ms_high=None) for row in result.rows)
    content = {key: value for key, value in result.content.items() if key != "load"}
    said = shown(table_of(Result(trained.directory, content, untimed)))
    assert "RACTD, 2 steps" in said
    assert "80% of calls" not in said


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (BUSY, True),
        (None, False),
        (BUSY | {"busy": False}, False),
        (BUSY | {"waiting": "a lot"}, False),
        ("busy", False),
    ],
)
def test_a_report_says_so_too_and_survives_what_is_damaged(load: Any, said: bool, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    content = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(content | {"load": load}))
    assert (SAID in protocol(read_contents(run, "run"))) is said
