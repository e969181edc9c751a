"""An exported graph does what PyTorch does, and nothing appears that was not verified."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from conftest import Trained, environment, rows_of
from export_factory import (
    ACTIONS,
    OBSERVATIONS,
    TINY_MLP,
    TINY_UNET,
    assert_equal,
    exported,
    logs,
    make_policy,
    observations,
)
from rich.console import Console

from ractd.data import write_hdf5
from ractd.diffusion.samplers import SAMPLERS, Kind
from ractd.diffusion.settings import DDPM
from ractd.errors import RactdError
from ractd.export import export_policy, exporter, verify
from ractd.export.contract import contract as contract_of
from ractd.export.contract import open_source
from ractd.export.graph import OneStepGraph, PolicyGraph, batch_first, draws_first, graph_of
from ractd.export.report import summary
from ractd.networks import Network
from ractd.networks.fixed_time import FoldsScales
from ractd.networks.mlp import MLP
from ractd.policies import Policy
from ractd.policies.folding import denoisers, preconditioning, times
from ractd.runs.evaluation import evaluate_policy
from ractd_runtime import Policy as Deployed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "logs.hdf5"
    write_hdf5(path, logs())
    return path


# --- the graph ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [TINY_MLP, TINY_UNET], ids=["mlp", "unet"])
@pytest.mark.parametrize(("steps", "candidates", "history"), product((1, 4), (1, 8), (1, 2)))
def test_the_graph_with_folded_times_is_the_policy(network: Network, steps: int, candidates: int, history: int) -> None:
    policy = make_policy(network, steps=steps, candidates=candidates, history=history)
    seen, noise = observations(policy, 5), policy.reset(0).draw_noise(5)
    with torch.inference_mode():
        for graph in (PolicyGraph(policy), graph_of(policy)):
            torch.testing.assert_close(
                graph(seen, batch_first(noise, candidates)), policy.sample(seen, noise), rtol=0, atol=1e-5
            )


@pytest.mark.parametrize("network", [TINY_MLP, TINY_UNET], ids=["mlp", "unet"])
def test_the_graph_of_a_policy_that_draws_nothing_takes_no_noise(network: Network) -> None:
    policy = make_policy(network, sampler="central")
    assert isinstance(graph_of(policy), OneStepGraph if network is TINY_MLP else PolicyGraph)
    seen, noise = observations(policy, 5), policy.draw_noise(5)
    assert not noise.numel()
    with torch.inference_mode():
        expected = policy.sample(seen, noise)
        assert expected.std() > 0.01
        for graph in (PolicyGraph(policy), graph_of(policy)):
            torch.testing.assert_close(graph(seen), expected, rtol=0, atol=1e-5)


def test_only_one_step_of_an_mlp_has_its_scales_folded() -> None:
    assert isinstance(graph_of(make_policy()), OneStepGraph)
    others = (
        make_policy(steps=2),
        make_policy(candidates=2),
        make_policy(TINY_UNET),
        make_policy(jumps=False, steps=2),
    )
    assert [type(graph_of(policy)) for policy in others] == 4 * [PolicyGraph]


@pytest.mark.parametrize("network", [TINY_MLP, TINY_UNET], ids=["mlp", "unet"])
@pytest.mark.parametrize(
    ("kind", "sampler"), [(kind, name) for kind in ("student", "teacher", "DDPM teacher") for name in SAMPLERS[kind]]
)
def test_the_graph_of_every_sampler(network: Network, kind: Kind, sampler: str) -> None:
    ddpm = DDPM(timesteps=20) if kind == "DDPM teacher" else None
    policy = make_policy(network, jumps=kind == "student", sampler=sampler, ddpm=ddpm, steps=6, candidates=2)
    seen, noise = observations(policy, 5), policy.reset(0).draw_noise(5)
    with torch.inference_mode():
        graph = PolicyGraph(policy)
        torch.testing.assert_close(graph(seen, batch_first(noise, 2)), policy.sample(seen, noise), rtol=0, atol=1e-5)


def test_the_times_and_numbers_of_one_step() -> None:
    """EDM's preconditioning in its boundary form at T = 80 and time 0 = 0.02, by hand."""
    policy = make_policy()
    ((t, s),) = times(policy.sampling)
    assert s is not None
    torch.testing.assert_close((t, s), (torch.tensor([80.0]), torch.tensor([0.02])))
    a, b, c = preconditioning(t, policy.sampling.schedule)  # type: ignore[arg-type]
    assert a == pytest.approx(0.25 / (79.98**2 + 0.25), rel=1e-6)
    assert b == pytest.approx(79.98 * 0.5 / (80**2 + 0.25) ** 0.5, rel=1e-6)
    assert c == pytest.approx(1 / (80**2 + 0.25) ** 0.5, rel=1e-6)
    assert len(times(policy.configured(steps=4).sampling)) == 4
    assert len(times(make_policy(jumps=False, steps=6).sampling)) == 9


