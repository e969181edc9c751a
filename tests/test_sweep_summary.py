"""What a sweep finds: statistics against what they are by definition, tables against the rows that they are made of."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report_factory import measured
from rich.console import Console
from scipy.stats import ttest_rel

from ractd.data.scores import REFERENCES
from ractd.results.statistics import interquartile_means, performance_profiles
from ractd.results.tables import markdown_table, terminal_table
from ractd.runs.rows import Result, Row
from ractd.sweeps.grid import SweepRun, runs_of
from ractd.sweeps.summary import summarize, write_summary

# Statistics.


def middle_half(values: np.ndarray) -> float:
    ordered = np.sort(values.ravel())
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 4))
    few = np.array([[1.0, 2.0], [3.0, 1000.0]])
    means = interquartile_means({"many": scores, "few": few})
    assert means["many"][0] == pytest.approx(middle_half(scores))
    assert means["few"][0] == 2.5
    assert np.isnan(means["few"][1:]).all(), "two seeds say nothing about others"


def test_intervals_are_what_resampling_can_give() -> None:
    # Of three runs of one dataset a resample has the least thrice in one of 27 cases: more than 2.5% lie at either end.
    assert interquartile_means({"three": np.array([[1.0], [2.0], [4.0]])})["three"][1:] == (1.0, 4.0)
    # Resampled within each dataset: datasets that differ, with runs that don't, leave nothing uncertain.
    strata = np.tile([[0.0, 1.0, 2.0, 10.0]], (3, 1))
    assert interquartile_means({"strata": strata}) == {"strata": (1.5, 1.5, 1.5)}
    # Many runs: 1.96 standard errors to both sides; that of an interquartile mean of normal values is 1.08 times a mean's.
    many = np.random.default_rng(0).normal(size=(400, 1))
    middle, low, high = interquartile_means({"many": many})["many"]
    assert high - low == pytest.approx(2 * 1.96 * 1.08 * many.std() / np.sqrt(400), rel=0.15)
    assert low < middle < high


def test_the_bootstrap_is_seeded_and_leaves_numpy_alone() -> None:
    scores = {"a": np.random.default_rng(0).normal(size=(6, 2))}
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    first = interquartile_means(scores)
    assert np.random.rand() == expected  # noqa: NPY002
    assert interquartile_means(scores) == first


def test_a_profile_is_the_share_of_runs_above() -> None:
    scores = np.array([[0.1, 0.9], [0.4, 0.6]])
    thresholds = np.array([0.0, 0.5, 0.7, 0.9])
    profile = performance_profiles({"a": scores}, thresholds)["a"]
    assert profile["share"] == [1.0, 0.5, 0.25, 0.0]
    assert all(
        low <= share <= high for low, share, high in zip(*(profile[k] for k in ("low", "share", "high")), strict=True)
    )
    # The better dataset is above 0.7 in none, one or both of the resampled runs.
    assert (profile["low"][2], profile["high"][2]) == (0.0, 0.5)


# The table.


def test_columns_of_numbers_stand_to_the_right() -> None:
    rows = [("a|b", "not run", "+1.5 [0, 3]", "so"), ("c", "-", "", "9 of 10 [so]"), ("d", "7", "", "")]
    lines = markdown_table(["name", "n", "difference", "why"], rows).splitlines()
    assert lines[1:3] == ["| --- | ---: | ---: | --- |", "| a\\|b | not run | +1.5 [0, 3] | so |"]
    table = terminal_table(["name", "n", "difference", "why"], rows, title="t")
    assert [column.justify for column in table.columns] == ["left", "right", "right", "left"]


def row(score: float | None, mean_return: float = 1.0, variant: str = "RACTD", **columns: Any) -> Row:
    """A row that has a score in hopper, or where it is None a return without a reference."""
    low, high = REFERENCES["hopper"]
    env_id = "Hopper-v5" if score is not None else "InvertedPendulum-v5"
    returned = mean_return if score is None else low + score / 100 * (high - low)
    return replace(measured(variant, "student", env_id, [returned]), offline={"estimated_return": 5.0}, **columns)


def write_result(out: Path, run: SweepRun, *rows: Row) -> None:
    Result(out, {"complete": True}, rows).write(out / run.name / "result.json")


def test_a_narrow_terminal_breaks_no_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"{robot}-medium-replay" for robot in ("hopper", "halfcheetah", "walker2d", "ant")]
    rows = [["bc:share=0.1,optimization.steps=1000", *["108.1 ± 2.7"] * len(names)]]
    Console(width=80).print(terminal_table(["student.reward-weight", *names], rows))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = {word for line in lines for word in re.split(r"[│┃\s]+", line)}
    assert {"student.reward-weight", "halfcheetah-", "replay", "bc:share=0.1,", "108.1", "2.7"} <= shown


def test_statistics_are_of_the_seeds_that_every_dataset_has(tmp_path: Path) -> None:
    runs = runs_of(["hop", "walk"], [["w", "1", "2"]], 5, [])
    rng = np.random.default_rng(0)
    scores = {run: float(rng.normal(50, 20)) for run in runs}
    lost = next(run for run in runs if (run.dataset_name, run.setting, run.seed) == ("walk", (("w", "2"),), 1))
    for run in runs:
        if run != lost:
            write_result(tmp_path, run, row(scores[run]))
    summary = summarize(runs, tmp_path)
    assert summary is not None
    one, two = summary.lines.itertuples()
    assert (one.seeds, two.seeds) == (5, 4)

    def table(weight: str, seeds: tuple[int, ...]) -> np.ndarray:
        of_weight = {(run.dataset_name, run.seed): scores[run] for run in runs if run.setting == (("w", weight),)}
        return np.array([[of_weight[name, seed] for name in ("hop", "walk")] for seed in seeds])

    common = (0, 2, 3, 4)
    for line, values in ((one, table("1", (0, 1, 2, 3, 4))), (two, table("2", common))):
        assert line.iqm == pytest.approx(middle_half(values))
        assert line.iqm_low <= line.iqm <= line.iqm_high
    of_hopper = [scores[run] for run in runs if (run.dataset_name, run.setting) == ("hop", (("w", "2"),))]
    assert two.hop == pytest.approx(np.mean(of_hopper)), "a dataset's own mean is of all its runs"
    assert two.hop_se == pytest.approx(np.std(of_hopper, ddof=1) / np.sqrt(5))
    # The difference to the first setting is paired: the t test's own interval, of seeds that both have.
    test = ttest_rel(table("2", common).mean(axis=1), table("1", common).mean(axis=1)).confidence_interval(0.95)
    assert (two.difference_low, two.difference_high) == pytest.approx((test.low, test.high))
    assert np.isnan(one.difference)
    written = write_summary(summary, tmp_path, ["walk-w=2-s1: it broke"])
    assert [path.name for path in written] == ["sweep.md", "sweep.csv", "sweep.json", "profiles.png"]
    text = (tmp_path / "sweep.md").read_text()
    assert "walk-w=2-s1: it broke" in text
    assert f"| {two.difference:.1f} [{two.difference_low:.1f}, {two.difference_high:.1f}] | 4 |" in text
    lines = pd.read_csv(tmp_path / "sweep.csv")
    assert list(lines.setting) == ["w 1", "w 2"]
    assert lines.hop[1] == pytest.approx(two.hop)
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert {
        (each["dataset"], each["seed"]): each["value"] for each in content["values"] if each["setting"] == "w 1"
    } == {(run.dataset_name, run.seed): pytest.approx(scores[run]) for run in runs if run.setting == (("w", "1"),)}
    profiles = content["profiles"]["settings"]
    assert set(profiles) == {"w 1", "w 2"}
    assert profiles["w 1"]["share"][-1] == 0.0


def test_datasets_without_a_common_scale_have_no_common_mean(tmp_path: Path) -> None:
    runs = runs_of(["hop", "mine"], [], 2, [])
    for run in runs:
        write_result(tmp_path, run, row(90.0 if run.dataset_name == "hop" else None, mean_return=7.0))
    summary = summarize(runs, tmp_path)
    assert summary is not None
    assert summary.unit == "return"
    assert summary.profiles is None
    assert "iqm" not in summary.lines
    write_summary(summary, tmp_path, [])
    assert "| as given | 2,908.8 ± 0.0 | 7.0 ± 0.0 | 2 |" in (tmp_path / "sweep.md").read_text()
    assert not (tmp_path / "profiles.png").exists()


def test_last_and_best_checkpoints_stand_side_by_side(tmp_path: Path) -> None:
    runs = runs_of(["hop"], [], 1, [])
    last: dict[str, Any] = {"policy": "student-last", "checkpoint": "last"}
    plain = row(20.0, variant="plain student", processor_seconds=30.0)
    write_result(tmp_path, runs[0], row(90.0, processor_seconds=61.7), row(70.0, **last, processor_seconds=61.7), plain)
    summary = summarize(runs, tmp_path)
    assert summary is not None
    assert summary.main == "RACTD"
    write_summary(summary, tmp_path, [])
    lines = (tmp_path / "sweep.md").read_text().splitlines()
    (heading,) = [line for line in lines if "hop, best | hop, last" in line]
    assert lines[lines.index(heading) + 2] == "| as given | 90.0 | 70.0 | 90.0 | 70.0 | 1 | 62 |"
    assert "| as given | 20.0 | 20.0 | 1 | 30 |" in lines


def test_methods_are_compared_by_their_main_variants(tmp_path: Path) -> None:
    runs = runs_of(["hop"], [["m", "1", "2"]], 1, [])
    write_result(tmp_path, runs[0], row(90.0), row(30.0, variant="teacher"))
    write_result(tmp_path, runs[1], row(50.0, variant="BC", method="bc"))
    summary = summarize(runs, tmp_path)
    assert summary is not None
    main = summary.lines[summary.lines.policy == summary.main]
    assert dict(zip(main.setting, main.hop, strict=True)) == {
        "ractd, m 1": pytest.approx(90),
        "bc, m 2": pytest.approx(50),
    }
    assert "ractd: teacher" in set(summary.lines.policy)


def test_a_sweep_without_results_has_no_table(tmp_path: Path) -> None:
    assert summarize(runs_of(["hop"], [], 2, []), tmp_path) is None
