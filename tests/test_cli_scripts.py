"""Examples and benchmarks run."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Trained, rows_of
from dataset_factory import make
from safetensors.numpy import load_file, save_file

from ractd.data import write_hdf5
from ractd.files import write_json
from ractd.methods.ractd_settings import PRESETS
from ractd.reproduce import EXPERIMENTS, comparisons
from ractd.reproduce.lines import Line, Measured, TableSource
from ractd.reproduce.tables import PaperTable, write_table
from ractd.runs.rows import read_row

ROOT = Path(__file__).parent.parent
Script = Callable[..., str]


@pytest.fixture
def script(short_scoring: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    """Run a script of the repository in this process, on one thread; return what it printed."""
    import torch

    def run(path: str, *arguments: str | Path) -> str:
        threads = torch.get_num_threads()
        monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
        monkeypatch.syspath_prepend(str((ROOT / path).parent))
        monkeypatch.setenv("COLUMNS", "120")
        torch.set_num_threads(1)
        try:
            runpy.run_path(str(ROOT / path), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
        return capsys.readouterr().out

    return run


@pytest.fixture
def few_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets that sample with ten noise levels."""
    for name, preset in PRESETS.items():
        monkeypatch.setitem(PRESETS, name, replace(preset, diffusion=replace(preset.diffusion, bins=10)))


@pytest.mark.slow
def test_train_from_logs(script: Script, tmp_path: Path) -> None:
    said = script("examples/train_from_logs.py", "--out", tmp_path / "run", "--steps", "100")
    assert re.search(r"^estimated return-to-go -?\d", said, re.MULTILINE)
    assert re.search(r"it pushes with [+-]\d", said)
    assert rows_of(tmp_path / "run")["RACTD"].protocol is None


def test_control_loop(script: Script, trained: Trained, tmp_path: Path) -> None:
    from ractd.export import export_policy

    export_policy(trained.directory, tmp_path / "deployed")
    words = ("examples/control_loop.py", tmp_path / "deployed", "--hz", "500", "--seconds", "0.1")
    said = script(*words)
    assert said.startswith("50 actions; sensors to action in us: p50 ")
    counts = [int(line.split()[3]) for line in said.splitlines() if line.startswith("  ")]
    assert len(counts) == 20
    assert (sum(counts[:10]), sum(counts[10:])) == (50, 50)
    assert "deadlines missed: 0, actions held: 0" in said
    assert "deadlines missed: 0," in script(*words, "--deadline-ms", "60000", "--execute", "2")
    assert "deadlines missed: 0," in script(*words, "--background", "--execute", "2")


@pytest.mark.slow
def test_plan_a_maze(script: Script, few_levels: None, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "run", "--transitions", "2000", "--share", "0.002", "--episodes", "5")
    said = script("examples/plan_a_maze.py", *words)
    for label in ("teacher", "plain student", "RACTD"):
        assert re.search(rf"^{label}: came to the goal in \d+% of the episodes", said, re.MULTILINE)
    assert re.search(r"planned to end at \[.*\], walked to \[.*\], wanted \[3. 3.\]", said)
    assert (tmp_path / "run" / "plans.png").exists()


def test_compare_candidates(script: Script, trained: Trained) -> None:
    words = ("--candidates", "1", "3", "--steps", "1", "2", "--episodes", "2")
    said = script("examples/compare_candidates.py", trained.directory, *words)
    rows = [tuple(cell.strip() for cell in line.split("│")[1:3]) for line in said.splitlines() if line[0] == "│"]
    assert rows == [("1", "1"), ("1", "2"), ("3", "1"), ("3", "2")]


@pytest.mark.slow
def test_the_training_benchmark_covers_every_stage(script: Script) -> None:
    said = script("benchmarks/training.py", "--quick", "--threads", "1")
    for network in ("mlp", "unet"):
        for stage in ("return", "teacher", "student"):
            assert f"{network}, {stage}" in said
    assert "GEMM peak" in said


@pytest.mark.slow
def test_the_inference_benchmark_counts_157_evaluations(script: Script, trained: Trained) -> None:
    said = script("benchmarks/inference.py", "--quick", "--threads", "1")
    assert "against 157" in said
    for label in ("mlp, batch 1", "unet, batch 2"):
        assert label in said
    assert "trained, batch 1" in script("benchmarks/inference.py", "--quick", "--run", trained.directory)


