"""Samplers and kinds of teachers from the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import STEPS, Answer, Trained, options, rows_of

from ractd.diffusion.samplers import SAMPLERS
from ractd.policies import Policy
from ractd.runs.rows import Row

Cli = Callable[..., Answer]


def assert_refused(answer: Answer, *named: str) -> None:
    assert answer.code == 2, answer.out + answer.err
    lines = answer.err.splitlines()
    assert len(lines) == 1, answer.err
    for name in named:
        assert name in lines[0]


def evaluate(cli: Cli, run: Path, policy: str, sampler: str, steps: int) -> Row:
    """Two episodes with a sampler: the row that is kept."""
    answer = cli(
        *("eval", run, "--policy", policy, "--episodes", "2", "--sampler", sampler, "--steps", str(steps)),
    )
    assert answer.code == 0, answer.err
    assert f"{sampler}, {steps} steps, 1 candidates" in answer.out
    row = rows_of(run / "evaluations" / f"{policy}-e2-x1-n1-{sampler}-k{steps}-s0.json")[policy]
    assert (row.sampler, row.steps) == (sampler, steps)
    return row


def test_eval_takes_every_sampler_of_the_policy(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.directory, run)
    evaluations = {name: evaluate(cli, run, "teacher", name, 5).nfe for name in SAMPLERS["teacher"]}
    assert evaluations == {"heun": 7, "euler": 4, "euler-ancestral": 4, "dpmpp-2m": 4, "ddim": 4}
    evaluations = {name: evaluate(cli, run, "student", name, 3).nfe for name in SAMPLERS["student"]}
    assert evaluations == {"consistency": 3, "central": 3, "jumps": 3}


def test_the_result_says_how_each_row_sampled(trained: Trained) -> None:
    rows = rows_of(trained.directory)
    assert (rows["teacher"].sampler, rows["teacher"].steps) == ("heun", 10)
    assert (rows["RACTD, 4 steps"].sampler, rows["RACTD, 4 steps"].steps) == ("consistency", 4)


@pytest.mark.parametrize(
    ("policy", "words", "named"),
    [
        ("student", ["--sampler", "magic"], ["'magic'", "expected one of consistency, central, jumps for a student"]),
        ("student", ["--sampler", "heun"], ["'heun' (a teacher's)", "consistency, central, jumps"]),
        ("teacher", ["--sampler", "consistency"], ["(a student's)", "heun, euler, euler-ancestral, dpmpp-2m, ddim"]),
        ("teacher", ["--sampler", "euler", "--steps", "0"], ["steps is 0", "2 to 1000", "euler"]),
        ("teacher", ["--steps", "-5"], ["steps is -5", "2 to 1000", "heun"]),
        ("student", ["--steps", "0"], ["steps is 0", "1 to 1000", "consistency"]),
        ("student", ["--sampler", "central", "--candidates", "2"], ["candidates is 2, expected 1", "draws no noise"]),
        ("student", ["--sampler", "jumps", "--steps", "-1"], ["steps is -1", "jumps"]),
    ],
)
def test_what_a_policy_can_not_do(policy: str, words: list[str], named: list[str], trained: Trained, cli: Cli) -> None:
    before = sorted(trained.directory.rglob("*"))
    assert_refused(cli("eval", trained.directory, "--policy", policy, *words), *named)
    assert sorted(trained.directory.rglob("*")) == before, "nothing is written"


@pytest.fixture(scope="module")
def ddpm_options() -> list[str]:
    return [*options(), "--teacher.parametrization", "ddpm", "--teacher.ddpm.timesteps", "12"]


def test_a_ddpm_teacher_is_trained_scored_and_has_no_student(
    pendulum: Path, trained: Trained, cli: Cli, tmp_path: Path, ddpm_options: list[str]
) -> None:
    run = tmp_path / "run"
    answer = cli("train", pendulum, "--out", run, *ddpm_options)
    assert answer.code == 0, answer.err
    assert "a student is distilled along the PF-ODE of an EDM teacher, and this one is a DDPM" in answer.out
    assert str(run / "policy" / "teacher") in answer.out.splitlines()[-1]
    assert [path.name for path in (run / "policy").iterdir()] == ["teacher"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["return", "teacher"]
    result = json.loads((run / "result.json").read_text())
    assert result["complete"]
    ((name, row),) = rows_of(run).items()
    assert (name, row.sampler, row.steps, row.nfe) == ("teacher", "ddpm", 12, 12)
    assert len(row.returns) == 4
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines if "noise" in line} == {"teacher"}

    assert evaluate(cli, run, "teacher", "ddim", 4).nfe == 4
    assert_refused(
        cli("eval", run, "--policy", "teacher", "--sampler", "heun"), "heun", "ddpm, ddim for a DDPM teacher"
    )
    assert_refused(cli("eval", run, "--policy", "teacher", "--steps", "13"), "steps is 13", "1 to 12", "ddpm")
    assert_refused(cli("eval", run), "no policy 'student'", "it has teacher")
    out = tmp_path / "refused"
    assert_refused(
        cli("train", pendulum, "--teacher", run, "--out", out, *options()),
        str(run),
        "EDM teacher",
        "this one is a DDPM",
    )
    assert not out.exists()


@pytest.mark.parametrize(
    "words",
    [["--only", "student"], ["--reward-weight", "0.5"], ["--student-network", "cpu-small"]],
    ids=lambda words: words[0],
)
def test_a_student_of_a_ddpm_teacher_is_refused(
    words: list[str], pendulum: Path, cli: Cli, tmp_path: Path, ddpm_options: list[str]
) -> None:
    out = tmp_path / "refused"
    assert_refused(cli("train", pendulum, "--out", out, *ddpm_options, *words), words[0], "EDM teacher", "DDPM")
    assert not out.exists()


def test_a_reward_aware_ddpm_teacher_is_refused(
    pendulum: Path, cli: Cli, tmp_path: Path, ddpm_options: list[str]
) -> None:
    out = tmp_path / "refused"
    answer = cli("train", pendulum, "--out", out, *ddpm_options, "--teacher.reward-weight", "0.5")
    assert_refused(answer, "--teacher.reward-weight is 0.5", "expected 0 for a DDPM teacher")
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("timesteps", "0"), ("timesteps", "-4"), ("clip", "0"), ("timesteps", "20000")],
)
def test_impossible_schedules(option: str, value: str, pendulum: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "refused"
    words = ["--preset", "cpu", "--teacher.parametrization", "ddpm", f"--teacher.ddpm.{option}", value]
    answer = cli("train", pendulum, "--out", out, *words)
    assert_refused(answer, f"--teacher.ddpm.{option} is {value}")
    assert not out.exists()


@pytest.mark.slow
def test_a_reward_aware_teacher_is_trained_after_the_return_model(
    pendulum: Path, trained: Trained, cli: Cli, tmp_path: Path
) -> None:
    """Stage by stage: the teacher wants R first, its metrics show the reward, the plain student is distilled from it."""
    run = tmp_path / "run"
    arguments = ("train", pendulum, "--out", run, *options(), "--teacher.reward-weight", "auto")
    assert_refused(cli(*arguments, "--only", "teacher"), "its return is not trained; run with --only return first")
    for stage in ("return", "teacher"):
        answer = cli(*arguments, "--only", stage)
        assert answer.code == 0, answer.err
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = {line["stage"]: line for line in lines}["teacher"]
    assert last["step"] == STEPS
    assert {"dsm", "reward", "bound", "reward_weight", "estimated_return", "out_of_bounds"} <= last.keys()
    assert last["reward_weight"] > 0
    plain = [json.loads(line) for line in (trained.directory / "metrics.jsonl").read_text().splitlines()]
    assert not any("reward" in line for line in plain if line["stage"] == "teacher"), "the default teacher has none"

    answer = cli(*arguments)
    assert answer.code == 0, answer.err
    weights = {name: Policy.load(run / "policy" / name).provenance["reward_weight"] for name in ("teacher", "plain")}
    assert weights == {"teacher": "auto", "plain": 0}
    rows = rows_of(run)
    assert {"RACTD", "plain student", "teacher"} <= rows.keys(), "the two cells of the reward-aware teacher and itself"


def test_a_run_from_before_an_option_goes_on_with_its_default(trained: Trained, cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.directory, run)
    config = json.loads((run / "config.json").read_text())
    for option in ("parametrization", "ddpm", "reward_weight"):
        del config["config"]["teacher"][option]
    (run / "config.json").write_text(json.dumps(config))
    answer = cli("train", trained.dataset, "--out", run, *options())
    assert answer.code == 0, answer.err
    assert "is finished" in answer.out
    changed = cli("train", trained.dataset, "--out", run, *options(), "--teacher.parametrization", "ddpm")
    assert_refused(changed, "config.teacher.parametrization is 'edm' there and 'ddpm' now")
