"""The runtime: what it refuses, what it executes and when, and that it needs no torch."""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
import venv
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import environment
from export_factory import ACTIONS, OBSERVATIONS, make_policy, observations

import ractd.errors
import ractd.runtime
from ractd.export import export_policy
from ractd_runtime import Contract, History, ObservationWarning, Policy, RactdError, RecedingHorizon

ROOT = Path(__file__).parent.parent


JUNK: list[Any] = [None, "x", -1, 1e300, {}, ["batch", 0]]
"""What a field of a contract may not be."""


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One export, read only."""
    directory = tmp_path_factory.mktemp("deployed")
    make_policy(candidates=2, steps=2).save(directory / "policy")
    export_policy(directory / "policy", directory / "out")
    return directory / "out"


@pytest.fixture
def mine(deployed: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(deployed, tmp_path / "mine"))


def edit(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = directory / "policy.json"
    contract = json.loads(path.read_text())
    change(contract)
    path.write_text(json.dumps(contract))


# --- one interface with the PyTorch policy -----------------------------------------------------------------------


def test_shapes_as_the_pytorch_policys(deployed: Path) -> None:
    policy, torch_policy = Policy.load(deployed), make_policy(candidates=2, steps=2)
    for batch in ((), (1,), (7,), (5, 1)):
        shape = (*batch, OBSERVATIONS)
        seen = np.zeros(shape, np.float32)
        for name in ("act", "act_chunk"):
            theirs, ours = getattr(torch_policy, name)(seen), getattr(policy, name)(seen)
            assert ours.shape == theirs.shape
            assert ours.dtype == theirs.dtype


def test_the_seed_decides_the_actions(deployed: Path) -> None:
    policy, seen = Policy.load(deployed), observations(make_policy(), 5)[:, 0].numpy()
    first, second = policy.act(seen), policy.act(seen)
    assert not np.array_equal(first, second), "noise goes on"
    np.testing.assert_array_equal(policy.reset(0).act(seen), first)
    np.testing.assert_array_equal(Policy.load(deployed).act(seen), first)
    assert not np.array_equal(policy.reset(1).act(seen), first)
    np.testing.assert_array_equal(policy.reset(0).act_chunk(seen)[:, 0], first)


def test_act_is_the_graph_of_its_own_noise(deployed: Path) -> None:
    """Through buffers that are used again, at batch sizes in turn."""
    policy, torch_policy = Policy.load(deployed), make_policy(candidates=2, steps=2)
    import torch

    from ractd.export.graph import draws_first

    rng = np.random.default_rng(3)
    policy.reset(3)
    for batch in (1, 4, 1, 2, 4):
        seen = observations(torch_policy, batch, seed=batch)
        noise = rng.standard_normal((batch, 2, 2, 4, ACTIONS), np.float32)
        with torch.inference_mode():
            expected = torch_policy.sample(seen, draws_first(torch.from_numpy(noise))).numpy()
        np.testing.assert_allclose(policy.act_chunk(seen[:, 0].numpy()), expected, rtol=0, atol=1e-5)


def test_any_number_of_batch_sizes_is_right(deployed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than buffers are kept for, and back to sizes whose buffers are gone."""
    monkeypatch.setattr("ractd_runtime.policy.MAX_BUFFERS", 3)
    policy, seen = Policy.load(deployed), observations(make_policy(), 8)[:, 0].numpy()
    noise = policy.draw_noise(8)
    expected = policy.sample(seen[:, None], noise)
    for batch in (1, 2, 3, 1, 4, 5, 1, 8, 2, 1):
        found = policy.sample(seen[:batch, None], noise[:batch])
        np.testing.assert_allclose(found, expected[:batch], rtol=0, atol=1e-5)
    assert list(policy._buffers) == [8, 2, 1], "those that were used last"


def test_what_is_returned_stays(deployed: Path) -> None:
    policy, seen = Policy.load(deployed), np.zeros(OBSERVATIONS, np.float32)
    action, chunk = policy.act(seen), policy.act_chunk(seen)
    kept = action.copy(), chunk.copy()
    for _ in range(3):
        policy.act(seen)
        policy.act_chunk(seen)
    np.testing.assert_array_equal(action, kept[0])
    np.testing.assert_array_equal(chunk, kept[1])
    assert action.base is None or action.base.size == action.size, "no view of a buffer"


