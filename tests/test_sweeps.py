"""Sweeps: every trial ends in its outcome, whatever is killed, missing or wrong. Its tables are in test_sweep_summary.py."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from conftest import Answer, environment, pendulum_data, rows_of, started
from filelock import FileLock
from rich.console import Console
from rich.live import Live

from ractd.data import write_hdf5
from ractd.errors import RactdError
from ractd.results.comparison import MethodRun, read_methods
from ractd.sweeps import Outcome, Trial, run_trials, workers
from ractd.sweeps.grid import label, note_commands, runs_of, trial
from ractd.sweeps.progress import Progress, Running
from ractd.sweeps.summary import summarize

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
QUICK = {
    "--teacher.parametrization": "ddpm",
    "--teacher.ddpm.timesteps": "5",
    "--return-model.optimization.steps": "20",
    "--teacher.optimization.steps": "20",
    "--evaluation.episodes": "2",
}
"""Trains and scores a teacher alone, in a second or two."""


def quick(**changes: str) -> list[str]:
    return [word for pair in {**QUICK, **changes}.items() for word in pair]


def data_trial(name: str, directory: Path, steps: int = 600, needs: tuple[str, ...] = ()) -> Trial:
    """A short command that makes a file."""
    words = ("data", "make", "maze2d-umaze", "--steps", str(steps), "--directory", str(directory / name))
    return Trial(name, words, (directory / name / "maze2d-umaze.hdf5").exists, needs)


def failing_trial(name: str, directory: Path) -> Trial:
    return Trial(name, ("data", "validate", str(directory / "nothing.npz")), lambda: False)


def states(outcomes: list[Outcome]) -> dict[str, tuple[str, int]]:
    return {outcome.trial.name: (outcome.state, outcome.attempts) for outcome in outcomes}


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def is_free(run: Path) -> bool:
    """Nobody holds the run directory."""
    lock = FileLock(run / ".lock", blocking=False)
    try:
        lock.acquire()
    except TimeoutError:
        return False
    lock.release()
    return True


# The engine.


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)


def chain(directory: Path) -> list[Trial]:
    return [
        data_trial("late", directory, needs=("early",)),
        data_trial("early", directory),
        failing_trial("bad", directory),
        data_trial("after-bad", directory, needs=("bad", "early")),
        data_trial("after-that", directory, needs=("after-bad",)),
    ]


def assert_chain(outcomes: list[Outcome], directory: Path) -> None:
    assert states(outcomes) == {
        "late": ("done", 1),
        "early": ("done", 1),
        "bad": ("failed", 2),
        "after-bad": ("not run", 0),
        "after-that": ("not run", 0),
    }
    reasons = {outcome.trial.name: outcome.reason for outcome in outcomes}
    assert reasons["bad"] == f"{directory / 'nothing.npz'}: no such file"
    assert reasons["after-bad"] == "it needs bad, which failed"
    assert reasons["after-that"] == "it needs after-bad, which was not run"
    assert text_of(directory / "logs" / "bad.log").count("$ ractd data validate") == 2
    assert not (directory / "logs" / "after-bad.log").exists()
    files = [directory / name / "maze2d-umaze.hdf5" for name in ("early", "late")]
    assert files[0].stat().st_mtime_ns < files[1].stat().st_mtime_ns


def test_without_ray_it_runs_one_after_the_other_and_says_so(
    tmp_path: Path, no_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = run_trials(chain(tmp_path), tmp_path / "logs", jobs=2, console=Console(width=200))
    assert_chain(outcomes, tmp_path)
    said = capsys.readouterr().out
    assert 'Ray is not installed: one trial at a time instead of 2 (pip install "ractd[sweeps]")' in said
    assert "bad: trying once more" in said
    assert f"log: {tmp_path / 'logs' / 'bad.log'}" in said
    again = run_trials(chain(tmp_path)[:2], tmp_path / "logs")
    assert states(again) == {"late": ("was done", 0), "early": ("was done", 0)}


@pytest.mark.slow
def test_ray_runs_the_same_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    outcomes = run_trials(chain(tmp_path), tmp_path / "logs", jobs=2, console=Console(width=200))
    assert_chain(outcomes, tmp_path)
    printed = capsys.readouterr()
    assert printed.err == "", "Ray's own messages are not for the user"
    assert all(line.split(":")[0] in {t.name for t in chain(tmp_path)} for line in printed.out.splitlines())


@pytest.mark.slow
def test_trials_of_ray_end_with_the_sweep_that_is_killed(tmp_path: Path, pendulum: Path) -> None:
    pytest.importorskip("ray")
    out, log = tmp_path / "sweep", tmp_path / "log"
    command: list[str | Path] = ["sweep", pendulum, "--jobs", "2", "--seeds", "2", "--out", out, "--"]
    runs = [out / f"pendulum-s{seed}" for seed in (0, 1)]
    with started(*command, *quick(**{"--teacher.optimization.steps": "1000000"}), log=log) as process:
        wait_until(lambda: all("teacher: training" in text_of(run / "log.txt") for run in runs), "both train")
        assert not any(is_free(run) for run in runs)
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: all(is_free(run) for run in runs), "both runs are let go", seconds=30)


def test_a_terminal_shows_what_runs_and_for_how_long() -> None:
    screen = io.StringIO()
    now = time.monotonic()
    console = Console(force_terminal=True, width=100, file=screen)
    with Live(console=console, transient=True, auto_refresh=False) as live:
        progress = Progress(live, trials=4, done=1)
        progress.ended("first", "done", 120.0, "")
        progress.show([Running("second", 2, now - 50, "teacher: step 7"), Running("third", 1, None, "")])
    lines = [line.split() for line in screen.getvalue().splitlines()]
    assert any({"second", "2", "50", "teacher:"} <= set(words) for words in lines)
    assert any({"third", "1", "waiting"} <= set(words) for words in lines)
    # Two are left, of 120 s each; one of them has run for 50.
    assert "2 of 4 are over, 1 running, about 3 min left" in screen.getvalue()


def short_long_short(directory: Path) -> list[Trial]:
    """Three trials, of which the second is still at work when it is killed."""
    return [data_trial(name, directory, steps) for name, steps in (("a", 600), ("b", 300_000), ("c", 600))]


DRIVER = """
import sys
from pathlib import Path
from test_sweeps import short_long_short
from ractd.sweeps import run_trials
directory = Path(sys.argv[1])
run_trials(short_long_short(directory), directory / "logs")
"""


def test_a_killed_sweep_goes_on_with_what_is_left(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], env={**environment(), "PYTHONPATH": path})
    log = tmp_path / "logs" / "b.log"
    wait_until(lambda: log.exists() or driver.poll() is not None, "the second trial begins")
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    wait_until(lambda: is_free(log.parent), "what it had begun ends with it", seconds=30)
    trials = short_long_short(tmp_path)
    assert [trial.done() for trial in trials] == [True, False, False]
    outcomes = run_trials(trials, tmp_path / "logs")
    assert states(outcomes) == {"a": ("was done", 0), "b": ("done", 1), "c": ("done", 1)}
    assert text_of(log).count("$ ractd data make") == 2


@pytest.mark.slow
def test_ctrl_c_lets_trials_save_and_says_how_to_go_on(tmp_path: Path, pendulum: Path) -> None:
    out, log = tmp_path / "sweep", tmp_path / "log"
    options = quick(**{"--teacher.optimization.steps": "1000000"})
    with started("sweep", pendulum, "--seeds", "2", "--out", out, "--", *options, log=log) as process:
        wait_until(lambda: "teacher: training" in text_of(out / "pendulum-s0" / "log.txt"), "it trains")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    said = log.read_text()
    assert "pendulum-s0: stopped" in said
    assert f"go on from the last checkpoint with: ractd sweep {pendulum} --seeds 2" in said
    assert "stopped and saved; go on with: ractd train" in text_of(out / "logs" / "pendulum-s0.log")
    assert (out / "pendulum-s0" / "checkpoints" / "teacher" / "last.safetensors").exists()
    assert not (out / "pendulum-s1").exists()
    assert not (out / "sweep.md").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "--jobs is 0, expected 1 or more"),
        ({"cpus": 0}, "--cpus is 0, expected more than 0"),
        ({"cpus": 1.5}, "--cpus is 1.5, expected a whole number or less than 1"),
        ({"gpus": -1}, "--gpus is -1, expected 0 or more"),
        ({"jobs": 2, "ray_address": "auto"}, "--jobs is for this machine"),
        ({"ray_address": "somewhere"}, "expected HOST:PORT"),
        ({"ray_address": "ray://head:10001"}, "expected HOST:PORT"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, object], message: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(RactdError, match=message):
        run_trials([data_trial("a", tmp_path)], tmp_path / "logs", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "logs" / "a.log").exists()


def test_an_address_where_no_cluster_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    assert workers.ANSWER_SECONDS + workers.JOIN_SECONDS < 15
    trials = [data_trial("a", tmp_path)]
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RactdError, match=rf"--ray-address {address}: no Ray cluster answers there"):
            run_trials(trials, tmp_path / "logs", ray_address=address)
        silent.listen()
        monkeypatch.setattr(workers, "JOIN_SECONDS", 2.0)
        with pytest.raises(RactdError, match=rf"--ray-address {address}: something answers, but not as a Ray cluster"):
            run_trials(trials, tmp_path / "logs", ray_address=address)


def test_a_sweep_runs_once_at_a_time(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    with FileLock(logs / ".lock"), pytest.raises(RactdError, match="another process is running this sweep"):
        run_trials([data_trial("a", tmp_path)], logs)


@pytest.mark.parametrize(
    ("names", "needs"), [(("a", "a"), ()), (("a", "../b"), ()), (("a", "b"), ("c",)), (("a", "b"), ("b",))]
)
def test_trials_that_can_not_be_a_sweep(tmp_path: Path, names: tuple[str, str], needs: tuple[str, ...]) -> None:
    trials = [Trial(names[0], ("data", "list"), lambda: False), Trial(names[1], ("data", "list"), lambda: False, needs)]
    with pytest.raises(ValueError, match=r"trial|cycle"):
        run_trials(trials, tmp_path / "logs")


# The command.


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_table_of_one_that_was_not(cli: Callable[..., Answer], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    dataset = tmp_path / "pendulum.hdf5"
    write_hdf5(dataset, pendulum_data(300, env_id=None))
    words: list[str | Path] = ["sweep", dataset, "--vary", "teacher.network.width", "16", "32", "--seeds", "1"]
    whole, out, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    answer = cli(*words, "--out", whole, "--jobs", "2", "--", *quick())
    assert answer.code == 0, answer.out + answer.err
    assert "teacher.network.width 32" in (whole / "sweep.md").read_text()
    command: list[str | Path] = [*words, "--out", out, "--", *quick()]
    first, second = (out / f"pendulum-teacher.network.width={width}-s0" for width in (16, 32))
    with started(*command, log=log) as process:
        wait_until(lambda: (second / "config.json").exists() or process.poll() is not None, "the second begins")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, log.read_text()
    assert (first / "result.json").exists()
    wait_until(lambda: is_free(second), "the trial ends with its sweep", seconds=30)
    assert not (second / "result.json").exists()
    assert not (out / "sweep.md").exists()
    answer = cli(*command)
    assert answer.code == 0, answer.out + answer.err
    assert "1 of 2 trials are done already" in answer.out
    tables = [pandas.read_csv(each / "sweep.csv").drop(columns="processor_seconds") for each in (whole, out)]
    pandas.testing.assert_frame_equal(*tables, check_exact=True)
    content = json.loads((out / "sweep.json").read_text())
    rows = [rows_of(run)["teacher"] for run in (first, second)]
    assert [line["value"] for line in content["values"]] == [row.estimated_return for row in rows]
    assert {row.threads for row in rows} == {1}, "its one CPU, whatever the environment says"
    assert (out / "profiles.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "teacher.network.widht", "1", "2"], "--teacher.network.width"),
        (["--vary", "teacher.network.width", "16", "wide"], "invalid literal"),
        (
            ["--vary", "teacher.network.width", "16", "0"],
            "--teacher.network.width is 0, expected a whole number from 1",
        ),
        (["--vary", "teacher.network.width"], "expected an option and its values"),
        (["--vary", "seed", "1", "2"], "--vary seed: not for a sweep; use --seeds"),
        (["--seeds", "0"], "--seeds is 0, expected 1 or more"),
        (["--jobs", "0"], "--jobs is 0, expected 1 or more"),
        (["--", "--out", "elsewhere"], "--out after '--': not for a sweep"),
        (["nothing.npz"], "nothing.npz: no such file"),
        (["nothing", "more/nothing.npz"], "two of the datasets are called 'nothing'"),
    ],
)
def test_a_mistake_is_named_before_anything_starts(
    cli: Callable[..., Answer], tmp_path: Path, pendulum: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "sweep"
    datasets = [] if arguments[0].startswith("nothing") else [pendulum]
    answer = cli("sweep", *datasets, "--out", out, *arguments)
    assert answer.code == 2
    assert message in " ".join(answer.err.replace("│", " ").split())
    assert not out.exists()


def test_runs_of_other_settings_do_not_pass_for_finished(
    cli: Callable[..., Answer], tmp_path: Path, pendulum: Path
) -> None:
    out = tmp_path / "sweep"
    out.mkdir()
    name = "pendulum-horizon=2-s0"
    before = ["train", str(pendulum), "--no-report", "--horizon", "2", "--seed", "0", "--out", str(out / name)]
    (out / "commands.json").write_text(json.dumps({name: before}))
    command = ["sweep", pendulum, "--vary", "horizon", "2", "--seeds", "1", "--out", out]
    answer = cli(*command, "--", "--history", "2")
    assert answer.code == 2
    assert f"{out / name}: --history was not given when it was begun, and is '2' now" in answer.err
    (out / name).mkdir()
    for known, said in (({}, f"{out / name}: was not made by this sweep"), (None, f"{out}: is not empty and no sweep")):
        (out / "commands.json").unlink()
        if known is not None:
            (out / "commands.json").write_text(json.dumps(known))
        answer = cli(*command)
        assert answer.code == 2
        assert said in answer.err


@pytest.mark.parametrize(
    ("varied", "word"),
    [
        ("student.reward-weight", "--reward-weight"),
        ("reward-weight", "--student.reward-weight"),
        ("student.network.width", "--student-network"),
    ],
)
def test_an_option_by_its_other_name_is_given_once(varied: str, word: str) -> None:
    with pytest.raises(RactdError, match=f"{word} after '--': this option is varied"):
        runs_of(["hop.hdf5"], [[varied, "0.1", "1"]], 1, [word, "3"])


def test_hidden_files_and_other_spellings_of_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (run,) = runs_of([".logs.hdf5"], [], 1, [])
    assert run.name == "logs-s0"
    note_commands([trial(run, Path("sweep"), [])], Path("sweep"))
    note_commands([trial(run, tmp_path / "sweep", [])], tmp_path / "sweep")


def test_a_damaged_result_is_no_finished_run(tmp_path: Path) -> None:
    runs = runs_of(["hop.hdf5"], [], 1, [])
    (tmp_path / runs[0].name).mkdir()
    (tmp_path / runs[0].name / "result.json").write_text("{")
    assert not trial(runs[0], tmp_path, []).done()
    assert summarize(runs, tmp_path) is None
    run = MethodRun("hop", "ractd", 0, tmp_path / runs[0].name)
    assert read_methods([run], (), tmp_path / "times.json", 1) is None


def test_every_combination_once(tmp_path: Path) -> None:
    runs = runs_of(["a/hop.hdf5", "d4rl/walk-v2"], [["x.y", "1", "0.5"], ["--z_z", "auto"]], 2, ["--preset", "demo"])
    assert len(runs) == len({run.name for run in runs}) == 2 * 2 * 2
    assert runs[0].name == "hop-x.y=1-z-z=auto-s0"
    assert runs[-1].name == "d4rl-walk-v2-x.y=0.5-z-z=auto-s1"
    words = "train a/hop.hdf5 --no-report --preset demo --x.y 1 --z-z auto --seed 0"
    assert runs[0].options(["--preset", "demo"]) == tuple(words.split())
    assert label(runs[0].setting) == "x.y 1, z-z auto"