def test_noise_layouts_are_each_others_inverse() -> None:
    noise = torch.arange(2 * 15 * 4 * 2.0).view(2, 15, 4, 2)
    torch.testing.assert_close(draws_first(batch_first(noise, 5)), noise)
    assert batch_first(noise, 5).shape == (3, 2, 5, 4, 2)
    assert batch_first(noise, 5)[1, 0, 2].equal(noise[0, 7])


@pytest.mark.parametrize(("network", "steps"), [(TINY_UNET, 2), (TINY_MLP, 1)])
def test_folding_leaves_the_policy_as_it_was(network: Network, steps: int) -> None:
    policy = make_policy(network, steps=steps)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    graph_of(policy)
    after = policy.state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)


def test_a_ddpm_teacher_is_refused(tmp_path: Path) -> None:
    policy = make_policy(jumps=False, sampler="ddpm", ddpm=DDPM(timesteps=20), steps=3)
    with pytest.raises(RactdError, match="DDPM teacher can't be exported"):
        exported(policy, tmp_path)
    assert not (tmp_path / "out").exists()


# --- formats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (TINY_MLP, {"steps": 4, "candidates": 8, "history": 2, "return_members": 3}),
        (TINY_MLP, {"sampler": "central"}),
        pytest.param(TINY_MLP, {"steps": 2, "sampler": "jumps"}, marks=pytest.mark.slow),
        pytest.param(TINY_UNET, {"candidates": 3}, marks=pytest.mark.slow),
        pytest.param(TINY_UNET, {"steps": 4, "candidates": 8}, marks=pytest.mark.slow),
    ],
    ids=["mlp", "mlp-central", "mlp-jumps", "unet", "unet-long"],
)
def test_onnx_equals_pytorch(tmp_path: Path, network: Network, options: dict[str, Any]) -> None:
    policy = make_policy(network, **options)
    done = exported(policy, tmp_path)
    assert 0 < done.difference.largest <= 1e-5
    assert done.difference.compared == {"random": [1, 3, 64]}, "there is no data file"
    assert_equal(policy, Deployed.load(tmp_path / "out"))
    operations = {node.op_type for node in onnx.load(tmp_path / "out" / "policy.onnx").graph.node}
    assert "Sigmoid" in operations, "mish is written as ONNX Runtime is fast at it"
    assert not operations & {"Mish", "Softplus", "Tanh"}


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """One export of a tiny MLP in fp32, verified on data; read only."""
    directory = tmp_path_factory.mktemp("export")
    make_policy().save(directory / "policy")
    export_policy(directory / "policy", directory / "out", dataset=data)
    return directory / "out"