def test_offered_as_ractd_runtime() -> None:
    assert ractd.runtime.Policy is Policy
    assert ractd.errors.RactdError is RactdError


# --- files -------------------------------------------------------------------------------------------------------


def test_a_changed_graph_is_refused(mine: Path) -> None:
    graph = mine / "policy.onnx"
    raw = bytearray(graph.read_bytes())
    raw[len(raw) // 2] ^= 1
    graph.write_bytes(raw)
    with pytest.raises(RactdError, match=r"policy\.onnx: its SHA-256 is not that of policy\.json"):
        Policy.load(mine)


def test_missing_files(mine: Path, tmp_path: Path) -> None:
    (mine / "policy.onnx").unlink()
    with pytest.raises(RactdError, match=r"policy\.onnx: can't be read"):
        Policy.load(mine)
    (mine / "policy.json").unlink()
    for path in (mine, tmp_path / "nowhere"):
        with pytest.raises(
            RactdError, match=r"policy\.json: not found; expected a directory that 'ractd export' wrote"
        ):
            Policy.load(path)


def test_a_newer_contract_asks_for_a_newer_runtime(mine: Path) -> None:
    edit(mine, lambda contract: contract.update(format_version=3))
    with pytest.raises(
        RactdError, match="contract version 3, this runtime reads up to 2; install a newer ractd-runtime"
    ):
        Policy.load(mine)


@pytest.mark.parametrize("section", ["dataset", "score", "outputs", "versions"])
def test_a_changed_contract_is_refused(mine: Path, section: str) -> None:
    def change(contract: dict[str, Any]) -> None:
        contract[section] = {"mean_score": 100} if section != "outputs" else contract[section] | {"more": 1}

    edit(mine, change)
    with pytest.raises(RactdError, match=f"'{section}' differs from the contract inside the graph"):
        Policy.load(mine)


def test_checks_and_execution_are_the_users_to_change(mine: Path) -> None:
    def change(contract: dict[str, Any]) -> None:
        contract["execution"]["execute"] = 3
        contract["checks"]["out_of_range"] = "error"

    edit(mine, change)
    policy = Policy.load(mine)
    assert policy.queue.execute == 3
    with pytest.raises(RactdError, match="far outside"):
        policy.act(np.full(OBSERVATIONS, 1e6))


def leaves(content: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path into nested JSON, sections included."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*where, key)
        yield from leaves(value, (*where, key))


def test_no_damage_to_the_contract_is_more_than_an_error(mine: Path) -> None:
    """Every field in turn missing or replaced by junk: read, or refused in a sentence that names the file."""
    original = json.loads((mine / "policy.json").read_text())
    sections = {
        key: original[key] for key in ("format", "format_version", "graph", "inputs", "outputs", "execution", "checks")
    }
    refused = []
    for path in leaves(sections):
        for junk in JUNK:
            content = copy.deepcopy(original)
            target = content
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = junk
            (mine / "policy.json").write_text(json.dumps(content))
            try:
                Contract.read(mine)
            except RactdError as error:
                refused.append(str(error))
    assert len(refused) > 150
    assert all("policy" in message for message in refused)
    for text in ("", "{", "[]", "null", "\xff", '{"format": 3}'):
        (mine / "policy.json").write_text(text, encoding="latin-1")
        with pytest.raises(RactdError):
            Contract.read(mine)


def test_numbers_and_texts_that_nobody_writes_are_refused(mine: Path) -> None:
    whole = (mine / "policy.json").read_text()
    edit(mine, lambda content: content["inputs"]["observation"]["low"].__setitem__(0, 10**400))
    with pytest.raises(RactdError, match=r"inputs.observation.low is no list of \d numbers"):
        Contract.read(mine)
    (mine / "policy.json").write_text(whole)
    edit(mine, lambda content: content["execution"].update(execute=1.5))
    with pytest.raises(RactdError, match=r"execution.execute is 1.5, expected a whole number"):
        Contract.read(mine)
    (mine / "policy.json").write_text("[" * 200_000)
    with pytest.raises(RactdError, match="not a readable contract"):
        Contract.read(mine)


@pytest.mark.parametrize("name", ["../policy.onnx", "/etc/hostname", "a/b", "a\0", "\ud800"])
def test_a_graph_outside_the_directory_is_refused(mine: Path, name: str) -> None:
    edit(mine, lambda contract: contract["graph"].update(files={name: {"sha256": "0", "bytes": 1}}))
    with pytest.raises(RactdError, match="not a plain name"):
        Policy.load(mine)


def test_a_graph_that_is_none(mine: Path) -> None:
    (mine / "policy.onnx").write_bytes(b"not a graph")
    digest = hashlib.sha256(b"not a graph").hexdigest()
    edit(mine, lambda contract: contract["graph"]["files"]["policy.onnx"].update(sha256=digest))
    with pytest.raises(RactdError, match="the graph can't be opened"):
        Policy.load(mine)


def test_a_policy_of_the_first_version_acts_as_before(deployed: Path, mine: Path) -> None:
    graph = mine / "policy.onnx"
    model = onnx.load(graph)
    (entry,) = (each for each in model.metadata_props if each.key == "ractd")
    entry.value = json.dumps(json.loads(entry.value) | {"format_version": 1})
    onnx.save(model, graph)
    digest = hashlib.sha256(graph.read_bytes()).hexdigest()

    def change(content: dict[str, Any]) -> None:
        content["format_version"] = 1
        content["graph"]["files"]["policy.onnx"]["sha256"] = digest

    edit(mine, change)
    seen = np.zeros(OBSERVATIONS, np.float32)
    np.testing.assert_array_equal(Policy.load(mine).act(seen), Policy.load(deployed).act(seen))


@pytest.mark.parametrize("option", [{"threads": 0}, {"execute": 0}, {"execute": 5}])
def test_impossible_options(deployed: Path, option: dict[str, int]) -> None:
    with pytest.raises(RactdError, match=next(iter(option))):
        Policy.load(deployed, **option)  # type: ignore[arg-type]


# --- observations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(OBSERVATIONS + 1,), (2, 2, OBSERVATIONS), (), (5, OBSERVATIONS - 1), (0, OBSERVATIONS)]
)
def test_a_wrong_shape_is_refused(deployed: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(RactdError, match="shape") as error:
        Policy.load(deployed).act(np.zeros(shape, np.float32))
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.complex64, object, "U1"])
def test_a_wrong_dtype_is_refused(deployed: Path, dtype: Any) -> None:
    with pytest.raises(RactdError, match="dtype"):
        Policy.load(deployed).act(np.zeros(OBSERVATIONS, dtype))