def pendulum(path: Path) -> Path:
    """Write a dataset that can be trained on in a moment and played."""
    write_hdf5(path, make(lengths=(40, 30, 50), name=path.stem, env_id="InvertedPendulum-v5", obs=4, act=1))
    return path


def finite(row: Any) -> bool:
    """Whether there are numbers in it, and all of them are finite."""
    numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", json.dumps(row, allow_nan=False))]
    return bool(numbers) and bool(np.isfinite(numbers).all())


@pytest.mark.slow
def test_the_gpu_benchmark_has_every_section_on_a_cpu(script: Script, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    data = pendulum(tmp_path / "pendulum.hdf5")
    words = ("--device", "cpu", "--tiny", "--minutes", "0.25", "--data", data, "--out", out)
    assert str(out) in script("benchmarks/gpu.py", *words)
    result = json.loads(out.read_text())
    assert result["network"]["down_dims"] == [16, 32]
    assert result["card"]["name"].startswith("CPU")
    for stage, precision in product(("return", "teacher", "student"), ("fp32", "bf16")):
        row = result["training"][f"{stage}, {precision}"]
        assert finite(row)
        assert row["samples_per_second"]["median"] == pytest.approx(1e3 * row["batch_size"] / row["ms_per_step"])
    for batch in (1, 4):
        row = result["action"][f"batch {batch}"]
        assert finite(row["ms"])
        # Each engine computes what the eager policy does, in bfloat16 to its three digits.
        differences = row["largest_difference_from_eager"]
        assert max(differences["folded"], differences["fixed levels"]) < 1e-5
        assert 0 < differences["fixed levels, bf16"] < 0.05
        assert differences.get("teacher, fixed levels", 0.0) < 1e-4
        assert row["not_captured"]["CUDA graph"].startswith("skipped")
        compiled = result["action"][f"torch.compile, batch {batch}"]
        assert finite(compiled["ms"])
        assert compiled["largest_difference_from_eager"] < 1e-5
    assert result["action"]["batch 1"]["teacher_evaluations"] == 17
    assert result["action"]["batch 1"]["ratio"]["eager"] > 1
    policy = result["policy"]
    assert min(policy["steps"].values()) >= 20
    for name in ("student, last checkpoint", "student, best checkpoint", "teacher, 8 bins"):
        assert policy[name]["protocol"]["env_id"] == "InvertedPendulum-v5"
        assert finite(policy[name]["returns"])
    assert policy["student, last checkpoint"]["step"] == policy["steps"]["student"]


def test_the_gpu_benchmark_keeps_what_it_has(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_action
    import gpu_sections

    out = tmp_path / "gpu.json"
    words = ("--device", "cpu", "--tiny", "--data", pendulum(tmp_path / "a.hdf5"), "--out", out)

    def slow(work: object, keep: Callable[[str, object], None], seconds: float) -> None:
        keep("before", 1.0)
        with gpu_sections.time_limit(0.05), suppress(Exception):
            while True:
                time.sleep(0.01)

    def broken(work: object, keep: Callable[[str, object], None], seconds: float) -> None:
        keep("before", 2.0)
        raise ValueError("no such kernel\nand a long trace")

    def stopped(work: object, keep: Callable[[str, object], None], seconds: float) -> None:
        keep("before", 3.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_sections, "training", slow)
    monkeypatch.setattr(gpu_action, "action", broken)
    monkeypatch.setattr(gpu_sections, "policy", stopped)
    with pytest.raises(SystemExit) as stop:
        script("benchmarks/gpu.py", *words)
    assert stop.value.code == 130
    result = json.loads(out.read_text())
    assert result["card"]["torch"]
    assert result["training"]["before"] == 1.0
    assert "were over" in result["training"]["stopped"]
    assert result["action"]["failed"] == "ValueError: no such kernel"
    assert result["policy"] == {"before": 3.0}
    assert "by the user" in result["stopped"]
    monkeypatch.setattr(gpu_sections, "training", stopped)
    with pytest.raises(SystemExit):
        script("benchmarks/gpu.py", *words)
    result = json.loads(out.read_text())
    assert result["card"]["torch"]
    assert result["training"] == {"before": 3.0}
    assert "action" not in result
    assert list(tmp_path.glob(".*")) == []
    if not torch.cuda.is_available():
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            script("benchmarks/gpu.py", "--out", tmp_path / "none.json")
        assert stop.value.code == 2
        assert capsys.readouterr().err == "gpu.py finds no CUDA device here; try it with --device cpu --tiny\n"
        assert not (tmp_path / "none.json").exists()


@pytest.mark.slow
def test_the_latency_benchmark_goes_on_where_it_stopped(script: Script, tmp_path: Path) -> None:
    words = (
        "benchmarks/latency.py",
        "--quick",
        "--out",
        tmp_path / "latency.json",
        "--networks",
        "mlp",
        "--batches",
        "1",
    )
    said = script(*words, "--engines", "eager", "onnx", "--sampling", "1 step")
    assert "ractd_runtime" in said
    cells = json.loads((tmp_path / "latency.json").read_text())["cells"]
    assert set(cells) == {f"mlp, {e}, 1 step, batch 1" for e in ("eager", "onnx")}
    for cell in cells.values():
        assert 0 < cell["p50"] <= cell["p99"] <= cell["max"]
        assert cell["limit_us"] > 0
    script(*words, "--engines", "eager", "--sampling", "1 step", "teacher")
    again = json.loads((tmp_path / "latency.json").read_text())["cells"]
    assert again["mlp, eager, teacher, batch 1"]["evaluations"] == 157
    assert len(again) == 3
    assert {key: again[key] for key in cells} == cells, "what is measured is not measured again"


@pytest.mark.slow
def test_the_server_benchmark_measures_both_engines(script: Script) -> None:
    said = script("benchmarks/serve.py", "--quick", "--clients", "2")
    assert re.search(r"exported +│ +2 │ +\d+ │", said)
    assert re.search(r"PyTorch +│ +2 │ +\d+ │", said)


@pytest.mark.slow
def test_the_soak(script: Script) -> None:
    soaked = script("benchmarks/serve.py", "--quick", "--soak", "1")
    assert re.match(r"32 clients, 1 s: \d+ answers/s, .* 0 errors; memory \d+\.\d -> \d+\.\d MB", soaked)


def test_the_flop_count_of_a_known_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    counter = runpy.run_path(str(ROOT / "benchmarks" / "training.py"))["FlopCounter"]
    linear, convolution = torch.nn.Linear(5, 7), torch.nn.Conv1d(3, 4, 5, padding=2)
    with counter() as count:
        linear(torch.zeros(11, 5)).sum().backward()
    assert count.total == 2 * (2 * 11 * 5 * 7), "forward, and the weight's gradient: the input needs none"
    with counter() as count:
        convolution(torch.zeros(2, 3, 8))
    assert count.total == 2 * 2 * 8 * 4 * 3 * 5


def test_the_comparison_of_two_commits_finds_one_bit(
    monkeypatch: pytest.MonkeyPatch, trained: Trained, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    differences = runpy.run_path(str(ROOT / "benchmarks" / "same_numbers.py"))["differences"]
    copy = tmp_path / "copy"
    shutil.copytree(trained.directory, copy)
    count, told = differences(trained.directory, copy)
    assert count > 100, "weights of policies, checkpoints of every stage, optimisers included"
    assert told == []
    path = copy / "policy" / "teacher" / "policy.safetensors"
    tensors = load_file(path)
    name = "network.output.bias"
    tensors[name].view(np.uint32)[0] ^= 1
    save_file(tensors, path)
    (copy / "checkpoints" / "return" / "last.safetensors").unlink()
    _, told = differences(trained.directory, copy)
    assert sum(f"{name}: differs by up to" in sentence for sentence in told) == 1
    others = [sentence for sentence in told if "differs" not in sentence]
    assert others
    assert all(s.startswith("checkpoints/return/last") and s.endswith("only before") for s in others)


def test_comparisons_are_made_again_as_they_were(script: Script, tmp_path: Path) -> None:
    """From the means by seed alone: the comparisons that `ractd reproduce` writes, old rules' words gone."""
    rng = np.random.default_rng(0)
    lines = []
    for method, mean, run in (("behaviour data", 14, ""), ("teacher", 19, "run"), ("RACTD", 93, "run")):
        samples = [{"score": rng.normal(mean, 9, 50), "upper": np.ones(50)} for _ in range(3)]
        seeds = {seed: Measured(each, run) for seed, each in enumerate(samples)}
        lines.append(Line("d", method, seeds=seeds))
    facts = {
        "name": "d",
        "recipe": "r",
        "env_id": "Hopper-v5",
        "transitions": 9,
        "episodes": 1,
        "fingerprint": "0" * 64,
    }
    sources = [TableSource("d", facts, False, "score")]
    experiment = replace(EXPERIMENTS["figure3"], draw=None)
    settings = {"preset": "cpu", "seeds": [0, 1, 2], "options": []}
    found = comparisons(experiment, lines, sources)
    write_table(PaperTable("figure3", experiment, lines, found, sources, {}, settings), tmp_path)
    paths = [tmp_path / "figure3.json", tmp_path / "figure3.md"]
    made = [path.read_text() for path in paths]
    content = json.loads(made[0])
    assert {each["state"] for each in content["comparisons"]} == {"confirmed", "not confirmed", "not run"}
    write_json(paths[0], content | {"comparisons": [], "aggregates": []})
    paths[1].write_text(re.sub("confirmed", "certain", made[1]))
    said = script("benchmarks/comparisons.py", paths[0])
    assert said == "figure3.json: 2 not confirmed, 3 not run, 1 confirmed\n"
    assert [path.read_text() for path in paths] == made


def test_results_of_the_first_edition_become_rows(script: Script, tmp_path: Path) -> None:
    returns = [1.0, 3.0, 5.0]
    played = {"env_id": "Hopper-v5", "backend": "envpool", "episodes": 3, "execute": 1, "history": 1, "seed": 2000}
    played |= {"max_episode_steps": 1000, "mean_return": 3.0, "returns": returns, "lengths": [7, 8, 9]}
    old = {"nfe": 157, "sampler": "heun", "steps": 80, "candidates": 1, "selection": "last", "selected_step": None}
    old |= {"reward_weight": 0, "threads": 1, "evaluation": played, "offline": {"distance_to_data": 0.1}}
    best = old | {"nfe": 1, "sampler": "consistency", "steps": 1, "selection": "online", "selected_step": 500}
    content = {"format": "ractd-result", "format_version": 1, "rows": {"teacher": old, "RACTD": best}}
    write_json(tmp_path / "result.json", content | {"complete": True, "dataset": {"name": "hopper"}})
    assert "converted" in script("benchmarks/convert_results.py", tmp_path / "result.json")
    rows = rows_of(tmp_path)
    assert list(rows) == ["RACTD", "teacher"]
    row = rows["RACTD"]
    assert (row.policy, row.checkpoint, row.step, row.seed, row.returns) == ("student", "best", 500, 2, (1.0, 3.0, 5.0))
    assert row.protocol is not None
    assert (row.protocol.env_id, row.protocol.seed, row.terminated) == ("Hopper-v5", 2000, ())
    assert (rows["teacher"].policy, rows["teacher"].checkpoint) == ("teacher", "last")
    before = (tmp_path / "result.json").read_bytes()
    assert json.loads(before)["converted_from"] == 1
    assert "nothing to convert" in script("benchmarks/convert_results.py", tmp_path / "result.json")
    assert (tmp_path / "result.json").read_bytes() == before


@pytest.mark.parametrize("name", ["scores", "mazes", "samplers"])
def test_committed_results_are_rows_and_their_tables_are_theirs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    content = json.loads(path.read_text())
    for run, entry in content["runs"].items():
        for index, row in enumerate(entry if name == "samplers" else entry["rows"]):
            read = read_row(row, f"{run}, rows[{index}]")
            if read.returns:
                assert row["mean_score"] == pytest.approx(read.mean_score)
                assert row["score_se"] == pytest.approx(read.score_se)
    module = importlib.import_module(name)
    assert module.markdown(content["runs"] if name == "samplers" else content) == path.with_suffix(".md").read_text()


def test_every_tick_that_passed_is_counted() -> None:
    """With a clock of its own, and a policy that takes two and a half ticks."""
    control, now = runpy.run_path(str(ROOT / "examples/control_loop.py"))["control"], [0.0]

    def advance(seconds: float) -> float:
        now[0] += seconds
        return now[0]

    control.__globals__["time"] = SimpleNamespace(perf_counter=lambda: advance(1e-6), sleep=advance)

    def act(*_: Any) -> Any:
        advance(0.025)
        return np.zeros(1)

    policy = SimpleNamespace(contract=SimpleNamespace(history=1), act=act)
    robot = SimpleNamespace(read=lambda: np.zeros(1), send=lambda _: None)
    assert control(policy, robot, 100.0, None, 4)[2] == 4 * 2
