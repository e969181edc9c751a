"""Comparisons: one of two methods and two seeds, stopped and gone on with, as its users see it; its numbers against the runs'."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from conftest import Answer, Shared, call_command, pendulum_data, run_command, started
from report_factory import measured
from scipy.stats import t

import ractd
from ractd.cli import parse
from ractd.commands.compare import PLAYED, Compare, setting_of
from ractd.commands.train import settings_of
from ractd.data import write_hdf5
from ractd.errors import RactdError
from ractd.methods import METHODS
from ractd.results.comparison import MethodRows, MethodRun, read_methods
from ractd.runs.rows import Result, read_result
from ractd.sweeps.grid import note_commands, runs_with, trial

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
NAMED = ("bc:share=0.1,optimization.steps=30", "iql:optimization.steps=30")
OPTIONS = ("--evaluation.episodes", "3", "--evaluation.checkpoints", "2", "--evaluation.checkpoint-episodes", "2")
RUNS = [f"pendulum-{method}_optimization.steps=30-s{seed}" for method in ("bc_share=0.1", "iql") for seed in (0, 1)]


@dataclass(frozen=True)
class Compared:
    """A comparison that went on with what was there."""

    out: Path
    words: list[str]
    answer: Answer
    """Of the command that went on, two at a time."""


def begun(out: Path, pendulum: Path, *done: int) -> list[str]:
    """Train some of the four runs as a comparison would, in this process, and return the comparison's words."""
    words = ["compare", str(pendulum), "--methods", *NAMED, "--seeds", "2", "--out", str(out)]
    asked = parse(words)
    assert isinstance(asked, Compare)
    trials = [trial(run, out, (*PLAYED, *OPTIONS)) for run in asked.runs()]
    assert [each.name for each in trials] == RUNS
    note_commands(trials, out)
    for index in done:
        answer = call_command(*trials[index].command)
        assert answer.code == 0, answer.out + answer.err
    return words


@pytest.fixture(scope="module")
def compared(shared: Shared, pendulum: Path) -> Compared:
    """Begun, then gone on with two at a time."""
    pytest.importorskip("ray")

    def make(folder: Path) -> None:
        words = begun(folder / "out", pendulum, 0, 2)
        answer = run_command(*words, "--jobs", "2", "--", *OPTIONS, env={"COLUMNS": "80"})
        (folder / "made.json").write_text(json.dumps([[*words, "--", *OPTIONS], vars(answer)]))

    folder = shared.get("compared", make)
    words, answer = json.loads((folder / "made.json").read_text())
    return Compared(folder / "out", words, Answer(**answer))


def test_a_comparison_goes_on_to_its_table(compared: Compared) -> None:
    assert compared.answer.code == 0, compared.answer.out + compared.answer.err
    assert "2 of 4 trials are done already" in compared.answer.out
    assert sorted(path.parent.name for path in compared.out.glob("*/result.json")) == sorted(RUNS)
    assert f"report: {compared.out / 'report.html'}" in compared.answer.out


@pytest.mark.slow
def test_a_killed_comparison_goes_on_to_its_table(tmp_path: Path, pendulum: Path, cli: Callable[..., Answer]) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    words = [*begun(out, pendulum, 2, 3), "--", *OPTIONS]
    with started(*words, log=log) as process:
        deadline = time.monotonic() + 300
        while not (out / RUNS[1] / "config.json").exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (out / "comparison.csv").exists()
    answer = cli(*words)
    assert answer.code == 0, answer.out + answer.err
    assert "3 of 4 trials are done already" in answer.out
    assert sorted(path.parent.name for path in out.glob("*/result.json")) == sorted(RUNS)