def test_ragged_lists_and_seeds_below_zero_are_refused(deployed: Path) -> None:
    policy = Policy.load(deployed)
    with pytest.raises(RactdError, match="observation is no array of numbers but list"):
        policy.act([[1.0], [1.0, 2.0]])
    with pytest.raises(RactdError, match="seed is -1, expected 0 or more"):
        policy.reset(-1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(deployed: Path, bad: float) -> None:
    seen = np.zeros((4, OBSERVATIONS))
    seen[2, 1] = bad
    policy = Policy.load(deployed)
    with pytest.raises(RactdError, match="NaN or infinite"):
        policy.act(seen)
    assert np.isfinite(policy.act(np.zeros((4, OBSERVATIONS)))).all(), "the next one is fine"


def test_far_outside_the_data_is_said_once_a_dimension_and_counted(deployed: Path) -> None:
    policy, contract = Policy.load(deployed), Contract.read(deployed)
    inside = contract.observation_high.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy.act(inside)
    outside = inside.copy()
    outside[1] += 1
    with pytest.warns(ObservationWarning, match=r"observation\[1\] is .* far outside the training data") as said:
        policy.act(outside)
    assert said[0].filename == __file__, "where the caller's mistake is"
    with pytest.warns(ObservationWarning) as said:
        Policy.load(deployed).act(outside, deadline_ms=1000)
    assert said[0].filename == __file__, "through a thread of its own as well"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy.act(outside)
    outside[2] = -1e9
    with pytest.warns(ObservationWarning):
        policy.act(np.stack([inside, outside]))
    assert policy.out_of_range == 3
    with pytest.warns(ObservationWarning, match=r"observation\[1\]"):
        policy.reset().act(outside)
    assert policy.out_of_range == 1


def test_a_call_that_is_wrong_in_two_ways_counts_once() -> None:
    policy = Policy(contract(checks={"not_finite": "warning", "out_of_range": "warning"}), Gated())
    with pytest.warns(ObservationWarning), pytest.raises(RactdError, match="gave NaN"):
        policy.act(np.array([[np.nan], [1e9]], np.float32))
    assert policy.out_of_range == 1


def test_a_policy_that_is_gone_leaves_no_engine_with_its_thread() -> None:
    engine = Gated()
    policy, gone = Policy(contract(), engine), weakref.ref(engine)
    policy.act(np.zeros(1, np.float32), deadline_ms=1000)
    del policy, engine
    until(lambda: gc.collect() >= 0 and gone() is None)


def test_any_memory_layout_is_accepted(deployed: Path) -> None:
    policy, seen = Policy.load(deployed), observations(make_policy(), 6)[:, 0].numpy()
    expected = policy.reset(0).act(seen)
    frozen = seen.copy()
    frozen.flags.writeable = False
    for other in (np.asfortranarray(seen), seen.astype(np.float64), seen.tolist(), frozen, seen[::-1].copy()[::-1]):
        np.testing.assert_array_equal(policy.reset(0).act(other), expected)


# --- the queue, with a model that can be stopped -----------------------------------------------------------------

C = 4


class Gated:
    """A model that answers when its gate is open: action k of a sequence is 10 times the observation, plus k."""

    embedded = None

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[float] = []
        self.finished = threading.Semaphore(0)

    def bind(self, inputs: dict[str, np.ndarray], actions: np.ndarray) -> Callable[[], None]:
        observation = inputs["observation"]

        def run() -> None:
            self.calls.append(float(observation[0, 0, 0]))
            assert self.gate.wait(20)
            np.copyto(actions, 10 * observation + np.arange(C, dtype=np.float32)[None, :, None])
            self.finished.release()

        return run


def contract(**changes: Any) -> Contract:
    values: dict[str, Any] = {
        "path": Path("policy.json"),
        "content": {},
        "graph_format": "onnx",
        "graph": {},
        "history": 1,
        "observation_dim": 1,
        "inputs": {"observation": (1, 1), "noise": (1, 1, C, 1)},
        "horizon": C,
        "action_dim": 1,
        "execute": 1,
        "control_hz": None,
        "observation_low": np.full(1, -100, np.float32),
        "observation_high": np.full(1, 100, np.float32),
        "checks": {"not_finite": "error", "out_of_range": "warning"},
    }
    return Contract(**values | changes)


def play(policy: Policy, ticks: range, **options: Any) -> list[float]:
    """Act on observation t at tick t."""
    return [float(policy.act(np.array([t], np.float32), **options)[0]) for t in ticks]


def until(condition: Callable[[], bool]) -> None:
    stop = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < stop
        time.sleep(1e-4)


def answered(policy: Policy) -> Callable[[], bool]:
    worker = policy._worker
    assert worker is not None
    return lambda: worker.wait(0)


@pytest.mark.parametrize(
    ("execute", "expected"),
    [(1, [0, 10, 20, 30, 40, 50]), (2, [0, 1, 20, 21, 40, 41]), (3, [0, 1, 2, 30, 31, 32]), (4, [0, 1, 2, 3, 40, 41])],
)
def test_m_of_c_actions_are_executed(execute: int, expected: list[float]) -> None:
    model = Gated()
    policy = Policy(contract(), model, execute=execute)
    assert play(policy, range(6)) == expected
    assert model.calls == list(range(0, 6, execute))
    assert (policy.late, policy.held) == (0, 0)


def test_a_batch_has_its_own_sequence_and_another_size_a_new_one() -> None:
    model = Gated()
    policy = Policy(contract(), model, execute=2)
    assert policy.act(np.array([[1.0], [2.0]])).tolist() == [[10], [20]]
    assert policy.act(np.array([[5.0], [6.0]])).tolist() == [[11], [21]]
    assert policy.act(np.array([[3.0], [4.0], [5.0]])).tolist() == [[30], [40], [50]]
    assert policy.act(np.array([7.0])).tolist() == [70]
    assert policy.act(np.array([[8.0]])).tolist() == [[80]], "a batch of one is no single observation"


def test_a_late_model_is_stepped_over_and_its_answer_entered_where_it_belongs() -> None:
    model = Gated()
    policy = Policy(contract(), model)
    assert play(policy, range(2), deadline_ms=20_000) == [0, 10]
    model.gate.clear()
    assert play(policy, range(2, 4), deadline_ms=1) == [11, 12], "the running sequence's next actions"
    assert (policy.late, policy.held) == (2, 0)
    until(lambda: model.calls == [0, 1, 2])  # one at a time
    model.gate.set()
    until(answered(policy))
    model.gate.clear()
    # The answer to tick 2 is there at tick 4: its action 2. The model starts again, and is late again.
    assert play(policy, range(4, 5), deadline_ms=1) == [22]
    until(lambda: model.calls == [0, 1, 2, 4])
    model.gate.set()
    until(answered(policy))
    assert play(policy, range(5, 7), deadline_ms=20_000) == [50, 60]
    assert policy.late == 3


def test_where_the_sequence_ends_its_last_action_is_held_and_counted() -> None:
    model = Gated()
    policy = Policy(contract(), model)
    play(policy, range(1), deadline_ms=20_000)
    model.gate.clear()
    assert play(policy, range(1, 7), deadline_ms=0) == [1, 2, 3, 3, 3, 3]
    assert (policy.late, policy.held) == (6, 3)
    model.gate.set()


def test_the_first_action_waits_for_the_model() -> None:
    model = Gated()
    policy = Policy(contract(), model)
    model.gate.clear()

    def open_late() -> None:
        until(lambda: model.calls == [3])
        time.sleep(0.02)
        model.gate.set()

    threading.Thread(target=open_late).start()
    assert play(policy, range(3, 4), deadline_ms=1) == [30]
    assert policy.late == 1


def test_the_deadline_is_kept() -> None:
    model = Gated()
    policy = Policy(contract(), model)
    play(policy, range(1), deadline_ms=20_000)
    model.gate.clear()
    start = time.perf_counter()
    play(policy, range(1, 2), deadline_ms=30)
    assert time.perf_counter() - start >= 0.03, "not before it, or the model had no chance"
    model.gate.set()


def test_in_the_background_the_next_sequence_is_computed_while_this_one_runs() -> None:
    model = Gated()
    policy = Policy(contract(execute=2), model, background=True)
    assert play(policy, range(2)) == [0, 1]
    model.gate.clear()
    assert play(policy, range(2, 4)) == [2, 3], "asked for at tick 2, not waited for"
    until(lambda: model.calls == [0, 2])
    model.gate.set()
    until(answered(policy))
    assert play(policy, range(4, 5)) == [22], "the sequence seen at tick 2 is at its action 2"
    until(lambda: model.calls == [0, 2, 4])  # and is due again
    assert (policy.late, policy.held) == (0, 0)


def test_in_the_background_whole_sequences_follow_without_a_gap() -> None:
    """With m = c the next one is begun with the last action, and is there at the next tick, or waited for."""
    model = Gated()
    policy = Policy(contract(execute=C), model, background=True)
    assert play(policy, range(4)) == [0, 1, 2, 3]
    until(lambda: model.calls == [0, 3])
    assert play(policy, range(4, 7)) == [31, 32, 33], "seen at tick 3"
    until(lambda: model.calls == [0, 3, 6])
    assert (policy.late, policy.held) == (0, 0)


def test_reset_forgets_sequence_counts_and_what_is_under_way() -> None:
    model = Gated()
    policy = Policy(contract(), model)
    play(policy, range(1), deadline_ms=20_000)
    model.gate.clear()
    play(policy, range(1, 7), deadline_ms=0)
    threading.Timer(0.02, model.gate.set).start()
    policy.reset(0)
    assert (policy.late, policy.held) == (0, 0)
    assert play(policy, range(9, 10)) == [90]


@pytest.mark.parametrize("options", [{}, {"deadline_ms": 20_000}])
def test_nan_from_the_model_is_an_error_and_the_next_call_goes_on(options: dict[str, float]) -> None:
    class Sick(Gated):
        def bind(self, inputs: dict[str, np.ndarray], actions: np.ndarray) -> Callable[[], None]:
            observation = inputs["observation"]

            def run() -> None:
                np.copyto(actions, 10 * observation + np.arange(C, dtype=np.float32)[None, :, None])
                if observation[0, 0, 0] == 1:
                    actions[0, 2, 0] = np.nan

            return run

    policy = Policy(contract(), Sick())
    assert play(policy, range(1), **options) == [0]
    with pytest.raises(RactdError, match="the policy gave NaN"):
        play(policy, range(1, 2), **options)
    assert play(policy, range(2, 3), **options) == [20]


def test_act_chunk_is_computed_now() -> None:
    model = Gated()
    policy = Policy(contract(execute=3), model)
    policy.act(np.array([1.0]))
    assert policy.act_chunk(np.array([2.0]))[:, 0].tolist() == [20, 21, 22, 23]
    assert policy.act(np.array([3.0])).tolist() == [11], "the running sequence goes on"


def test_receding_horizon_of_its_own() -> None:
    queue = RecedingHorizon(execute=2)
    assert queue.empty
    assert queue.due
    assert queue.dry
    queue.adopt(np.arange(3.0)[:, None], 0)
    assert [float(queue.next()[0]) for _ in range(4)] == [0, 1, 2, 2]
    assert (queue.tick, queue.held, queue.due, queue.dry) == (4, 1, True, True)


def test_history() -> None:
    history = History(3)
    rows = [np.array([float(i)]) for i in range(4)]
    assert history.add(rows[0])[:, 0].tolist() == [0, 0, 0]
    assert history.add(rows[1])[:, 0].tolist() == [0, 0, 1]
    history.add(rows[2])
    assert history.add(rows[3])[:, 0].tolist() == [1, 2, 3]
    assert History(1).add(rows[2]) is rows[2]


# --- without torch -----------------------------------------------------------------------------------------------

ACT = (
    "import sys, numpy as np\n"
    "import ractd_runtime\n"
    "assert 'numpy' not in dir(ractd_runtime)\n"
    "from ractd_runtime import Policy\n"
    "assert 'onnxruntime' not in sys.modules, 'importing opens no engine'\n"
    "policy = Policy.load(sys.argv[1]).reset(3)\n"
    "action = policy.act(np.array([1.0, -2.0, 0.5]))\n"
    "assert not {'torch', 'ractd', 'onnx'} & sys.modules.keys()\n"
    "print(*action.tolist())\n"
)


def printed(deployed: Path) -> list[float]:
    return Policy.load(deployed).reset(3).act(np.array([1.0, -2.0, 0.5])).tolist()  # type: ignore[no-any-return]


def test_it_runs_where_torch_can_not_be_imported(deployed: Path) -> None:
    block = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'ractd', 'onnx', 'onnxscript', 'accelerate'):\n"
        "            raise ImportError(f'{name} is blocked')\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    words = [sys.executable, "-c", block + ACT, str(deployed)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert [float(word) for word in done.stdout.split()] == printed(deployed)


@pytest.mark.slow
def test_it_runs_in_an_environment_that_has_no_torch(deployed: Path, tmp_path: Path) -> None:
    """A fresh virtual environment with this distribution and what it names, and nothing else."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    source = shutil.copytree(ROOT / "runtime", tmp_path / "runtime")
    words: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        ROOT / "constraints.txt",
        source,
    ]
    subprocess.run(words, check=True, timeout=600)
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = subprocess.run([python, "-c", ACT, deployed], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert [float(word) for word in done.stdout.split()] == pytest.approx(printed(deployed), abs=1e-6)
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, env=env, check=True)
    assert "torch" not in listed.stdout
