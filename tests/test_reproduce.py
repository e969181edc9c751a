"""The paper's tables as commands: its numbers, what is read from runs, what is trained, what is said of gaps."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import PLAYED, TINY, Answer, Trained, pendulum_data, rows_of
from report_factory import hopper_data
from scipy.stats import ttest_rel

from ractd.data import write_hdf5
from ractd.reproduce import EXPERIMENTS, paper
from ractd.reproduce.claims import Claim, compare
from ractd.reproduce.lines import Line, Measured, TableSource, summary
from ractd.reproduce.measures import CELLS, better_mode, kept, spread
from ractd.reproduce.tables import COLUMNS, PaperTable
from ractd.results.statistics import t_interval
from ractd.runs.rows import read_result

Command = Callable[..., Answer]
SAID = {**TINY, **{name: value for name, value in PLAYED.items() if name != "--evaluation.select"}}
EXTRA = ["--", *(word for pair in SAID.items() for word in pair)]
"""What the shared run was trained with, but for what the command says by itself."""


@pytest.fixture
def runs(trained: Trained, tmp_path: Path) -> Path:
    """A folder with the tiny run under the name that the tables look for."""
    shutil.copytree(trained.directory, tmp_path / "runs" / "pendulum-s0")
    return tmp_path / "runs"


def make(cli: Command, runs: Path, *arguments: str | Path) -> Answer:
    """`ractd reproduce` on the tiny dataset, tables beside the runs, no report."""
    return cli("reproduce", *arguments, "--runs", runs, "--out", runs.parent / "results", "--no-report", *EXTRA)


def content(runs: Path, name: str) -> Any:
    """A table's JSON."""
    return json.loads((runs.parent / "results" / f"{name}.json").read_text())


def by_method(table: Any) -> dict[str, Any]:
    """A table's lines of its only dataset."""
    return {line["method"]: line for line in table["lines"]}


# The paper's numbers.


def test_the_papers_numbers_are_those_of_its_text() -> None:
    def printed(table: str, dataset: str, method: str) -> dict[str, float]:
        numbers: dict[str, float] = paper.published(table).loc[dataset, method].dropna().to_dict()
        return numbers

    assert printed("table1", "hopper-medium-expert", "RACTD") == {"score": 129.0, "se": 1.3, "nfe": 1}
    assert printed("table1", "walker2d-medium-replay", "Diffusion QL") == {"score": 98.0, "se": 0.5, "nfe": 5}
    assert printed("table1", "halfcheetah-medium", "MOReL") == {"score": 42.1}
    assert printed("table2", "maze2d-large", "Diffuser") == {"score": 123.0, "se": 6.4, "nfe": 256, "seconds": 5.568}
    assert printed("table3", "hopper-medium-replay", "EDM teacher") == {"score": 114.2, "nfe": 80, "seconds": 2.134}
    assert printed("table4", "hopper-medium-replay", paper.REWARD_IN_TEACHER) == {"score": 96.2, "se": 0.2, "nfe": 1}
    three = {"score": 108.7, "se": 0.1, "nfe": 3, "seconds": 0.0377}
    assert printed("table5", "hopper-medium-replay", "RACTD, 3 steps") == three
    assert printed("table10", "walker2d-medium", paper.REWARD_IN_BOTH) == {"score": 94.5, "se": 2.6, "nfe": 1}
    assert printed("table11", "maze2d-medium", "DDIM, 1 step") == {"score": -2.6, "se": 12.5, "nfe": 1}


def test_every_number_of_ours_stands_beside_one_of_the_papers_or_is_named() -> None:
    for name, experiment in EXPERIMENTS.items():
        known = {*paper.published(name).index.get_level_values("method"), *experiment.ours}
        assert {name for claim in experiment.claims for name in (claim.first, claim.second)} <= known, name
        assert set(experiment.columns) <= COLUMNS.keys()