def test_the_table_says_what_the_runs_measured(compared: Compared) -> None:
    lines = compared.answer.out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.split()[:2] == ["method", "last"])
    table = lines[start - 1 : next(i for i, line in enumerate(lines) if line.startswith("Returns: mean over 2 seeds"))]
    assert max(map(len, table)) <= 80
    assert [" ".join(line.split()) for line in table[:2]] == ["best by", "method last playing CPU min ms/action"]
    shown = {line[:4].strip(" :"): line.split()[-8:] for line in table[3:] if "±" in line}
    for method, runs in (("bc", RUNS[:2]), ("iql", RUNS[2:])):
        results = [result for run in runs if (result := read_result(compared.out / run)) is not None]
        cells: list[str] = []
        for checkpoint in ("last", "best"):
            rows = [row for result in results for row in result.rows if row.checkpoint == checkpoint]
            means = np.array([np.mean(row.returns) for row in rows])
            cells += [f"{means.mean():.1f}", "±", f"{means.std(ddof=1) / np.sqrt(2):.1f}"]
        minutes = np.mean([result.rows[0].processor_seconds for result in results]) / 60
        assert shown[method][:-1] == [*cells, f"{minutes:.2f}"]
        for result in results:
            (stage,) = result.content["stages"].values()
            assert stage["processor_seconds"] > 0
    names = " ".join(" ".join(re.split(r"\s{2,}", line)[0] for line in table[3:]).split())
    assert names == "bc: share=0.1, optimization.steps=30 iql: optimization.steps=30", "no word is broken"


def test_the_same_command_shows_the_same_table(compared: Compared, cli: Callable[..., Answer]) -> None:
    before = compared.answer.out
    answer = cli(*compared.words)
    assert answer.code == 0
    assert "4 of 4 trials are done already" in answer.out
    assert answer.out[answer.out.index("Returns:") :].split() == before[before.index("Returns:") :].split()


