"""Rows of runs; a run of a method that isn't RACTD's, of which nobody knows a name; runs of the first edition."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Answer, Trained, pendulum_data, rows_of

from ractd.errors import RactdError
from ractd.methods.bc import BC, BCConfig
from ractd.networks.actor import Actor
from ractd.policies import Policy
from ractd.runs.rows import Result, Row, frame, labels, read_result, read_row, select
from ractd.runs.train import train
from ractd.settings import Evaluation, Optimization


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of behaviour cloning, its best checkpoint beside its last."""
    out = tmp_path_factory.mktemp("runs") / "cloned"
    config = BCConfig(
        bc=BC(network=Actor(layers=(16,)), optimization=Optimization(60, batch_size=32)),
        evaluation=Evaluation(episodes=3, select="online", checkpoints=3, checkpoint_episodes=2),
    )
    train(pendulum_data(800), method="bc", config=config, out=out)
    return out


def test_the_last_checkpoint_is_a_row_beside_the_best(cloned: Path) -> None:
    rows = rows_of(cloned)
    assert list(rows) == ["BC", "BC, last checkpoint"]
    best, last = rows.values()
    assert (best.method, best.policy, best.checkpoint, best.selection) == ("bc", "bc", "best", "online")
    assert (last.variant, last.policy, last.checkpoint, last.selection, last.step) == (
        "BC",
        "bc-last",
        "last",
        "last",
        60,
    )
    assert best.offline.keys() == {"distance_to_data"}, "it has no critic"
    assert best.processor_seconds == last.processor_seconds
    assert best.processor_seconds is not None
    assert best.processor_seconds > 0


def test_what_names_no_policy_means_the_one_that_the_method_is_about(
    cloned: Path, cli: Callable[..., Answer], tmp_path: Path
) -> None:
    result = read_result(cloned)
    assert result is not None
    assert Policy.load(cloned).method == result.policy().method == "bc"
    answer = cli("eval", cloned, "--episodes", "2")
    assert answer.code == 0, answer.err
    assert "bc in InvertedPendulum-v5" in answer.out
    answer = cli("eval", cloned, "--episodes", "2", "--policy", "bc-last")
    assert answer.code == 0, answer.err
    assert "times that of bc, timed in turns with it" in answer.out
    answer = cli("export", cloned, "-o", tmp_path / "exported")
    assert answer.code == 0, answer.err
    score = json.loads((tmp_path / "exported" / "policy.json").read_text())["score"]
    assert (score["mean_return"], score["episodes"]) == (result.row("BC").mean_return, 3)
    answer = cli("eval", cloned, "--policy", "student")
    assert answer.code == 2
    assert "no policy 'student'; it has bc, bc-last" in answer.err


def test_its_report_and_table_show_both(cloned: Path, cli: Callable[..., Answer]) -> None:
    answer = cli("report", cloned, "--no-video")
    assert answer.code == 0, answer.err
    assert "BC, last checkpoint" in (cloned / "report.html").read_text()


def test_a_row_is_the_same_after_it_was_written(trained: Trained, tmp_path: Path) -> None:
    result = read_result(trained.directory)
    assert result is not None
    for row in result.rows:
        content = json.loads(json.dumps(row.to_json()))
        assert read_row(content, "here") == row
        assert content["mean_return"] == pytest.approx(np.mean(row.returns))
        assert content["return_se"] == pytest.approx(np.std(row.returns, ddof=1) / np.sqrt(len(row.returns)))
    assert [row.steps for row in select(result.rows, policy="student", candidates=1)][:1] == [1]


def test_rows_as_a_frame(trained: Trained) -> None:
    result = read_result(trained.directory)
    assert result is not None
    table = frame(result.rows)
    assert list(table["variant"]) == [row.variant for row in result.rows]
    assert set(table["env_id"]) == {"InvertedPendulum-v5"}
    assert len(table.explode("returns")) == sum(len(row.returns) for row in result.rows)
    assert table["mean_return"].tolist() == [row.mean_return for row in result.rows]
    assert table["evaluation_seed"].tolist() == [0] * len(table)


def row(**columns: object) -> Row:
    """A row of a policy that was not measured yet."""
    facts = {"method": "m", "variant": "v", "policy": "p", "dataset": "d", "seed": 0, "checkpoint": "last"}
    facts |= {"selection": "last", "step": 1, "sampler": "s", "steps": 1, "candidates": 1, "nfe": 1, "plans": False}
    return read_row(facts | columns, "here")


def test_what_was_not_measured_is_none() -> None:
    empty = row()
    derived = ("mean_return", "return_se", "mean_score", "score_se", "mean_length", "success_rate", "estimated_return")
    assert {getattr(empty, name) for name in derived} == {None}
    assert row(returns=[1.0]).return_se is None, "one episode has no standard error"


def test_checkpoints_of_one_variant_are_told_apart() -> None:
    rows = [row(checkpoint="best"), row(), row(variant="teacher")]
    assert labels(rows) == ["v", "v, last checkpoint", "teacher"]
    assert labels(rows[1:]) == ["v", "teacher"], "nothing to tell it from"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"returns": [1, "two"]}, r"here: Expected `float`, got `str` - at `\$.returns\[1\]`"),
        ({"checkpoint": "first"}, "here: Invalid enum value 'first' - at `\\$.checkpoint`"),
        ({"seed": "zero"}, r"here: Expected `int \| null`, got `str` - at `\$.seed`"),
    ],
)
def test_a_damaged_row_is_named(columns: dict[str, object], said: str) -> None:
    with pytest.raises(RactdError, match=said):
        row(**columns)


# --- runs of the first edition --------------------------------------------------------------------------------------


@pytest.fixture
def first_edition(cloned: Path, tmp_path: Path) -> Path:
    """A run as ractd 0.1 left it, as far as it is read."""
    run = tmp_path / "old"
    shutil.copytree(cloned, run)
    (run / "policy" / "bc").rename(run / "policy" / "student")
    for path in (run / "config.json", *run.glob("policy/*/config.json")):
        content = json.loads(path.read_text())
        content.pop("policy", None)
        path.write_text(json.dumps(content | {"format_version": 1}))
    old = {"format": "ractd-result", "format_version": 1, "complete": True, "rows": {"RACTD": {"nfe": 1}}}
    (run / "result.json").write_text(json.dumps(old))
    return run


@pytest.mark.parametrize("command", ["train", "eval", "report", "export"])
def test_a_run_of_the_first_edition_is_refused_in_a_sentence(
    command: str, first_edition: Path, trained: Trained, cli: Callable[..., Answer], tmp_path: Path
) -> None:
    words = {
        "train": ("train", trained.dataset, "--out", first_edition),
        "eval": ("eval", first_edition),
        "report": ("report", first_edition, "--no-video"),
        "export": ("export", first_edition, "-o", tmp_path / "exported"),
    }
    before = {path: path.read_bytes() for path in first_edition.rglob("*") if path.is_file()}
    answer = cli(*words[command])
    assert answer.code == 2, answer.out
    assert len(answer.err.strip().splitlines()) == 1, answer.err
    assert "first edition" in answer.err
    after = {path: path.read_bytes() for path in first_edition.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == {path: content for path, content in before.items() if path.name != ".lock"}
    assert not (tmp_path / "exported").exists()


def test_an_evaluation_of_the_first_edition_is_refused(
    trained: Trained, cli: Callable[..., Answer], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.directory, run)
    (run / "evaluations").mkdir(exist_ok=True)
    (run / "evaluations" / "student-e1.json").write_text(json.dumps({"nfe": 1, "evaluation": {"returns": [1.0]}}))
    answer = cli("export", run, "-o", tmp_path / "exported")
    assert answer.code == 2
    assert "student-e1.json: is a result of the first edition (format 1)" in answer.err


def test_a_result_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(RactdError, match=r"result\.json: is no result of ractd in format 2"):
        read_result(tmp_path)
    Result(tmp_path, {"complete": False}).write(tmp_path / "result.json")
    assert read_result(tmp_path) == Result(tmp_path, {"complete": False}, ())