@pytest.mark.parametrize(
    ("method", "average"),
    [
        ("BC", 51.9),
        ("CQL", 77.6),
        ("IQL", 77.0),
        ("DT", 74.7),
        ("TT", 78.9),
        ("MOPO", 42.1),
        ("MOReL", 72.9),
        ("MBOP", 47.8),
        ("Diffusion QL", 89.3),
        ("Consistency AC", 89.8),
        ("Consistency BC", 75.9),
        ("Diffuser", 77.5),
        ("RACTD", 97.6),
    ],
)
def test_rows_of_table_1_have_the_averages_that_the_paper_prints(method: str, average: float) -> None:
    scores = paper.published("table1").score.unstack("dataset").loc[method, list(paper.MUJOCO)]
    assert scores.mean() == pytest.approx(average, abs=0.11)


@pytest.mark.parametrize(
    ("table", "method", "average"),
    [
        ("table2", "MPPI", 16.2),
        ("table2", "CQL", 7.7),
        ("table2", "IQL", 47.0),
        ("table2", "Diffuser", 119.5),
        ("table2", "CTD (plain student)", 123.4),
        ("table2", "RACTD", 133.4),
        ("table11", "DDPM, 100 steps", 132.6),
        ("table11", "DDIM, 10 steps", 130.2),
        ("table11", "DDIM, 1 step", -0.2),
        ("table11", "EDM teacher", 131.5),
        ("table11", "RACTD", 133.4),
    ],
)
def test_rows_of_the_maze_tables_have_the_averages_that_the_paper_prints(
    table: str, method: str, average: float
) -> None:
    scores = paper.published(table).score.unstack("dataset").loc[method, list(paper.MAZES)]
    assert scores.mean() == pytest.approx(average, abs=0.11)


def test_the_papers_numbers_show_what_it_says_of_them() -> None:
    checked = 0
    for name in (f"table{n}" for n in (1, 2, 3, 4, 5, 10, 11)):
        numbers = paper.published(name)
        for claim in EXPERIMENTS[name].claims:
            values = numbers[{"score": "score", "ms": "seconds"}[claim.quantity]].dropna()
            for dataset in claim.datasets or values.index.unique("dataset"):
                if {(dataset, claim.first), (dataset, claim.second)} <= set(values.index):
                    assert values[dataset, claim.first] > values[dataset, claim.second], (name, dataset, claim)
                    checked += 1
    assert checked > 60


# Statistics.


def line(method: str, *by_seed: Any, quantity: str = "score") -> Line:
    """A line with samples by seed."""
    seeds = {seed: Measured({quantity: np.asarray(values, float)}, "run") for seed, values in enumerate(by_seed)}
    return Line("d", method, seeds=seeds)


def test_an_interval_is_students_of_the_differences_of_the_same_seeds() -> None:
    """The paired t test's own interval."""
    first, second = [3.1, 52.2, 99.7, 7.0], [1.0, 50.0, 98.0, 9.0]
    said = compare(Claim("a", "b"), [line("a", *([x] for x in first)), line("b", *([x] for x in second))], "d")
    low, high = ttest_rel(first, second).confidence_interval(0.95)
    mean = np.mean(np.subtract(first, second))
    assert said.evidence == f"difference {mean:+.3g} [{low:.3g}, {high:.3g}], 4 seeds"
    assert np.allclose(t_interval(np.subtract(first, second)), (low, high))


def test_seeds_are_paired() -> None:
    levels, rng = (0.0, 50.0, 100.0), np.random.default_rng(0)
    low = [level + rng.normal(0, 0.1, 5) for level in levels]
    high = [values + rng.normal(1, 0.1, 5) for values in low]
    said = compare(Claim("a", "b"), [line("a", *high), line("b", *low)], "d")
    assert said.state == "confirmed", "what seeds do to both methods alike is no doubt about their difference"