def test_python_gets_a_row_for_each_checkpoint_of_each_seed(compared: Compared, pendulum: Path) -> None:
    rows = ractd.compare(pendulum, methods=NAMED, seeds=2, out=compared.out, options=OPTIONS, quiet=True)
    assert isinstance(rows, pandas.DataFrame)
    found = {(row.method, row.seed, row.checkpoint): row for row in rows.itertuples()}
    assert found.keys() == {(name, seed, at) for name in NAMED for seed in (0, 1) for at in ("last", "best")}
    times = json.loads((compared.out / "times.json").read_text())["times"]
    for (name, seed, at), row in found.items():
        result = read_result(compared.out / RUNS[2 * NAMED.index(name) + seed])
        assert result is not None
        (measured_,) = [each for each in result.rows if each.checkpoint == at]
        assert row.returns == measured_.returns
        assert row.ms_per_action == times[f"pendulum: {name}"]["ms_per_action"], "all measured in turns"
    written = pandas.read_csv(compared.out / "comparison.csv")
    assert written.mean_return.tolist() == pytest.approx(rows.mean_return.tolist())


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_shows_every_method(compared: Compared, chromium: Any, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme=theme).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((compared.out / "report.html").as_uri())
    assert page.locator("h1").inner_text() == "2 policies on pendulum"
    assert page.locator("#result tbody th").all_inner_texts() == [
        name.replace(":", ": ").replace(",", ", ") for name in NAMED
    ]
    assert page.locator("h2").all_inner_texts() == [
        "Results",
        "Return against training time",
        "Return against milliseconds an action",
        "Episode returns",
        "How each method was trained",
    ]
    for plot in range(3):
        for run in range(2):
            assert page.locator(f".plot >> nth={plot}").locator(f'[id*="-run{run}-"]').count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing but tables and plots scrolls sideways"
    page.locator("#shown button >> nth=1").click()
    assert page.locator('.plot [id*="-run1-"]').evaluate_all("all => all.every(each => each.style.display === 'none')")
    results = axe.Axe().run(page)
    assert not results.violations_count, results.generate_report()
    assert not said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--methods bcc", "unknown method 'bcc', expected one of ractd, bc, td3_bc, iql; did you mean 'bc'?"),
        ("--methods bc:shrae=0.1", "--methods bc:shrae=0.1: method 'bc' has no setting 'shrae'; did you mean 'share'?"),
        ("--methods bc:seed=1", "method 'bc' has no setting 'seed'"),
        ("--methods bc:share", "--methods bc:share: expected METHOD:NAME=VALUE"),
        ("--methods bc:preset=demo", "unknown preset of bc 'demo', expected one of cpu, best-tenth"),
        ("--methods bc:share=2", "--bc.share is 2.0, expected a number above 0 to 1"),
        ("--methods bc bc", "--methods: bc is named twice"),
        ("--methods bc --also teacher", "unknown policy of --also 'teacher', expected one of bc"),
        ("--methods bc iql --seeds 0", "--seeds is 0, expected 1 or more"),
        ("--methods bc iql -- --seed 3", "--seed after '--': not for a sweep; use --seeds"),
        ("--methods bc iql -- --bc.share 0.1", "--bc.share is no option of method 'iql', but of bc"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_trains(
    cli: Callable[..., Answer], tmp_path: Path, pendulum: Path, words: str, message: str
) -> None:
    answer = cli("compare", pendulum, "--out", tmp_path / "out", *words.split())
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_data_that_can_not_be_compared_on(cli: Callable[..., Answer], tmp_path: Path, pendulum: Path) -> None:
    unnamed, unpaid = tmp_path / "unnamed.hdf5", tmp_path / "unpaid.hdf5"
    data = pendulum_data(200, env_id=None)
    write_hdf5(unnamed, data)
    write_hdf5(unpaid, replace(data, rewards=np.zeros(200, np.float32), has_rewards=False))
    for datasets, message in (
        (
            (pendulum, unnamed),
            f"datasets of different environments can't be compared: {pendulum} of InvertedPendulum-v5",
        ),
        ((unpaid,), "dataset 'unpaid' has no rewards, and method 'iql' learns from them"),
        ((pendulum, tmp_path / "nothing.npz"), "nothing.npz: no such file"),
    ):
        answer = cli("compare", *datasets, "--methods", "bc", "iql", "--out", tmp_path / "out")
        assert answer.code == 2
        (line,) = answer.err.splitlines()
        assert message in line
        assert not (tmp_path / "out").exists()
    with pytest.raises(RactdError, match="dataset is of type OfflineDataset, expected a name or a file"):
        ractd.compare(data)  # type: ignore[arg-type]


def test_methods_are_named_with_settings_as_train_takes_them() -> None:
    title, words = setting_of("iql: critic_layer_norm=true, evaluation.episodes=5, network.layers=8 8")
    assert title == "iql:critic_layer_norm=true,evaluation.episodes=5,network.layers=8 8"
    assert words == (
        ("method", "iql"),
        ("iql.critic-layer-norm", ""),
        ("evaluation.episodes", "5"),
        ("iql.network.layers", "8 8"),
    )
    assert setting_of("ractd:preset=demo,teacher.network.kind=unet,teacher.network.embed-dim=8")[1] == (
        ("method", "ractd"),
        ("preset", "demo"),
        ("teacher.network.kind", "unet"),
        ("teacher.network.embed-dim", "8"),
    )


def test_the_demo_is_read_as_a_comparison() -> None:
    text = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8").replace("\\\n", "")
    found = re.search(r"ractd (compare .*)", text)
    assert found is not None
    words = shlex.split(found[1])
    asked = parse(words)
    assert isinstance(asked, Compare)
    runs = runs_with(asked.datasets, [setting_of(each) for each in asked.methods], asked.seeds, asked.train_options)
    settings = [settings_of(run.options(asked.train_options)) for run in runs]
    assert [type(each).__name__ for each in settings] == ["Config", "BCConfig"]
    assert {each.evaluation.episodes for each in settings} == {50}, "one protocol"


def comparison(
    folder: Path, scores: dict[str, Sequence[float]], env_id: str | None = "Own-v0", threads: int = 1
) -> MethodRows:
    """A comparison of methods whose last checkpoints have these returns, a number a seed, timed before."""
    runs = [
        MethodRun("d", name, seed, folder / f"{name}-{seed}") for name in scores for seed in range(len(scores[name]))
    ]
    for run in runs:
        mean = scores[run.method][run.seed]
        row = measured("V", "v", env_id, [mean - 1, mean + 1], checkpoint="last", selection="last", threads=1)
        other = replace(row, variant="W", policy="w", offline={"distance_to_data": 0.5})
        row = replace(row, offline={"distance_to_data": 0.5}, processor_seconds=60.0 * (run.seed + 1))
        Result(run.directory, {"complete": True}, (row, other)).write(run.directory / "result.json")
    times = {f"d: {name}": {"ms_per_action": 0.5, "ms_low": 0.4, "ms_high": 0.6} for name in scores}
    times |= {f"d: W of {name}": times[f"d: {name}"] for name in scores}
    (folder / "times.json").write_text(json.dumps({"threads": threads, "times": times, "load": {"busy": False}}))
    found = read_methods(runs, ("w",), folder / "times.json", threads)
    assert found is not None
    return found


def test_the_caption_names_the_threads_that_times_were_measured_with(tmp_path: Path) -> None:
    found = comparison(tmp_path, {"a": [1.0], "b": [2.0]}, threads=2)
    assert "batch 1, 2 threads, in turns" in found.caption()


def test_intervals_are_student_s_and_the_winner_is_sure_or_said_not_to_be(tmp_path: Path) -> None:
    a, b = [10.0, 12.0, 11.0, 13.0], [4.0, 5.0, 3.0, 7.0]
    found = comparison(tmp_path / "sure", {"a": a, "b": b})
    cells = {row[0]: row[1:] for row in found.cells()[1]}
    half = t.ppf(0.975, 3) * np.std(a, ddof=1) / 2
    assert cells["a"] == [cells["W of a"][0], "2.50", "0.50"] == [f"11.5 ± {half:.1f}", "2.50", "0.50"]
    assert "mean over 4 seeds ± half of its 95% t interval" in found.caption()
    rows = replace(found, rows=found.rows[~found.rows.label.str.startswith("W")])
    difference = np.subtract(a, b)
    low, high = t.interval(0.95, 3, difference.mean(), difference.std(ddof=1) / 2)
    assert list(rows.verdicts()) == [
        "On d, by last checkpoints, a won with 11.5, ahead of b 4.8 (4 seeds; 95% t interval of the lead: "
        f"[{low:.1f}, {high:.1f}])."
    ]
    unsure = comparison(tmp_path / "unsure", {"a": [9.0, 11.0, 4.0], "b": [8.0, 2.0, 10.0]})
    (sentence,) = replace(unsure, rows=unsure.rows[~unsure.rows.label.str.startswith("W")]).verdicts()
    assert sentence.startswith("On d, by last checkpoints, nobody is sure to have won: a 8.0 and b 6.7 (3 seeds; ")
    single = comparison(tmp_path / "single", {"a": [10.0], "b": [4.0]})
    assert single.cells()[1][0][1] == "10.0 ± 1.0", "over the episodes, 9 and 11"
    (sentence,) = replace(single, rows=single.rows[~single.rows.label.str.startswith("W")]).verdicts()
    assert sentence.endswith("a won with 10.0, ahead of b 4.0 (one seed, which says little of others).")
    offline = comparison(tmp_path / "offline", {"a": [10.0], "b": [4.0]}, env_id=None)
    assert list(offline.verdicts()) == ["Nothing was played, so nothing says which method is better."]
    assert offline.cells()[1][0][1] == "0.50"


def test_methods_are_listed_with_what_they_need(cli: Callable[..., Answer]) -> None:
    answer = cli("methods")
    assert answer.code == 0
    lines = [line.rstrip() for line in answer.out.splitlines()]
    entries = [" ".join(part.split()) for part in "\n".join(lines).split("\n\n") if part]
    assert [entry.split()[0] for entry in entries] == list(METHODS)
    told = {entry.split()[0]: entry for entry in entries}
    assert "needs: rewards source: Offline Reinforcement Learning with Implicit" in told["iql"]
    assert "needs: observations and actions; rewards, for a share below 1 source: ALVINN" in told["bc"]
