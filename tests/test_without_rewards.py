"""Data without rewards are imitated, and nothing is made up about returns; what ends mean stands wherever a run is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Answer, call_command, options, pendulum_data, rows_of
from test_bad_input import assert_refused

from ractd import Policy, RactdError
from ractd.data import write_hdf5

Cli = Callable[..., Answer]


@pytest.fixture(scope="module")
def imitated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A run on data without rewards and without an environment."""
    folder = tmp_path_factory.mktemp("imitated")
    write_hdf5(folder / "logs.hdf5", pendulum_data(500, env_id=None))
    with h5py.File(folder / "logs.hdf5", "r+") as file:
        del file["rewards"]
    return folder, call_command("train", folder / "logs.hdf5", "--out", folder / "run", *options())


def test_a_run_without_rewards_has_a_plain_student_and_no_returns(imitated: tuple[Path, Answer]) -> None:
    folder, answer = imitated
    assert answer.code == 0, answer.err
    assert "there are no rewards, so none of the actions is known to be better than another" in answer.out
    assert "nothing says which policy is better" in " ".join(answer.out.split())
    assert "return" not in answer.out[answer.out.index("┏") : answer.out.index("└")]
    assert sorted(path.name for path in (folder / "run" / "checkpoints").iterdir()) == ["student", "teacher"]
    content = json.loads((folder / "run" / "result.json").read_text())
    assert list(rows_of(folder / "run")) == ["plain student", "teacher"]
    assert set(content["behavior"]) == {"episodes"}
    for row in content["rows"]:
        assert set(row["offline"]) == {"distance_to_data"}
    metrics = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    student = {name for entry in metrics if entry["stage"] == "student" for name in entry}
    assert {"ctm", "dsm", "bound"} <= student
    assert not [name for name in student if "reward" in name or "return" in name or "promise" in name]


def test_a_policy_without_a_return_model_acts_and_says_what_it_cannot_do(
    imitated: tuple[Path, Answer], cli: Cli, tmp_path: Path
) -> None:
    folder, _ = imitated
    policy = Policy.load(folder / "run")
    observation = policy.sequence.normalizer.observation_mean.numpy()
    assert policy.act(observation).shape == (1,)
    with pytest.raises(RactdError, match="candidates is 32, expected 1: the policy has no critic"):
        policy.configured(candidates=32)
    with pytest.raises(RactdError, match="no estimate of returns: the policy has no critic"):
        policy.estimate_return(observation[None], np.zeros((1, 1), np.float32))
    same = Policy.load(policy.save(tmp_path / "copy")).reset(0).act(observation)
    np.testing.assert_array_equal(same, policy.reset(0).act(observation))
    answer = cli("eval", folder / "run", "--env", "InvertedPendulum-v5", "--episodes", "2", "--candidates", "4")
    assert_refused(answer, "candidates is 4", "no critic")
    answer = cli("eval", folder / "run", "--env", "InvertedPendulum-v5", "--episodes", "2")
    assert answer.code == 0, answer.err


def test_a_policy_without_a_return_model_is_exported_and_reported(
    imitated: tuple[Path, Answer], cli: Cli, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    folder = shutil.copytree(imitated[0], tmp_path / "copy", ignore=shutil.ignore_patterns("evaluations"))
    answer = cli("export", folder / "run", "-o", folder / "deployed")
    assert answer.code == 0, answer.err
    contract = json.loads((folder / "deployed" / "policy.json").read_text())
    assert contract["score"]["kind"] == "not measured: only how far it is from the data, which had no rewards"
    assert "episodes end by a" in contract["training"]["ends"]
    answer = cli("report", folder / "run", "--no-video")
    assert answer.code == 0, answer.err
    page = (folder / "run" / "report.html").read_text()
    assert "nothing says which policy is better" in page
    assert "estimated return" not in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reward-weight", "1"], "--student.reward-weight is 1.0, and there are no rewards to weigh"),
        (["--teacher.reward-weight", "1"], "--teacher.reward-weight is 1.0, and there are no rewards to weigh"),
        (["--only", "return"], "--only return: there are no rewards"),
    ],
)
def test_what_needs_rewards_is_refused(
    imitated: tuple[Path, Answer], cli: Cli, tmp_path: Path, words: list[str], said: str
) -> None:
    folder, _ = imitated
    assert_refused(cli("train", folder / "logs.hdf5", "--out", tmp_path / "run", *options(), *words), said)
    assert not (tmp_path / "run").exists()


def test_a_run_without_rewards_goes_on(imitated: tuple[Path, Answer], cli: Cli) -> None:
    folder, _ = imitated
    answer = cli("train", folder / "logs.hdf5", "--out", folder / "run", *options())
    assert answer.code == 0, answer.err
    assert "is finished" in answer.out


@pytest.mark.slow
def test_a_student_of_another_runs_teacher_needs_its_return_model(
    imitated: tuple[Path, Answer], cli: Cli, tmp_path: Path
) -> None:
    folder, _ = imitated
    write_hdf5(tmp_path / "paid.hdf5", pendulum_data(500, env_id=None))
    words = ["train", tmp_path / "paid.hdf5", "--out", tmp_path / "run", "--teacher", folder / "run", *options()]
    answer = cli(*words)
    assert answer.code == 0, answer.err
    assert list(rows_of(tmp_path / "run")) == ["plain student", "teacher"]


@pytest.mark.slow
def test_what_ends_mean_stands_in_result_report_and_policy(cli: Cli, tmp_path: Path) -> None:
    write_hdf5(tmp_path / "logs.hdf5", pendulum_data(500, env_id=None))
    told = {}
    for ends in ("failure", "success"):
        run = tmp_path / ends
        answer = cli("train", tmp_path / "logs.hdf5", "--out", run, "--ends", ends, "--no-plain", *options())
        assert answer.code == 0, answer.err
        told[ends] = json.loads((run / "result.json").read_text())["ends"]
        assert told[ends] in answer.out
        assert json.loads((run / "policy" / "student" / "config.json").read_text())["provenance"]["ends"] == told[ends]
        assert cli("report", run, "--no-video").code == 0
        assert "end by a" in (run / "report.html").read_text()
        found = cli("data", "validate", tmp_path / "logs.hdf5", "--ends", ends)
        assert f"ends: {told[ends]}" in found.out
    assert "end by a failure: -9" in told["failure"]
    assert "of the returns' standard deviation" in told["failure"]
    assert "end by a success: no penalty" in told["success"]
    refused = cli(
        "train", tmp_path / "logs.hdf5", "--out", tmp_path / "success", "--ends", "failure", "--no-plain", *options()
    )
    assert_refused(refused, "dataset.end_kinds")