def test_comparisons() -> None:
    lines = [line("a", [10, 11, 12], [20, 21, 22], [15, 15, 18]), line("b", [1, 2, 3], [12, 13, 14], [7, 7]), line("c")]
    said = compare(Claim("a", "b"), lines, "d")
    assert (said.state, "3 seeds" in said.evidence) == ("confirmed", True)
    reverse = compare(Claim("b", "a"), lines, "d")
    assert (reverse.state, "the other way round" in reverse.evidence) == ("not confirmed", True)
    assert compare(Claim("a", "a"), lines, "d").state == "not confirmed", "what is equal is not larger"
    assert compare(Claim("a", "c"), lines, "d").state == "not run"
    same = compare(Claim("a", "b"), [line("a", [3], [4], [5]), line("b", [1], [2], [3])], "d")
    assert (same.state, same.evidence) == (
        "not confirmed",
        "difference +2, 3 seeds that all have the same: no spread to judge by",
    )


def test_rounding_is_no_difference() -> None:
    first, second = ([[x + y] for x, y in ((0.1, 0.2), (0.3, 0.4), (0.7, 0.1))], [[0.3], [0.7], [0.8]])
    assert np.subtract(first, second).any()
    for pair in ((first, second), (second, first)):
        said = compare(Claim("a", "b"), [line("a", *pair[0]), line("b", *pair[1])], "d")
        assert "no spread to judge by" in said.evidence