def test_onnx_equals_pytorch_and_says_so(mlp: Path) -> None:
    assert_equal(make_policy(), Deployed.load(mlp))
    contract = json.loads((mlp / "policy.json").read_text())
    assert contract["graph"]["verification"]["compared"] == {"random": [1, 3, 64], "dataset": [1, 3, 64]}
    assert contract["graph"]["verification"]["largest"] <= 1e-5
    assert sorted(path.name for path in mlp.iterdir()) == ["policy.json", "policy.onnx"]
    assert sorted(path.name for path in mlp.parent.iterdir()) == ["out", "policy"], "nothing is left beside it"


def test_the_contract_says_what_the_policy_is(mlp: Path) -> None:
    contract, policy, file = json.loads((mlp / "policy.json").read_text()), make_policy(), mlp / "policy.onnx"
    assert (contract["format"], contract["format_version"]) == ("ractd-deployed-policy", 2)
    observation, noise = contract["inputs"]["observation"], contract["inputs"]["noise"]
    assert (observation["shape"], observation["dtype"]) == (["batch", 1, OBSERVATIONS], "float32")
    assert (noise["shape"], noise["dtype"]) == (["batch", 1, 1, 4, ACTIONS], "float32")
    np.testing.assert_allclose(observation["low"], logs().observations.min(0))
    np.testing.assert_allclose(observation["high"], logs().observations.max(0))
    actions = contract["outputs"]["actions"]
    assert actions["shape"] == ["batch", 4, ACTIONS]
    np.testing.assert_allclose(actions["low"], policy.sequence.normalizer.action_low)
    np.testing.assert_allclose(actions["high"], policy.sequence.normalizer.action_high)
    assert contract["dataset"]["fingerprint"] == logs().fingerprint
    assert contract["execution"]["execute"] == 1
    assert contract["graph"]["files"]["policy.onnx"] == {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "bytes": file.stat().st_size,
    }
    assert {"torch", "onnx", "ractd"} <= contract["versions"]["export"].keys()
    assert contract["score"] is None, "a bare policy was never scored"


