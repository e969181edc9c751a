"""The training loop: schedule, seeds, resuming bit for bit, and stopping before anything is ruined."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from dataset_factory import make
from rich.console import Console
from torch import Tensor, nn

from ractd.data.windows import Windows
from ractd.diffusion.settings import Diffusion
from ractd.errors import RactdError
from ractd.methods.ractd_settings import Student
from ractd.models import ReturnNetwork, build_network, copy_matching
from ractd.models.normalizer import Normalizer
from ractd.networks.mlp import MLP
from ractd.settings import Optimization
from ractd.training.checkpoint import read_tensors
from ractd.training.loop import (
    LOG_EVERY,
    Interrupted,
    Stage,
    averaged_copy,
    learning_rate,
    run_stage,
    step_generator,
    update_average,
)
from ractd.training.metrics import Metrics
from ractd.training.returns import ReturnObjective
from ractd.training.samples import ActionSequences
from ractd.training.student import StudentObjective
from ractd.training.teacher import TeacherObjective

NETWORK = MLP(width=16, blocks=1, embed_dim=8)
DIFFUSION = Diffusion()
STEPS = 3 * LOG_EVERY + 20


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny networks: threads cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def teacher_objective() -> tuple[nn.Module, nn.Module]:
    dataset = make((30, 20, 25))
    torch.manual_seed(0)
    network = build_network(NETWORK, 2, 2, 3, False)
    return TeacherObjective(
        network, ActionSequences(Windows(dataset, 2), Normalizer.of(dataset.statistics())), DIFFUSION
    ), averaged_copy(network)


def student_objective() -> tuple[nn.Module, nn.Module]:
    dataset = make((30, 20, 25))
    torch.manual_seed(0)
    teacher = build_network(NETWORK, 2, 2, 3, False)
    nn.init.normal_(teacher.output.weight, std=0.2)  # type: ignore[arg-type, union-attr]
    network = build_network(NETWORK, 2, 2, 3, True)
    copy_matching(teacher, network)
    average = averaged_copy(network)
    objective = StudentObjective(
        network,
        average,
        teacher,
        ReturnNetwork(3, 2, (8, 8)),
        ActionSequences(Windows(dataset, 2), Normalizer.of(dataset.statistics())),
        DIFFUSION,
        Student(reward_weight="auto"),
        1.0,
    )
    return objective, average


def return_objective() -> tuple[nn.Module, nn.Module]:
    dataset = make((30, 20, 25))
    torch.manual_seed(0)
    network = ReturnNetwork(3, 2, (8, 8))
    targets = torch.from_numpy(dataset.observations[:, 0].copy())  # something to be learnt
    objective = ReturnObjective(
        network, Normalizer.of(dataset.statistics()), Windows(dataset, 1), targets, torch.arange(75)
    )
    return objective, averaged_copy(network)


def stage_of(
    build: Callable[[], tuple[nn.Module, nn.Module]], directory: Path, rate: float = 1e-3, seconds: float = 0.0
) -> Stage:
    objective, average = build()
    optimization = Optimization(STEPS, batch_size=8, learning_rate=rate, warmup_steps=20, ema=0.98)
    return Stage("toy", objective, average, optimization, 3, directory / "checkpoints", checkpoint_seconds=seconds)


def train(stage: Stage, directory: Path, should_stop: Callable[[], bool] = lambda: False) -> nn.Module:
    metrics = Metrics(directory)
    try:
        return run_stage(stage, Accelerator(cpu=True), metrics, should_stop)
    finally:
        metrics.close()


def lines(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


# --- schedule and seeds ------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    o = Optimization(steps=1000, learning_rate=2e-3, warmup_steps=100)
    rates = [learning_rate(step, o) for step in range(1000)]
    assert rates[:100] == pytest.approx([2e-3 * (i + 1) / 100 for i in range(100)])
    assert rates[100:] == pytest.approx([1e-3 * (1 + math.cos(math.pi * i / 900)) for i in range(900)])
    assert max(rates) == pytest.approx(2e-3)
    assert 0 < rates[-1] < 1e-7
    assert rates[550] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 10, 300])
def test_a_short_stage_still_has_a_whole_schedule(steps: int) -> None:
    rates = [
        learning_rate(step, Optimization(steps=steps, learning_rate=1.0, warmup_steps=500)) for step in range(steps)
    ]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) <= steps // 10


def test_draws_depend_on_seed_stage_and_step_alone() -> None:
    def draw(seed: int, stage: str, step: int) -> tuple[float, ...]:
        return tuple(torch.rand(4, generator=step_generator(seed, stage, step)).tolist())

    keys = [(s, name, n) for s in (0, 1, 2**31 - 1) for name in ("teacher", "student") for n in (0, 1, 2, 99_999)]
    drawn = {key: draw(*key) for key in keys}
    assert len(set(drawn.values())) == len(keys)
    torch.rand(7)
    assert all(draw(*key) == value for key, value in drawn.items())


def test_the_average_is_the_exponential_moving_one() -> None:
    network, average = nn.Linear(1, 1), nn.Linear(1, 1)
    expected = average.weight.item()
    for step in range(50):
        nn.init.constant_(network.weight, step)
        update_average(list(average.parameters()), list(network.parameters()), 0.7, step)
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert average.weight.item() == pytest.approx(expected, rel=1e-5)
    update_average(list(average.parameters()), list(network.parameters()), 0.0, 1000)
    assert average.weight.item() == 49


# --- resuming ----------------------------------------------------------------------------------------------------


def assert_same_checkpoint(a: Path, b: Path) -> None:
    (ours, header), (theirs, other) = read_tensors(a), read_tensors(b)
    assert set(ours) == set(theirs)
    assert {name.split(".")[0] for name in ours} >= {"network", "average", "optimizer"}
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    assert header["step"] == other["step"] == STEPS
    assert header["record"]["running_means"] == other["record"]["running_means"]


@pytest.mark.parametrize("build", [teacher_objective, student_objective, return_objective])
@pytest.mark.parametrize("how", ["asked", "crash"])
def test_an_interrupted_stage_ends_bit_for_bit_as_if_it_was_not(
    tmp_path: Path, build: Callable[[], tuple[nn.Module, nn.Module]], how: str
) -> None:
    straight = stage_of(build, tmp_path / "a", seconds=1e9)
    final = train(straight, tmp_path / "a")

    broken = stage_of(build, tmp_path / "b")
    if how == "asked":
        with pytest.raises(Interrupted):
            train(broken, tmp_path / "b", lambda: True)
        assert read_tensors(broken.checkpoint)[1]["step"] == LOG_EVERY
    else:

        def crash(step: int, values: dict[str, float]) -> dict[str, float]:
            if step == 3 * LOG_EVERY:
                raise KeyboardInterrupt
            return {}

        broken.hooks.append(crash)
        with pytest.raises(KeyboardInterrupt):
            train(broken, tmp_path / "b")
        assert read_tensors(broken.checkpoint)[1]["step"] == 2 * LOG_EVERY

    torch.rand(13)  # whatever the process drew in between
    resumed = stage_of(build, tmp_path / "b")
    ended = train(resumed, tmp_path / "b")
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)
    for mine, theirs in zip(ended.parameters(), final.parameters(), strict=True):
        assert torch.equal(mine, theirs)

    timing = {"samples_per_second"}
    ours, others = lines(tmp_path / "b"), lines(tmp_path / "a")
    assert [line["step"] for line in ours] == [LOG_EVERY, 2 * LOG_EVERY, 3 * LOG_EVERY, STEPS]
    for mine, theirs in zip(ours, others, strict=True):
        assert {k: v for k, v in mine.items() if k not in timing} == {
            k: v for k, v in theirs.items() if k not in timing
        }


def test_training_changes_the_weights_and_lowers_the_loss(tmp_path: Path) -> None:
    """Else the tests of resuming would compare nothing."""
    stage = stage_of(return_objective, tmp_path, rate=1e-2)
    before = [p.clone() for p in stage.objective.network.parameters()]  # type: ignore[union-attr]
    train(stage, tmp_path)
    assert all(not torch.equal(a, b) for a, b in zip(before, stage.objective.network.parameters(), strict=True))  # type: ignore[union-attr, arg-type]
    history = [line["loss"] for line in lines(tmp_path)]
    assert history[-1] < 0.5 * history[0]


def test_a_line_cut_off_by_a_crash_and_lines_after_the_checkpoint_go(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(stage_of(teacher_objective, tmp_path), tmp_path, lambda: True)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"stage": "other", "step": 900, "loss": 1.0}\n')
        file.write(json.dumps({"stage": "toy", "step": 2 * LOG_EVERY, "loss": 123.0}) + "\n")
        file.write('{"stage": "toy", "st')
    train(stage_of(teacher_objective, tmp_path), tmp_path)
    ours = [line for line in lines(tmp_path) if line["stage"] == "toy"]
    assert [line["step"] for line in ours] == [LOG_EVERY, 2 * LOG_EVERY, 3 * LOG_EVERY, STEPS]
    assert all(line["loss"] != 123 for line in ours)
    assert len(lines(tmp_path)) == len(ours) + 1, "another stage's lines stay"


def test_the_progress_bar_moves_with_every_step() -> None:
    metrics = Metrics(None, Console(file=io.StringIO(), force_terminal=True))
    metrics.begin("teacher", 20, 100)
    assert metrics.progress is not None
    (task,) = metrics.progress.tasks
    assert (task.completed, task.total) == (20, 100)
    metrics.tick(21)
    assert task.completed == 21
    metrics.close()


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    stage = stage_of(teacher_objective, tmp_path)
    train(stage, tmp_path)
    content = stage.checkpoint.read_bytes()
    again = stage_of(teacher_objective, tmp_path)
    again.hooks.append(lambda step, values: pytest.fail("trained"))
    average = train(again, tmp_path)
    assert stage.checkpoint.read_bytes() == content
    for mine, theirs in zip(average.parameters(), stage.average.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_another_seeds_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(stage_of(teacher_objective, tmp_path), tmp_path, lambda: True)
    other = stage_of(teacher_objective, tmp_path)
    other.seed = 4
    with pytest.raises(RactdError, match="seed 3"):
        train(other, tmp_path)


def test_a_damaged_checkpoint_is_named_and_kept(tmp_path: Path) -> None:
    stage = stage_of(teacher_objective, tmp_path)
    with pytest.raises(Interrupted):
        train(stage, tmp_path, lambda: True)
    content = stage.checkpoint.read_bytes()[:-10]
    stage.checkpoint.write_bytes(content)
    with pytest.raises(RactdError, match=r"last\.safetensors"):
        train(stage_of(teacher_objective, tmp_path), tmp_path)
    assert stage.checkpoint.read_bytes() == content


def test_no_partial_files_are_left(tmp_path: Path) -> None:
    stage = stage_of(teacher_objective, tmp_path)
    train(stage, tmp_path)
    assert [path.name for path in stage.directory.iterdir()] == ["last.safetensors"]


# --- losses that are no numbers ----------------------------------------------------------------------------------


class Poisoned(nn.Module):
    """The teacher's objective, whose term `data` turns to `value` at a step."""

    def __init__(self, objective: nn.Module, at: int, value: float) -> None:
        super().__init__()
        self.inner, self.network, self.at, self.value, self.step = objective, objective.network, at, value, 0

    def draw(self, generator: torch.Generator, optimization: Optimization) -> dict[str, Tensor]:
        return self.inner.draw(generator, optimization)  # type: ignore[operator, no-any-return]

    def forward(self, draws: dict[str, Tensor]) -> dict[str, Tensor]:
        terms = self.inner(draws)
        bad = self.value if self.step == self.at else 1.0
        self.step += 1
        return {"loss": terms["loss"] * bad, "data": terms["dsm"] * bad}


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e8])
def test_a_bad_loss_stops_with_step_and_term_and_keeps_the_checkpoint(tmp_path: Path, value: float) -> None:
    at = 2 * LOG_EVERY + 7
    stage = stage_of(teacher_objective, tmp_path)
    stage.objective = Poisoned(stage.objective, at, value)
    with pytest.raises(RactdError, match=f"step {at}: term '(loss|data)'") as error:
        train(stage, tmp_path)
    assert str(stage.checkpoint) in str(error.value)
    tensors, header = read_tensors(stage.checkpoint)
    assert header["step"] == 2 * LOG_EVERY
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert [line["step"] for line in lines(tmp_path)] == [LOG_EVERY, 2 * LOG_EVERY]
    # And without the poison the same command goes on from there.
    train(stage_of(teacher_objective, tmp_path), tmp_path)
    assert [line["step"] for line in lines(tmp_path)][-1] == STEPS


@pytest.mark.filterwarnings("error")
def test_a_loss_bad_from_the_start_leaves_no_checkpoint(tmp_path: Path) -> None:
    stage = stage_of(teacher_objective, tmp_path)
    stage.objective = Poisoned(stage.objective, 0, math.nan)
    with pytest.raises(RactdError, match=r"step 0: term 'loss' is nan; there is no checkpoint yet"):
        train(stage, tmp_path)
    assert not stage.checkpoint.exists()


@pytest.mark.parametrize("build", [teacher_objective, return_objective])
def test_an_exploding_stage_stops(tmp_path: Path, build: Callable[[], tuple[nn.Module, nn.Module]]) -> None:
    """A learning rate of a million."""
    stage = stage_of(build, tmp_path, rate=1e6)
    with pytest.raises(RactdError, match="lower its learning rate"):
        train(stage, tmp_path)
    assert not stage.checkpoint.exists()