@pytest.mark.parametrize("module", ["scipy", "rliable", "matplotlib"])
def test_without_the_extra_nothing_starts(
    module: str,
    pendulum: Path,
    tmp_path: Path,
    cli: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ractd.reproduce.importlib.util.find_spec", lambda name: name != module or None)
    answer = make(cli, tmp_path / "runs", "table4", "--datasets", pendulum)
    assert (answer.code, answer.err) == (
        2,
        f'error: the paper\'s tables need {module}: pip install "ractd[reproduce]"\n',
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("claim", [Claim("a", "b"), Claim("a", "b", "ms"), Claim("a", "b", alike=0.1)])
def test_fewer_than_three_seeds_confirm_nothing(seeds: int, claim: Claim) -> None:
    """However far apart or alike the numbers are, and however many episodes there are."""
    first, second = (
        line(method, *([x + 1e-3 * k] * 400 for k in range(seeds)), quantity=claim.quantity)
        for method, x in (("a", 9), ("b", 1))
    )
    said = compare(claim, [first, second], "d")
    assert said.state == "too few seeds"
    assert f"{seeds} seed{'s' * (seeds > 1)} of the 3" in said.evidence
    third = line("b", *([1.0 + 1e-3 * k**2] for k in range(3)), quantity=claim.quantity)
    assert compare(claim, [first, third], "d").state == "too few seeds", "seeds of both count"


SIMULATIONS = 4000
"""For shares of 2.5%; those of nearly all need fewer."""


def share_confirmed(
    seeds: int, claim: Claim, gap: float, draw: Callable[..., Any], seed: int = 0, simulations: int = 400
) -> float:
    """How often a claim about two methods, `gap` apart, is confirmed: what a seed does to both, to each, and episodes' noise."""
    rng = np.random.default_rng(seed)
    confirmed = 0
    for _ in range(simulations):
        shared = 3 * rng.standard_normal(seeds)
        first, second = (draw(50 + offset + shared + 2 * rng.standard_normal(seeds), rng) for offset in (gap, 0.0))
        lines = [line(name, *values, quantity=claim.quantity) for name, values in (("a", first), ("b", second))]
        said = compare(claim, lines, "d")
        confirmed += said.state == "confirmed"
    return confirmed / simulations


def episodes(level: Any, rng: np.random.Generator) -> Any:
    """Ten episodes a seed, skewed as returns of falling robots are."""
    return level[:, None] + 5 * (1 - rng.exponential(size=(len(level), 10)))


def one_time(level: Any, rng: np.random.Generator) -> Any:
    """One time a seed, whose logarithm is what varies."""
    return np.exp(level[:, None] / 10)


BINOMIAL = 4 * np.sqrt(0.025 * 0.975 / SIMULATIONS)
"""Four standard errors of a share of 2.5% in so many simulations."""


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(("claim", "draw"), [(Claim("a", "b"), episodes), (Claim("a", "b", "ms"), one_time)])
def test_of_equal_methods_a_fortieth_is_confirmed(seeds: int, claim: Claim, draw: Callable[..., Any]) -> None:
    """2.5% in each direction, 5% in both: what a 95% interval claims."""
    shares = [share_confirmed(seeds, claim, 0.0, draw, seed, SIMULATIONS) for seed in range(2)]
    assert max(shares) < 0.025 + BINOMIAL
    assert min(shares) > 0.025 - BINOMIAL, "a test that confirms nothing would have no error either"


@pytest.mark.parametrize(("seeds", "gap", "at_least"), [(3, 30, 0.9), (5, 10, 0.9), (10, 6, 0.9)])
def test_methods_that_differ_are_confirmed(seeds: int, gap: float, at_least: float) -> None:
    assert share_confirmed(seeds, Claim("a", "b"), gap, episodes) > at_least
    assert share_confirmed(seeds, Claim("a", "b"), -gap, episodes) == 0
    assert share_confirmed(seeds, Claim("a", "b", "ms"), gap, one_time) > at_least


@pytest.mark.parametrize("seeds", [3, 10])
def test_alike_is_not_confirmed_of_methods_that_differ_by_the_margin(seeds: int) -> None:
    margin = Claim("a", "b", alike=10.0)
    assert share_confirmed(seeds, margin, 10.0, episodes, 0, SIMULATIONS) < 0.025 + BINOMIAL
    assert share_confirmed(10, margin, 0.0, episodes) > 0.9


def test_a_line_has_its_error_over_seeds_or_else_over_episodes() -> None:
    assert line("a", [1, 2, 3, 4]).error("score") == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
    assert line("a", [1, 3], [5, 7]).error("score") == pytest.approx(2.0), "means 2 and 6"
    assert np.isnan(line("a", [5.0]).error("score"))
    assert np.isnan(line("a", [5.0], [5.0], [5.0]).error("score")), "no spread, and so no error that is known"
    agreed = line("a", [1, 3], [0, 4], [2, 2])
    assert agreed.error("score") == pytest.approx(np.std([1, 3, 0, 4, 2, 2], ddof=1) / np.sqrt(6)), "over episodes"


def test_the_error_of_the_data_is_that_of_one_sample_however_many_seeds_there_are() -> None:
    """Each seed has an array of its own of the same numbers."""
    upper = np.array([0.0, 1, 1, 1, 0] * 20)
    seeds = {seed: Measured({"upper": upper.copy()}, "") for seed in range(3)}
    expected = np.sqrt(0.6 * 0.4 / 99)
    assert Line("d", "data", seeds=seeds).error("upper") == pytest.approx(expected)
    assert Line("d", "data", seeds={0: seeds[0]}).error("upper") == pytest.approx(expected)


@pytest.mark.parametrize(("value", "seeds"), [(0.0, 3), (1.0, 3), (1.0, 1)])
def test_a_share_of_all_or_nothing_has_an_error(value: float, seeds: int) -> None:
    """Agresti and Coull's: 300 of 300 does not say that the 301st is sure."""
    read = line("a", *(np.full(100, value) for _ in range(seeds)), quantity="upper").error("upper")
    count = 100 * seeds + 4
    assert read == pytest.approx(np.sqrt(2 / count * (count - 2) / count / count))


def test_figure_3s_error_is_never_zero() -> None:
    """Three seeds of one data, of a policy that is always in the better mode, and of seeds with the same share."""
    mixed = np.repeat([0.0, 1.0], 50)
    for measured in (
        [Measured({"upper": mixed.copy()}, "") for _ in range(3)],
        [Measured({"upper": np.ones(100)}, "run") for _ in range(3)],
        [Measured({"upper": np.roll(mixed, k)}, "run") for k in range(3)],
    ):
        one = Line("d", "m", seeds=dict(enumerate(measured)))
        error = one.error("upper")
        assert 0.001 < error < 0.1
        (row,) = summary([one], "figure3").itertuples()
        assert COLUMNS["upper"][1](row, None).endswith(f"± {error:.1%}")


@pytest.mark.parametrize(("seeds", "methods"), [(2, []), (3, ["a", "b"])])
def test_interquartile_means_are_of_three_seeds_or_more(seeds: int, methods: list[str]) -> None:
    rng = np.random.default_rng(0)
    lines = [line(method, *rng.normal(50, 5, (seeds, 4))) for method in ("a", "b")]
    data = Line("d", "data", seeds={k: Measured({"score": np.ones(3)}, "") for k in range(seeds)})
    table = PaperTable(
        "table1", EXPERIMENTS["table1"], [*lines, data], [], [TableSource("d", {}, False, "score")], {}, {}
    )
    found = table.aggregates()
    assert list(found.method) == methods
    for row, one in zip(found.itertuples(), lines, strict=False):
        assert (row.seeds, row.datasets) == (3, 1)
        assert row.low <= row.iqm <= row.high
        assert row.iqm == pytest.approx(np.mean(list(one.means("score").values()))), "the middle half of three is all"


def test_diversity_of_known_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    mode = torch.randn(16, 64, 4, generator=generator)
    assert spread(0.3 * mode).mean() == pytest.approx(0.3, rel=0.02)
    sides = torch.where(torch.arange(64) % 2 == 0, 0.8, -0.8).view(1, 64, 1)
    teacher = sides + 0.01 * mode
    again = sides + 0.01 * torch.randn(16, 64, 4, generator=generator)
    assert kept(teacher, again).mean() > 0.9
    one_side = 0.8 + 0.01 * torch.randn(16, 64, 4, generator=generator)
    assert kept(teacher, one_side).mean() < 0.65, "half of the clusters are on the other side"
    assert np.allclose(kept(teacher, teacher[:, :1].expand(-1, 64, -1)), 1 / CELLS)


def test_the_better_mode_begins_between_two_groups() -> None:
    returns = np.concatenate([np.linspace(90, 110, 300), np.linspace(900, 1000, 50)])
    assert 110 < better_mode(returns) < 900
    assert better_mode(np.full(3, 7.0)) == 7.0


# The command.


def test_every_table_and_figure_is_read_from_what_is_there(runs: Path, pendulum: Path, cli: Command) -> None:
    answer = make(cli, runs, *EXPERIMENTS, "--no-train", "--datasets", pendulum)
    assert answer.code == 0, answer.out + answer.err
    assert [path.name for path in runs.iterdir()] == ["pendulum-s0"], "nothing was begun"
    for name in EXPERIMENTS:
        table = content(runs, name)
        text = (runs.parent / "results" / f"{name}.md").read_text()
        rows = list(csv.DictReader((runs.parent / "results" / f"{name}.csv").open()))
        assert [row["method"] for row in rows] == [line["method"] for line in table["lines"]]
        assert table["title"] in text
        assert table["datasets"][0]["fingerprint"][:16] in text
        assert "not D4RL's own data; recipe: random actions" in text
        assert "source" not in table["datasets"][0], "a table is passed on, paths of this machine are not"
        assert table["unit"] == "return"
    ractd = rows_of(runs / "pendulum-s0")["RACTD"]
    for name, method in (("table1", "RACTD"), ("table4", paper.REWARD_IN_STUDENT), ("table5", "RACTD, 1 step")):
        read = by_method(content(runs, name))[method]
        assert read["score"] == pytest.approx(ractd.mean_return)
        assert read["score_se"] == pytest.approx(ractd.return_se)
        assert (read["ms"], read["nfe"]) == (ractd.ms_per_action, 1)
    result = read_result(runs / "pendulum-s0")
    assert result is not None
    last = result.row("RACTD", checkpoint="last").mean_return
    assert last is not None
    assert by_method(content(runs, "table1"))["RACTD"]["last"] == pytest.approx(last)
    table1 = (runs.parent / "results" / "table1.md").read_text()
    assert re.search(rf"\| RACTD \| ours, last \| {last:,.1f}( ± [\d.]+)? \| {last:,.1f} \| 1 \|", table1)
    four = by_method(content(runs, "table4"))
    assert four[paper.REWARD_IN_BOTH]["note"] == "not run"
    states = {each["claim"]: each["state"] for each in content(runs, "table4")["comparisons"]}
    assert states[f"score: {paper.REWARD_IN_STUDENT} > {paper.REWARD_IN_BOTH}"] == "not run"
    assert states[f"score: {paper.REWARD_IN_STUDENT} > {paper.BOTH_PLAIN}"] == "too few seeds"
    twelve = by_method(content(runs, "table12"))["reward-agnostic diffusion (teacher)"]
    assert twelve["spread"] > 0
    assert twelve["kept"] > 0.8, "two draws of one policy"
    assert (runs.parent / "results" / "figure3-pendulum.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("busy", [True, False])
def test_a_table_of_times_says_how_many_were_measured_on_a_busy_machine(
    busy: bool, runs: Path, pendulum: Path, cli: Command
) -> None:
    path = runs / "pendulum-s0" / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"load": {"waiting": 3.0, "others": 2.0, "cores": 2, "busy": busy}}))
    assert make(cli, runs, "table5", "table4", "--no-train", "--datasets", pendulum).code == 0
    said = "Of the 3 times 3 were measured while the machine was busy"
    texts = [(runs.parent / "results" / f"{name}.md").read_text() for name in ("table5", "table4")]
    assert [said in text for text in texts] == [busy, False], "Table 4 has no times"
    lines = by_method(content(runs, "table5"))
    assert lines["RACTD, 1 step"]["busy"] == ([0] if busy else [])


def test_curves_are_those_of_the_runs_metrics(runs: Path, pendulum: Path, cli: Command) -> None:
    assert make(cli, runs, "figure4", "--no-train", "--datasets", pendulum).code == 0
    with (runs.parent / "results" / "figure4-curves.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "the preset's reward weight"]
    logged = [json.loads(text) for text in (runs / "pendulum-s0" / "metrics.jsonl").read_text().splitlines()]
    expected = [
        (entry["step"], entry["episode_return"])
        for entry in logged
        if entry["stage"] == "student" and "episode_return" in entry
    ]
    assert [(int(row["step"]), float(row["score"])) for row in rows] == expected
    assert len(expected) == int(PLAYED["--evaluation.checkpoints"])
    assert (runs.parent / "results" / "figure4-pendulum.png").exists()


@pytest.mark.slow
def test_what_is_missing_is_trained_and_what_is_there_is_not(runs: Path, pendulum: Path, cli: Command) -> None:
    before = (runs / "pendulum-s0" / "config.json").read_text()
    answer = make(cli, runs, "table4", "--datasets", pendulum)
    assert answer.code == 0, answer.out + answer.err
    assert (runs / "pendulum-s0" / "config.json").read_text() == before, "the run that was there was not touched"
    config = json.loads((runs / "pendulum-s0-rt" / "config.json").read_text())["config"]
    assert config["teacher"]["reward_weight"] == "auto"
    table = content(runs, "table4")
    assert all("score" in line for line in table["lines"])
    assert {each["state"] for each in table["comparisons"]} == {"too few seeds"}
    assert table["skipped"] == {}
    again = make(cli, runs, "table4", "--datasets", pendulum)
    assert again.code == 0
    assert content(runs, "table4")["lines"] == table["lines"]


def test_an_evaluation_is_read_once_it_is_there(runs: Path, pendulum: Path, cli: Command) -> None:
    run = runs / "pendulum-s0"
    episodes = TINY["--evaluation.episodes"]
    assert cli("eval", run, "--steps", "3", "--episodes", episodes, "--seed", "0").code == 0
    assert make(cli, runs, "table5", "--no-train", "--datasets", pendulum).code == 0
    lines = by_method(content(runs, "table5"))
    assert lines["RACTD, 3 steps"]["nfe"] == 3
    assert lines["RACTD, 3 jumps"]["note"] == "not run"


@pytest.mark.slow
def test_it_ends_with_a_report_of_the_runs(runs: Path, pendulum: Path, cli: Command) -> None:
    pytest.importorskip("av")
    out = runs.parent / "results"
    words = ["table4", "--no-train", "--datasets", pendulum, "--runs", runs, "--out", out]
    answer = cli("reproduce", *words, *EXTRA)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[-1] == f"report: {out / 'report.html'}"
    assert "<h1>pendulum-s0</h1>" in (out / "report.html").read_text()
    shutil.rmtree(runs)
    assert cli("reproduce", *words, *EXTRA).out.splitlines()[-1] == "no report: no run was scored yet"


def test_a_run_with_other_settings_is_not_passed_off(runs: Path, pendulum: Path, cli: Command) -> None:
    arguments = ["--no-train", "--datasets", pendulum, "--runs", runs, "--out", runs.parent / "results", "--no-report"]
    assert cli("reproduce", "table4", *arguments, "--", *EXTRA[1:], "--student.ctm-share", "0.5").code == 0
    note = by_method(content(runs, "table4"))[paper.REWARD_IN_STUDENT]["note"]
    assert "pendulum-s0 is another run, with config.student.ctm_share 0.25 instead of 0.5" in note


def test_checkpoints_are_chosen_as_the_papers_unless_an_option_says_otherwise(
    runs: Path, pendulum: Path, cli: Command
) -> None:
    path = runs / "pendulum-s0" / "config.json"
    config = json.loads(path.read_text())
    for name in ("checkpoints", "checkpoint_episodes"):
        del config["config"]["evaluation"][name]
    path.write_text(json.dumps(config))
    words = [word for pair in TINY.items() for word in pair]
    arguments = ["--no-train", "--datasets", pendulum, "--runs", runs, "--out", runs.parent / "results", "--no-report"]
    for more, said in (
        ([], ""),
        (["--evaluation.select", "last"], "pendulum-s0 is another run, with config.evaluation.select 'online' instead"),
    ):
        answer = cli("reproduce", "table4", *arguments, "--", *words, *more)
        assert answer.code == 0, answer.err
        line = by_method(content(runs, "table4"))[paper.REWARD_IN_STUDENT]
        assert said in line.get("note", "")
        assert ("score" in line) is not bool(more)


def test_seeds_that_are_missing_are_named(runs: Path, pendulum: Path, cli: Command) -> None:
    assert make(cli, runs, "table4", "--no-train", "--seeds", "3", "--datasets", pendulum).code == 0
    read = by_method(content(runs, "table4"))[paper.REWARD_IN_STUDENT]
    assert (read["seeds"], read["note"]) == ([0], "not run with seed 1, 2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table4", "--no-train", "--jobs", "0"], "--jobs is 0, expected 1 or more"),
        (["table7"], "unknown table or figure 'table7', expected one of table1, table2, table3"),
        ([], "name at least one table or figure of table1"),
        (["table4", "--seeds", "0"], "--seeds is 0, expected at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], said: str, tmp_path: Path, cli: Command) -> None:
    answer = cli("reproduce", *arguments, "--out", tmp_path / "out")
    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--horizn", "3"], "--horizn"),
        (["--horizon", "0"], "--horizon is 0, expected a whole number from 1"),
        (["--preset", "demo"], "--preset after '--': 'ractd reproduce' sets it itself, for pendulum-s0"),
        (["--out=elsewhere"], "--out after '--': 'ractd reproduce' sets it itself"),
        (["--student.reward-weight", "3"], "--student.reward-weight after '--': 'ractd reproduce' sets it itself"),
    ],
)
def test_options_of_trainings_are_checked_before_anything_starts(
    words: list[str], said: str, pendulum: Path, tmp_path: Path, cli: Command
) -> None:
    answer = cli("reproduce", "table4", "--datasets", pendulum, "--runs", tmp_path / "runs", "--", *words)
    assert answer.code == 2
    assert said in " ".join(answer.err.replace("│", " ").split())
    assert not (tmp_path / "runs").exists()


def test_a_dataset_named_twice_is_one(runs: Path, pendulum: Path, cli: Command) -> None:
    assert make(cli, runs, "table4", "--no-train", "--datasets", pendulum, pendulum).code == 0
    assert len(content(runs, "table4")["datasets"]) == 1


def test_two_datasets_of_one_name_are_refused(pendulum: Path, tmp_path: Path, cli: Command) -> None:
    shutil.copy(pendulum, tmp_path / pendulum.name)
    answer = cli("reproduce", "table4", "--no-train", "--datasets", pendulum, tmp_path / pendulum.name)
    assert answer.code == 2
    assert "both named 'pendulum'" in answer.err


def test_d4rls_own_file_is_called_so_and_has_the_papers_numbers_beside_it(
    tmp_path: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    path = tmp_path / "hopper_medium_replay-v2.hdf5"
    hopper_data(path, "hopper-medium-replay-v2", "Hopper-v5")
    for spec, own in (("hopper-medium-replay-v2", False), ("hopper-medium-replay-v2", True), (path, False)):
        if own:
            with h5py.File(path, "r+") as file:
                del file.attrs["recipe"]  # D4RL's files have none
        assert make(cli, tmp_path / "runs", "table4", "--no-train", "--datasets", spec).code == 0
        assert content(tmp_path / "runs", "table4")["datasets"][0]["published"] is own
    assert make(cli, tmp_path / "runs", "table4", "--no-train", "--datasets", "hopper-medium-replay-v2").code == 0
    table = content(tmp_path / "runs", "table4")
    assert by_method(table)[paper.BOTH_PLAIN]["paper_score"] == 50.8
    assert "D4RL's own file" in (tmp_path / "results" / "table4.md").read_text()
    assert table["lines"][0]["note"] == "not run"


def test_the_papers_datasets_that_are_not_there_are_skipped_and_the_table_says_why(
    tmp_path: Path, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    monkeypatch.setenv("RACTD_D4RL_URL", "http://127.0.0.1:9")
    hopper_data(tmp_path / "d4rl" / "hopper_medium_replay-v2.hdf5", "hopper-medium-replay-v2", "Hopper-v5")
    answer = make(cli, tmp_path / "runs", "table12", "figure3", "--no-train")
    assert answer.code == 0, answer.err
    why = "hopper-medium-expert-v2: skipped: http://127.0.0.1:9/"
    for name, lines in (("table12", 4), ("figure3", 0)):
        text = (tmp_path / "results" / f"{name}.md").read_text()
        assert why in text
        assert ("No dataset could be used." in text) == (lines == 0)
        assert len(content(tmp_path / "runs", name)["lines"]) == lines


@pytest.mark.parametrize(("held", "said"), [(None, "no such file"), (b"no HDF5", "not an HDF5 file")])
def test_a_named_dataset_that_can_not_be_used_is_refused_before_anything_starts(
    tmp_path: Path, pendulum: Path, cli: Command, held: bytes | None, said: str
) -> None:
    path = tmp_path / "logs.hdf5"
    if held is not None:
        path.write_bytes(held)
    answer = make(cli, tmp_path / "runs", "table4", "figure3", "--datasets", pendulum, path)
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert line.startswith(f"error: {path}: ")
    assert said in line
    assert answer.out == ""
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "results").exists()


def test_data_without_an_environment_is_refused_unless_one_is_given(tmp_path: Path, cli: Command) -> None:
    path = tmp_path / "logs.hdf5"
    write_hdf5(path, pendulum_data(200, env_id=None))
    answer = make(cli, tmp_path / "runs", "table4", "--datasets", path)
    assert answer.code == 2
    assert f"{path}: its data names no environment to score policies in; give one with '-- --env ID'" in answer.err
    assert not (tmp_path / "runs").exists()
    given = ["table4", "--no-train", "--no-report", "--datasets", path, "--out", tmp_path / "results"]
    assert cli("reproduce", *given, "--", "--env=InvertedPendulum-v5").code == 0
    table = json.loads((tmp_path / "results" / "table4.json").read_text())
    assert {line["note"] for line in table["lines"]} == {"not run"}
    assert table["datasets"][0]["env_id"] == "InvertedPendulum-v5"


def test_a_damaged_run_is_a_gap_and_not_the_end(runs: Path, pendulum: Path, cli: Command) -> None:
    (runs / "pendulum-s0" / "result.json").write_text("{")
    assert make(cli, runs, "table4", "--no-train", "--datasets", pendulum).code == 0
    assert "result.json: not valid JSON" in by_method(content(runs, "table4"))[paper.BOTH_PLAIN]["note"]