def test_the_graph_is_lean_standard_and_tells_no_paths(mlp: Path) -> None:
    model = onnx.load(mlp / "policy.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Gemm") == 4, "one for each layer, the bias inside, and none for time or FiLM"
    assert not {"Sin", "Cos", "Log", "MatMul", "Loop", "If"} & set(kinds)
    (embedded,) = (entry.value for entry in model.metadata_props if entry.key == "ractd")
    contract = json.loads((mlp / "policy.json").read_text())
    contract.pop("graph")
    assert json.loads(embedded) == contract
    raw = (mlp / "policy.onnx").read_bytes()
    for word in (os.getcwd(), "site-packages", "graph.py"):
        assert word.encode() not in raw
    for entry in (*model.graph.input, *model.graph.output):
        assert entry.type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_reduced_precision_is_close_and_smaller(tmp_path: Path, precision: Any) -> None:
    policy = make_policy(MLP(width=96, blocks=2, embed_dim=8), env_id="InvertedPendulum-v5")
    done = exported(policy, tmp_path, precision=precision)
    assert f"what {precision} does to the score is not measured" in summary(done)
    assert done.difference.largest > 1e-5, "it is another graph"
    model = onnx.load(tmp_path / "out" / "policy.onnx")
    kind = {"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[precision]
    reduced = [tensor for tensor in model.graph.initializer if tensor.data_type == kind and len(tensor.dims) == 2]
    sizes = [tuple(sorted(tensor.dims)) for tensor in reduced]
    # int8 leaves the input and output layers alone.
    assert sorted(sizes) == [(8, 96)] * (precision == "fp16") + [(11, 96)] * (precision == "fp16") + [(96, 96)] * 2
    seen, noise = observations(policy, 64), policy.reset(0).draw_noise(64)
    theirs = Deployed.load(tmp_path / "out").sample(seen.numpy(), batch_first(noise, 1).numpy())
    with torch.no_grad():
        off = np.abs(theirs - policy.sample(seen, noise).numpy()) / policy.sequence.normalizer.half_range.numpy()
    assert (off.mean((0, 1)) < {"fp16": 5e-3, "int8": 5e-2}[precision]).all(), "of half of each action's range"


@pytest.mark.parametrize(
    ("network", "options", "precision"),
    [
        (TINY_MLP, {"steps": 2, "candidates": 3}, "fp32"),
        pytest.param(TINY_MLP, {}, "fp16", marks=pytest.mark.slow),
        pytest.param(TINY_UNET, {"steps": 2, "candidates": 3}, "fp16", marks=pytest.mark.slow),
    ],
    ids=["mlp", "mlp-fp16", "unet-fp16"],
)
def test_openvino_equals_pytorch(tmp_path: Path, network: Network, options: dict[str, Any], precision: Any) -> None:
    pytest.importorskip("openvino")
    policy = make_policy(network, **options)
    done = exported(policy, tmp_path, format="openvino", precision=precision)
    assert sorted(path.name for path in done.directory.iterdir()) == ["policy.bin", "policy.json", "policy.xml"]
    deployed = Deployed.load(done.directory)
    if precision == "fp32":
        assert_equal(policy, deployed)
        layers = set(re.findall(r'type="(\w+)"', (done.directory / "policy.xml").read_text()))
        assert layers & {"Mish", "SoftPlus"}, "mish is written as OpenVINO is fast at it"
    assert deployed.act(observations(policy, 1)[0, 0].numpy()).shape == (ACTIONS,)


@pytest.mark.parametrize("network", [TINY_MLP, pytest.param(TINY_UNET, marks=pytest.mark.slow)], ids=["mlp", "unet"])
def test_pt2_reloads_in_another_process_without_ractd(tmp_path: Path, network: Network) -> None:
    policy = make_policy(network, steps=2, candidates=3)
    done = exported(policy, tmp_path, format="pt2")
    file = done.directory / "policy.pt2"
    with zipfile.ZipFile(file) as archive:
        pickles = [
            name for name in archive.namelist() if archive.read(name)[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04")
        ]
        nested = [name for name in archive.namelist() if archive.read(name)[:2] == b"PK"]
        text = b"".join(archive.read(name) for name in archive.namelist())
    assert not pickles
    assert not nested, "a nested archive is how torch.save writes a pickle"
    assert os.getcwd().encode() not in text
    seen, noise = observations(policy, 5), policy.reset(4).draw_noise(5)
    np.savez(tmp_path / "in.npz", seen=seen.numpy(), noise=batch_first(noise, 3).numpy())
    code = (
        "import sys, numpy as np, torch\n"
        "extra = {'policy.json': ''}\n"
        "graph = torch.export.load(sys.argv[1], extra_files=extra).module()\n"
        "given = np.load(sys.argv[2])\n"
        "np.save(sys.argv[3], graph(*map(torch.from_numpy, (given['seen'], given['noise']))).numpy())\n"
        "assert 'ractd' not in sys.modules and '\"ractd-deployed-policy\"' in extra['policy.json']\n"
    )
    words: list[str | Path] = [sys.executable, "-c", code, file, tmp_path / "in.npz", tmp_path / "out.npy"]
    done_there = subprocess.run(words, capture_output=True, text=True, env=environment(), check=False)
    assert done_there.returncode == 0, done_there.stderr
    with torch.inference_mode():
        np.testing.assert_allclose(np.load(tmp_path / "out.npy"), policy.sample(seen, noise).numpy(), rtol=0, atol=1e-5)
    with pytest.raises(RactdError, match=r"'pt2' is for torch.export.load and C\+\+"):
        Deployed.load(done.directory)


@pytest.mark.slow
def test_pt2_is_compiled_ahead_of_time_for_cpp(tmp_path: Path) -> None:
    """As docs/deploy.md says; the examples stay out of the file, where they would be pickled."""
    policy = make_policy(steps=2)
    done = exported(policy, tmp_path, format="pt2")
    program = torch.export.load(done.directory / "policy.pt2")
    inputs = done.contract["inputs"]
    program.example_inputs = tuple(torch.zeros(2, *inputs[name]["shape"][1:]) for name in ("observation", "noise")), {}
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "compiled.pt2"))
    compiled = torch._inductor.aoti_load_package(package)
    for batch in (1, 5):
        seen, noise = observations(policy, batch), policy.reset(4).draw_noise(batch)
        torch.testing.assert_close(
            compiled(seen, batch_first(noise, 1).contiguous()), policy.sample(seen, noise), rtol=0, atol=1e-5
        )


