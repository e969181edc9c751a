"""The command line as a process, start to end on a tiny dataset."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ENV_ID, STEPS, Answer, Trained, assert_same_tensors, options, pendulum_data, rows_of
from dataset_factory import save_npz

from ractd.commands.data import List
from ractd.commands.train import Train
from ractd.data import load_dataset
from ractd.data.windows import Windows
from ractd.methods.ractd_settings import PRESETS
from ractd.policies import Policy

Command = Callable[..., Answer]
POLICIES = ("teacher", "plain", "student")
STAGES = ("return", *POLICIES)
ROWS = ("behaviour data", "teacher", "plain student", "RACTD", "RACTD, 32 candidates", "RACTD, 2 steps")


def table(text: str) -> list[str]:
    """The lines of a table."""
    return [line for line in text.splitlines() if line.startswith(("┃", "│"))]


def test_train_prints_the_result_table_and_where_the_policy_is(trained: Trained) -> None:
    lines = table(trained.answer.out)
    for row in ROWS:
        shown = sum(line.split("│")[1].strip() == row for line in lines if line.startswith("│"))
        assert shown == (2 if row in ("RACTD", "plain student") else 1), (
            f"{row}: the best checkpoint, and the last beside it"
        )
    assert "return ± s.e." in lines[0]
    assert re.search(r"│ RACTD +│ best +│ +\d\d\.\d ± \d+\.\d │", trained.answer.out), "three digits, whatever the unit"
    caption = " ".join(trained.answer.out.split())
    assert f"4 episodes in {ENV_ID}" in caption
    assert "times: batch 1, 1 thread, medians, policies in turns, 80% of calls within " in caption
    assert str(trained.directory / "policy" / "student") in trained.answer.out.splitlines()[-1], "whole, on one line"


def test_the_padded_share_is_reported(trained: Trained) -> None:
    share = Windows(load_dataset(trained.dataset), PRESETS["cpu"].horizon).padded_share
    assert share > 0.05
    said = f"3,000 windows, {share:.1%} of their actions repeat an episode's last one"
    assert said in trained.answer.out
    assert said in (trained.directory / "log.txt").read_text()


def test_output_in_a_pipe_has_no_ansi_codes(trained: Trained) -> None:
    assert "\x1b[" not in trained.answer.out + trained.answer.err


def test_a_run_directory_holds_everything(trained: Trained) -> None:
    run = trained.directory
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["teacher"]["network"]["width"] == 32
    assert config["config"]["student"]["reward_weight"] == "auto", "what depends on the dataset is filled in"
    assert len(config["dataset"]["fingerprint"]) == 64
    (invocation,) = config["invocations"]
    assert invocation["command"][1:3] == ["train", str(trained.dataset)]
    assert {"ractd", "torch", "python"} <= invocation["versions"].keys()
    for policy in POLICIES:
        assert sorted(item.name for item in (run / "policy" / policy).iterdir()) == [
            "config.json",
            "policy.safetensors",
        ]
    for stage in STAGES:
        assert (run / "checkpoints" / stage / "last.safetensors").stat().st_size
        assert list((run / "tensorboard" / stage).glob("events.out.tfevents.*"))
    assert not list(run.rglob("*.partial"))
    assert (run / "log.txt").read_text().strip(), "what the user was told is kept"


def test_metrics_name_every_loss_term_of_every_stage(trained: Trained) -> None:
    lines = [json.loads(line) for line in (trained.directory / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [
        (stage, step) for stage in STAGES for step in range(50, STEPS + 1, 50)
    ]
    by_stage = {line["stage"]: line for line in lines}
    common = {"loss", "gradient_norm", "samples_per_second", "learning_rate"}
    assert common | {"return_mse", "validation_mse"} <= by_stage["return"].keys()
    assert common | {"dsm"} <= by_stage["teacher"].keys()
    terms = {"ctm", "dsm", "reward", "bound", "reward_weight", "estimated_return", "out_of_bounds", "episode_return"}
    assert common | terms <= by_stage["student"].keys()
    assert by_stage["plain"]["reward_weight"] == 0
    assert by_stage["student"]["reward_weight"] > 0


def test_a_best_checkpoint_counts_by_the_episodes_that_confirm_it(trained: Trained) -> None:
    lines = [json.loads(line) for line in (trained.directory / "metrics.jsonl").read_text().splitlines()]
    scored = [line for line in lines if line["stage"] == "student" and "episode_return" in line]
    best = -math.inf
    for line in scored:
        assert ("confirmed_return" in line) == (line["episode_return"] > best)
        best = max(best, line.get("confirmed_return", -math.inf))
    step = rows_of(trained.directory)["RACTD"].step
    assert best == pytest.approx(next(line["confirmed_return"] for line in scored if line["step"] == step))


def test_the_result_says_how_it_was_measured(trained: Trained) -> None:
    result = json.loads((trained.directory / "result.json").read_text())
    assert result["complete"] is True
    assert result["dataset"]["transitions"] == 3000
    returns = load_dataset(str(trained.dataset)).episode_returns()
    assert result["behavior"]["episodes"] == len(returns) > 100
    np.testing.assert_allclose(result["behavior"]["returns"], returns, rtol=1e-5)
    rows = rows_of(trained.directory)
    assert [row["variant"] for row in result["rows"]] == [row.variant for row in rows.values()], (
        "the one that it is about first"
    )
    teacher, student = rows["teacher"], rows["RACTD"]
    processor = {name: stage["processor_seconds"] for name, stage in result["stages"].items()}
    assert teacher.processor_seconds == processor["teacher"] > 0
    assert student.processor_seconds == pytest.approx(sum(processor[name] for name in ("return", "teacher", "student")))
    assert teacher.nfe == 17, "10 bins of Heun, the last step Euler's"
    assert student.nfe == 1
    assert (student.selection, student.checkpoint) == ("online", "best")
    assert (teacher.selection, teacher.checkpoint) == ("last", "last")
    assert student.protocol is not None
    assert student.protocol.episodes == len(student.returns) == len(student.lengths) == len(student.terminated) == 4
    assert student.protocol.env_id == ENV_ID
    assert (student.method, student.policy, student.dataset, student.seed) == ("ractd", "student", "pendulum", 0)
    for row, content in zip(rows.values(), result["rows"], strict=True):
        assert row.ms_per_action is not None
        assert row.ms_per_action > 0
        error = np.std(content["returns"], ddof=1) / 2
        assert (content["mean_return"], content["return_se"]) == pytest.approx((np.mean(content["returns"]), error))


def test_policy_files_can_be_read_by_whoever_may_read_the_run(trained: Trained) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for path in (trained.directory / "policy").rglob("*.*"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path


def test_a_finished_run_shows_its_result_and_trains_nothing(trained: Trained, cli: Command) -> None:
    def state() -> dict[str, int]:
        kept = [*(trained.directory / "checkpoints").rglob("*.safetensors"), trained.directory / "metrics.jsonl"]
        return {str(path): path.stat().st_mtime_ns for path in [*kept, trained.directory / "result.json"]}

    before = state()
    again = cli("train", trained.dataset, "--out", trained.directory, *options())
    assert again.code == 0, again.err
    assert "is finished" in again.out
    assert table(again.out) == table(trained.answer.out)
    assert state() == before


def test_stages_one_by_one_end_with_the_weights_of_a_whole_run(trained: Trained, cli: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("train", trained.dataset, "--out", out, "--no-plain", *options())
    early = cli(*arguments, "--only", "student")
    assert early.code == 2
    assert "its return is not trained; run with --only return first" in early.err
    for stage, made in (
        ("return", set()),
        ("teacher", {"teacher"}),
        ("student", {"teacher", "student", "student-last"}),
    ):
        answer = cli(*arguments, "--only", stage)
        assert answer.code == 0, answer.err
        assert {path.name for path in (out / "policy").glob("*")} == made
        assert (out / "checkpoints" / stage / "last.safetensors").exists()
    assert not (out / "result.json").exists()
    for policy in ("teacher", "student"):
        weights = Path("policy") / policy / "policy.safetensors"
        assert_same_tensors(out / weights, trained.directory / weights)


def test_a_student_from_a_run_that_has_a_teacher_alone(pendulum: Path, cli: Command, tmp_path: Path) -> None:
    """The stages in any order: once both are there, the run is a teacher to others."""
    run, words = tmp_path / "run", ("train", pendulum, *options())
    student = (*words, "--teacher", run, "--only", "student", "--out", tmp_path / "student")
    assert cli(*words, "--out", run, "--only", "teacher").code == 0
    answer = cli(*student)
    assert answer.code == 2
    assert f"{run}: it has no policy/teacher" in " ".join(answer.err.split())
    assert not (tmp_path / "student").exists()
    assert cli(*words, "--out", run, "--only", "return").code == 0
    answer = cli(*student)
    assert answer.code == 0, answer.err
    assert {path.name for path in (tmp_path / "student" / "policy").iterdir()} == {"teacher", "student", "student-last"}


def test_a_new_student_from_the_teacher_of_another_run(trained: Trained, cli: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("--teacher", trained.directory, "--reward-weight", "0.5", "--out", out, *options(False))
    answer = cli("train", trained.dataset, *words)
    assert answer.code == 0, answer.err
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["student"], "nothing else is trained"
    for name in ("teacher", "plain"):
        assert_same_tensors(*(run / "policy" / name / "policy.safetensors" for run in (out, trained.directory)))
    rows = rows_of(out)
    assert Policy.load(out).provenance["reward_weight"] == 0.5
    assert (rows["RACTD"].selection, rows["RACTD"].checkpoint) == ("last", "last")
    assert "episode_return" not in (out / "metrics.jsonl").read_text(), "by default nothing is played on the way"
    assert rows["teacher"].returns == rows_of(trained.directory)["teacher"].returns
    assert rows["RACTD"].processor_seconds is None, "its teacher was trained elsewhere"


def test_eval_scores_a_policy_as_asked_and_keeps_the_numbers(trained: Trained, command: Command) -> None:
    answer = command(
        *("eval", trained.directory, "--policy", "student", "--episodes", "3", "--execute", "2"),
        *("--candidates", "5", "--steps", "3", "--seed", "1"),
    )
    assert answer.code == 0, answer.err
    row = rows_of(trained.directory / "evaluations" / "student-e3-x2-n5-consistency-k3-s1.json")["student"]
    assert (row.candidates, row.steps, row.nfe) == (5, 3, 3)
    assert row.protocol is not None
    assert (row.protocol.episodes, row.protocol.execute) == (3, 2)
    assert "3 steps, 5 candidates, 3 network evaluations" in answer.out
    assert "first 2 actions of each sequence" in answer.out


def test_eval_repeats_its_numbers_and_knows_the_teacher(trained: Trained, cli: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.directory, run)
    returns = []
    for _ in range(2):
        assert cli("eval", run, "--policy", "teacher", "--episodes", "2", "--steps", "4").code == 0
        (path,) = (run / "evaluations").glob("teacher-*.json")
        returns.append(rows_of(path)["teacher"].returns)
        path.unlink()
    assert returns[0] == returns[1]


def test_eval_elsewhere_does_not_replace_the_numbers_of_the_policys_own_environment(
    trained: Trained, cli: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.directory / "policy", run / "policy")
    for words in ((), ("--env", "InvertedPendulum-v4")):
        answer = cli("eval", run, "--episodes", "1", *words)
        assert answer.code == 0, answer.err
        assert "±" not in answer.out, "one episode has no standard error"
    protocols = {path.name: rows_of(path)["student"].protocol for path in (run / "evaluations").iterdir()}
    name = "student-e1-x1-n1-consistency-k1-s0"
    assert {key: protocol.env_id for key, protocol in protocols.items() if protocol} == {
        f"{name}.json": ENV_ID,
        f"{name}-InvertedPendulum-v4.json": "InvertedPendulum-v4",
    }


def test_a_dataset_without_environment_trains_to_offline_estimates(cli: Command, tmp_path: Path) -> None:
    path = tmp_path / "logs.npz"
    save_npz(path, replace(pendulum_data(rows=800), env_id=None))
    short = {f"--{stage}.optimization.steps": "50" for stage in ("return-model", "teacher", "student")}
    answer = cli("train", path, "--out", tmp_path / "run", "--no-plain", *options(**short))
    assert answer.code == 0, answer.err
    assert "estimated return" in table(answer.out)[0]
    assert "No environment was given" in answer.out
    rows = rows_of(tmp_path / "run")
    assert "plain student" not in rows
    for row in rows.values():
        assert (row.protocol, row.returns) == (None, ())
        assert row.offline.keys() == {"estimated_return", "estimated_return_of_data", "distance_to_data"}
    assert rows["RACTD"].selection == "last", "there is nothing to select by"


def test_data_commands(trained: Trained, command: Command, cli: Command, tmp_path: Path) -> None:
    made = command("data", "make", "hopper-mixed", "--steps", "600", "--directory", tmp_path)
    assert made.code == 0, made.err
    path = tmp_path / "hopper-mixed.hdf5"
    assert str(path) in made.out
    before = path.read_bytes()
    again = cli("data", "make", "hopper-mixed", "--steps", "600", "--directory", tmp_path)
    assert (again.code, path.read_bytes()) == (0, before)
    assert "there already" in again.out
    shown = cli("data", "inspect", path)
    assert shown.code == 0, shown.err
    assert "Hopper-v5" in shown.out
    assert re.search(r"transitions\s*│ 600 ", shown.out)
    listed = cli("data", "list")
    assert listed.code == 0, listed.err
    assert re.search(r"hopper-mixed +│", listed.out)
    assert re.search(r"│ hopper-\S+ and ", listed.out)
    assert {"hopper-mixed", "hopper-medium-replay-v2"} <= set(cli("data", "list", "--all").out.split())
    valid = cli("data", "validate", trained.dataset)
    assert (valid.code, "0 errors" in valid.out) == (0, True), valid.out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("train",),
        ("eval",),
        ("data",),
        ("data", "list"),
        ("data", "inspect"),
        ("data", "validate"),
        ("data", "make"),
        ("data", "collect"),
    ],
    ids=lambda arguments: " ".join(arguments) or "ractd",
)
def test_help_of_every_command(arguments: tuple[str, ...], cli: Command) -> None:
    answer = cli(*arguments, "--help")
    assert answer.code == 0
    assert f"usage: ractd {' '.join(arguments)}".strip() in answer.out
    assert answer.err == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data", "list"), "stopped"),
        (("train", "a b.hdf5"), "stopped; go on from the last checkpoint with: ractd train 'a b.hdf5'"),
    ],
)
def test_ctrl_c_names_a_checkpoint_where_there_can_be_one(
    words: tuple[str, ...], said: str, cli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(command: object) -> None:
        raise KeyboardInterrupt

    for kind in (Train, List):
        monkeypatch.setattr(kind, "run", interrupt)
    answer = cli(*words)
    assert (answer.code, answer.err) == (130, said + "\n")


def test_no_arguments_is_help(cli: Command) -> None:
    assert "usage: ractd" in cli().out


def test_a_preset_is_where_the_options_start_from(cli: Command) -> None:
    answer = cli("train", "--preset", "mujoco", "--help-all")
    assert "(default: 512 1024 2048)" in answer.out


@pytest.mark.parametrize("no_color", [{}, {"NO_COLOR": "1"}])
def test_no_color_is_respected(no_color: dict[str, str], command: Command) -> None:
    answer = command("data", "inspect", "missing.hdf5", env={"FORCE_COLOR": "1", "TERM": "xterm-256color", **no_color})
    assert answer.code == 2
    # Bold is no colour: what NO_COLOR forbids are the codes 30 to 49 and 90 to 107.
    colors = re.findall(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m", answer.err)
    assert bool(colors) is not bool(no_color)