# --- verification and files --------------------------------------------------------------------------------------


class Wrong(OneStepGraph):
    """A graph that is wrong by a little, on every third row of a batch alone."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy, cast(FoldsScales, denoisers(policy.sampling, policy.network)[0]))

    def forward(self, observation: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        actions = super().forward(observation, noise)
        assert noise is not None
        return actions + 1e-4 * (noise[:, 0, 0, :1, :1] > 2)


def test_a_failed_check_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "graph_of", Wrong)
    with pytest.raises(
        RactdError, match=r"differs from PyTorch by up to \S+ on random observations at batch 64 .* nothing was"
    ):
        exported(make_policy(), tmp_path, format="pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_nan_from_the_graph_fails_the_check() -> None:
    policy = make_policy()
    with pytest.raises(RactdError, match="nan"):
        verify.compare(policy, lambda o, z: np.full((len(o), 4, ACTIONS), np.nan, np.float32), None, "fp32")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_reduced_precision_has_a_limit_too(precision: Any) -> None:
    policy = make_policy()

    def shifted(seen: np.ndarray, noise: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            actions = policy.sample(torch.from_numpy(seen), draws_first(torch.from_numpy(noise))).numpy()
        low, high = policy.sequence.normalizer.action_low, policy.sequence.normalizer.action_high
        wrong: np.ndarray = actions + 2 * verify.REDUCED[precision] * (high - low).numpy()
        return wrong

    with pytest.raises(RactdError, match="on average"):
        verify.compare(policy, shifted, logs(), precision)


def test_a_tie_between_candidates_is_no_difference_and_a_worse_candidate_is() -> None:
    """Two candidates as good as equal: either is right. The other ones are not."""
    policy = make_policy(candidates=4)
    with torch.no_grad():
        for parameter in policy.critic.parameters():  # type: ignore[union-attr]
            parameter.zero_()  # every candidate is worth the same
    single = policy.configured(candidates=1)

    def third(seen: np.ndarray, noise: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return single.sample(torch.from_numpy(seen), torch.from_numpy(noise[:, :, 2]).transpose(0, 1)).numpy()

    assert verify.compare(policy, third, None, "fp32").largest <= 1e-5
    with pytest.raises(RactdError, match="differs"):
        verify.compare(make_policy(candidates=4), third, None, "fp32")
    assert verify.compare(make_policy(candidates=4), third, None, "int8").largest <= 1e-5


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("42")
    with pytest.raises(RactdError, match=r"thesis\.tex"):
        exported(make_policy(), tmp_path)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "42"
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_an_older_export_is_replaced_whole(tmp_path: Path, mlp: Path) -> None:
    pytest.importorskip("openvino")
    policy, out = make_policy(), Path(shutil.copytree(mlp, tmp_path / "out"))
    before = (out / "policy.json").read_bytes()
    with pytest.raises(RactdError, match="int8"):
        exported(policy, tmp_path, precision="int8")
    assert (out / "policy.json").read_bytes() == before, "a failed export changes nothing"
    exported(policy, tmp_path, format="openvino")
    assert sorted(path.name for path in out.iterdir()) == ["policy.bin", "policy.json", "policy.xml"]
    assert_equal(policy, Deployed.load(out))


def test_wrong_data_is_refused(tmp_path: Path, pendulum: Path) -> None:
    with pytest.raises(RactdError, match="is not the data that the policy was trained on"):
        exported(make_policy(), tmp_path, dataset=pendulum)
    assert not (tmp_path / "out").exists()


# --- the command -------------------------------------------------------------------------------------------------


def test_export_of_a_run_with_scores(trained: Trained, tmp_path: Path) -> None:
    console = Console(quiet=True)
    done = export_policy(trained.directory, tmp_path / "out", check_episodes=3, console=console)
    contract = done.contract
    assert contract["environment"] == "InvertedPendulum-v5"
    assert contract["environment_settings"] == {"arguments": {}, "max_episode_steps": None, "wrappers": [], "fault": ""}
    assert contract["execution"]["control_hz"] == 25, "two frames of 0.02 s"
    assert contract["score"]["mean_return"] == rows_of(trained.directory)["RACTD"].mean_return
    assert (contract["score"]["episodes"], contract["score"]["selection"]) == (4, "online")
    assert done.scores is not None
    # The same seeds and noise: in fp32 the two play the same episodes.
    np.testing.assert_allclose(done.scores[0].returns, done.scores[1].returns, rtol=1e-3)
    assert contract["graph"]["verification"]["scores"]["exported"]["episodes"] == 3
    assert contract["graph"]["verification"]["compared"].keys() == {"dataset", "random"}
    said = summary(done)
    assert "3 episodes: PyTorch" in said
    assert "largest difference from PyTorch" in said
    elsewhere = shutil.copytree(trained.directory, tmp_path / "run")
    same: dict[str, Any] = {"candidates": None, "sampler": None, "steps": None, "env_id": None, "seed": 0}
    for episodes, execute in ((9, 1), (10, 2)):
        evaluate_policy(elsewhere, None, episodes=episodes, execute=execute, console=console, **same)
    score = contract_of(open_source(elsewhere, None, None))["score"]
    assert (score["episodes"], score["execute"]) == (9, 1), "of what the contract says to execute alone"
    evaluate_policy(
        elsewhere, None, episodes=20, execute=1, console=console, **same | {"env_id": "InvertedPendulum-v4"}
    )
    score = contract_of(open_source(elsewhere, None, None))["score"]
    assert (score["env_id"], score["episodes"]) == ("InvertedPendulum-v5", 9)
    unscored = contract_of(open_source(trained.directory, "student", None, candidates=7))
    assert unscored["score"] is None, "nobody measured 7 candidates"


def test_the_command(trained: Trained, tmp_path: Path, cli: Any) -> None:
    answer = cli("export", trained.directory, "-o", tmp_path / "out", "--policy", "plain", "--steps", "2")
    assert answer.code == 0, answer.err
    assert "onnx, fp32" in answer.out
    assert "2 network evaluations" in answer.out
    assert json.loads((tmp_path / "out" / "policy.json").read_text())["policy"] == "plain"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--policy", "nobody"), "no policy 'nobody'; it has plain, plain-last, student, student-last, teacher"),
        (("--steps", "0"), "steps is 0"),
        (("--candidates", "0"), "candidates is 0"),
        (("--check-episodes", "-1"), "--check-episodes is -1"),
        (("--policy", "teacher", "--steps", "80"), "157 network evaluations are too many"),
        (("--precision", "int8", "--format", "openvino"), "--precision int8 is for --format onnx"),
        (("--precision", "fp16", "--format", "pt2"), "--precision fp16 is for"),
        (("--precision", "int8"), "no fully connected layer"),
        (("--dataset", "missing.hdf5"), "missing.hdf5"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_options(trained: Trained, tmp_path: Path, cli: Any, options: tuple[str, ...], said: str) -> None:
    answer = cli("export", trained.directory, "-o", tmp_path / "out", *options)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1, "one sentence"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [("missing-run", "-o", "out"), ("missing-run",), (".", "-o", "out", "--format", "tflite")]
)
def test_bad_words(tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    answer = cli("export", *options)
    assert answer.code == 2
    assert answer.err
    assert "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []
