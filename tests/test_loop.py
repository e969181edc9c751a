"""The training loop: schedule, seeds, resuming bit for bit, and stopping before anything is ruined."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from dataset_factory import make
from parts_factory import actions_of, return_model
from rich.console import Console
from torch import Tensor, nn

from ractd.critics.return_to_go import ReturnObjective
from ractd.data.windows import Windows
from ractd.diffusion.settings import Diffusion
from ractd.errors import RactdError
from ractd.methods.ractd import StudentObjective, TeacherObjective
from ractd.methods.ractd_settings import Student, Teacher
from ractd.networks import copy_matching
from ractd.networks.mlp import MLP
from ractd.networks.tensors import read_tensors
from ractd.settings import Optimization
from ractd.stopping import Interrupted
from ractd.training.loop import (
    LOG_EVERY,
    Follower,
    Stage,
    Update,
    averaged_copy,
    follow,
    learning_rate,
    objective_stage,
    run_stage,
    step_generator,
)
from ractd.training.metrics import Metrics

NETWORK = MLP(width=16, blocks=1, embed_dim=8)
DIFFUSION = Diffusion()
STEPS = 3 * LOG_EVERY + 20


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny networks: threads cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def teacher_objective() -> tuple[nn.Module, nn.Module]:
    dataset = make((30, 20, 25))
    torch.manual_seed(0)
    network = NETWORK.build((2, 2), 3, False)
    sequence = actions_of(dataset, 2)
    objective = TeacherObjective(network, sequence, sequence.samples(dataset), DIFFUSION, Teacher())
    return objective, averaged_copy(network)


def student_objective() -> tuple[nn.Module, nn.Module]:
    dataset = make((30, 20, 25))
    torch.manual_seed(0)
    teacher = NETWORK.build((2, 2), 3, False)
    nn.init.normal_(teacher.output.weight, std=0.2)  # type: ignore[arg-type, union-attr]
    network = NETWORK.build((2, 2), 3, True)
    copy_matching(teacher, network)
    average, sequence = averaged_copy(network), actions_of(dataset, 2)
    objective = StudentObjective(
        network,
        average,
        teacher,
        return_model(layers=(8, 8)),
        sequence,
        sequence.samples(dataset),
        DIFFUSION,
        Student(reward_weight="auto"),
    )
    return objective, average


def return_objective() -> tuple[nn.Module, nn.Module]:
    dataset = make((30, 20, 25))
    torch.manual_seed(0)
    network = return_model(layers=(8, 8))
    targets = torch.from_numpy(dataset.observations[:, 0].copy())  # something to be learnt
    objective = ReturnObjective(network, actions_of(dataset, 1), Windows(dataset, 1), targets, torch.arange(75))
    return objective, averaged_copy(network)


def stage_of(
    build: Callable[[], tuple[nn.Module, nn.Module]], directory: Path, rate: float = 1e-3, seconds: float = 0.0
) -> Stage:
    objective, average = build()
    optimization = Optimization(STEPS, batch_size=8, learning_rate=rate, warmup_steps=20, ema=0.98)
    return objective_stage("toy", objective, average, optimization, 3, directory / "checkpoints", seconds)


def two_networks(directory: Path, seconds: float = 0.0, steps: int = STEPS) -> Stage:
    """A critic of a chain of states, its target, and an actor that moves every second step, with its average."""
    torch.manual_seed(0)
    critic, actor = nn.Linear(2, 1), nn.Linear(1, 1)
    target, average = averaged_copy(critic), averaged_copy(actor)
    slow = Optimization(steps, batch_size=8, learning_rate=1e-2, warmup_steps=20)

    def q(network: nn.Module, state: Tensor, action: Tensor) -> Tensor:
        return network(torch.cat([state, action], 1))  # type: ignore[no-any-return]

    def critic_loss(draws: dict[str, Tensor]) -> dict[str, Tensor]:
        state, action = draws["state"], draws["action"]
        after = state + action
        wanted = after + 0.5 * q(target, after, average(after))
        loss = (q(critic, state, action) - wanted).square().mean()
        return {"loss": loss, "target": wanted.mean()}

    def actor_loss(draws: dict[str, Tensor]) -> dict[str, Tensor]:
        action = actor(draws["state"])
        return {"loss": (action.square() - 0.1 * q(critic, draws["state"], action)).mean()}

    def draw(generator: torch.Generator) -> dict[str, Tensor]:
        return dict(zip(("state", "action"), torch.randn(2, 8, 1, generator=generator), strict=True))

    return Stage(
        "two",
        [
            Update("critic", critic, critic_loss, slow),
            Update("actor", actor, actor_loss, replace(slow, learning_rate=1e-3), every=2),
        ],
        [Follower("target", critic, target, 0.95, every=3), Follower("average", actor, average, 0.98, grows=True)],
        draw,
        3,
        directory / "checkpoints",
        checkpoint_seconds=seconds,
    )


Build = Callable[[], tuple[nn.Module, nn.Module]]


def one_network(build: Build) -> Callable[..., Stage]:
    return lambda directory, seconds=0.0: stage_of(build, directory, seconds=seconds)


STAGES = [*(one_network(build) for build in (teacher_objective, student_objective, return_objective)), two_networks]
each_stage = pytest.mark.parametrize("build", STAGES, ids=["teacher", "student", "return", "two networks"])


def train(stage: Stage, directory: Path, should_stop: Callable[[], bool] = lambda: False) -> list[Tensor]:
    """Train it; return the weights of every network, averages and targets among them."""
    metrics = Metrics(directory)
    try:
        run_stage(stage, Accelerator(cpu=True), metrics, should_stop)
    finally:
        metrics.close()
    modules = [update.network for update in stage.updates] + [follower.copy for follower in stage.followers]
    return [weight for module in modules for weight in module.parameters()]


def lines(directory: Path) -> list[dict[str, Any]]:
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
    network, average = nn.Linear(1, 1), nn.Linear(1, 1).requires_grad_(False)
    follower = Follower("average", network, average, 0.7, grows=True)
    expected = average.weight.item()
    for step in range(50):
        nn.init.constant_(network.weight, step)
        follow(follower, step)
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert average.weight.item() == pytest.approx(expected, rel=1e-5)
    follow(replace(follower, decay=0.0), 1000)
    assert average.weight.item() == 49
    nn.init.constant_(network.weight, 59)
    follow(replace(follower, decay=0.9, grows=False), 0)
    assert average.weight.item() == pytest.approx(50)


# --- resuming ----------------------------------------------------------------------------------------------------


def assert_same_checkpoint(a: Path, b: Path) -> None:
    (ours, header), (theirs, other) = read_tensors(a), read_tensors(b)
    assert set(ours) == set(theirs)
    assert len({name.split(".")[0] for name in ours}) >= 3, "networks, copies, optimisers"
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    assert header["step"] == other["step"] == STEPS
    assert header["record"]["running_means"] == other["record"]["running_means"]


@each_stage
@pytest.mark.parametrize("how", ["asked", "crash"])
def test_an_interrupted_stage_ends_bit_for_bit_as_if_it_was_not(
    tmp_path: Path, build: Callable[..., Stage], how: str
) -> None:
    straight = build(tmp_path / "a", 1e9)
    final = train(straight, tmp_path / "a")

    broken = build(tmp_path / "b")
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
    resumed = build(tmp_path / "b")
    ended = train(resumed, tmp_path / "b")
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)
    for mine, theirs in zip(ended, final, strict=True):
        assert torch.equal(mine, theirs)

    timing = {"samples_per_second"}
    ours, others = lines(tmp_path / "b"), lines(tmp_path / "a")
    assert [line["step"] for line in ours] == [LOG_EVERY, 2 * LOG_EVERY, 3 * LOG_EVERY, STEPS]
    for our, other in zip(ours, others, strict=True):
        assert {k: v for k, v in our.items() if k not in timing} == {k: v for k, v in other.items() if k not in timing}


def killed(directory: Path) -> None:
    """Train two networks and die after the second checkpoint as a killed process does: with no chance to say anything."""
    stage = two_networks(directory)

    def die(step: int, values: dict[str, float]) -> dict[str, float]:
        if step == 3 * LOG_EVERY:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    stage.hooks.append(die)
    train(stage, directory)


def test_two_networks_that_were_killed_end_bit_for_bit_as_if_they_were_not(tmp_path: Path) -> None:
    straight = two_networks(tmp_path / "a", 1e9)
    final = train(straight, tmp_path / "a")
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    program = f"import pathlib, torch, test_loop; torch.set_num_threads(1); test_loop.killed(pathlib.Path({str(tmp_path / 'b')!r}))"
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": paths}, check=False)
    assert done.returncode == -signal.SIGKILL
    resumed = two_networks(tmp_path / "b")
    assert read_tensors(resumed.checkpoint)[1]["step"] == 2 * LOG_EVERY
    ended = train(resumed, tmp_path / "b")
    assert_same_checkpoint(straight.checkpoint, resumed.checkpoint)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(ended, final, strict=True))


def test_training_changes_the_weights_and_lowers_the_loss(tmp_path: Path) -> None:
    """Else the tests of resuming would compare nothing."""
    stage = stage_of(return_objective, tmp_path, rate=1e-2)
    before = [p.clone() for p in stage.updates[0].network.parameters()]
    train(stage, tmp_path)
    assert all(not torch.equal(a, b) for a, b in zip(before, stage.updates[0].network.parameters(), strict=True))
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
    trained = train(stage, tmp_path)
    content = stage.checkpoint.read_bytes()
    again = stage_of(teacher_objective, tmp_path)
    again.hooks.append(lambda step, values: pytest.fail("trained"))
    loaded = train(again, tmp_path)
    assert stage.checkpoint.read_bytes() == content
    for mine, theirs in zip(loaded, trained, strict=True):
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


# --- several networks --------------------------------------------------------------------------------------------


def test_networks_take_turns_as_they_would_by_hand(tmp_path: Path) -> None:
    """The same steps with PyTorch's optimisers alone, each loss differentiated by its own network's weights."""
    stage, ours = two_networks(tmp_path), two_networks(tmp_path)
    train(stage, tmp_path)
    optimizers = [
        torch.optim.AdamW(u.network.parameters(), lr=1.0, weight_decay=u.optimization.weight_decay)
        for u in ours.updates
    ]
    moved = [0, 0]
    for step in range(STEPS):
        draws = ours.draw(step_generator(ours.seed, ours.name, step))
        for which, (update, optimizer) in enumerate(zip(ours.updates, optimizers, strict=True)):
            if which == 1 and step % 2 == 0:
                continue
            moved[which] += 1
            weights = [*update.network.parameters()]
            gradients = torch.autograd.grad(update.loss(draws)["loss"], weights)
            norm = torch.stack([g.norm() for g in gradients]).norm()
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient * min(1.0, update.optimization.max_grad_norm / (norm.item() + 1e-6))
            optimizer.param_groups[0]["lr"] = learning_rate(step, update.optimization)
            optimizer.step()
        with torch.no_grad():
            for follower, decay in zip(ours.followers, (0.95, min(0.98, (1 + step) / (10 + step))), strict=True):
                if decay == 0.95 and step % 3 != 2:
                    continue
                for a, b in zip(follower.copy.parameters(), follower.network.parameters(), strict=True):
                    a.copy_(decay * a + (1 - decay) * b)
    assert moved == [STEPS, STEPS // 2]
    modules = ([*(u.network for u in each.updates), *(f.copy for f in each.followers)] for each in (stage, ours))
    for trained, wanted in zip(*modules, strict=True):
        for a, b in zip(trained.parameters(), wanted.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_several_networks_log_under_their_names(tmp_path: Path) -> None:
    train(two_networks(tmp_path), tmp_path)
    line = lines(tmp_path)[-1]
    for name in ("critic/loss", "critic/target", "critic/gradient_norm", "actor/loss", "actor/learning_rate"):
        assert math.isfinite(line[name]), name
    assert "loss" not in line


def test_an_update_that_was_not_due_logs_nothing(tmp_path: Path) -> None:
    stage = two_networks(tmp_path)
    stage.updates[1].every = 2 * LOG_EVERY
    train(stage, tmp_path)
    assert ["actor/loss" in line for line in lines(tmp_path)] == [False, True, False, False]


def test_parts_need_names_of_their_own_and_one_length(tmp_path: Path) -> None:
    stage = two_networks(tmp_path)
    with pytest.raises(ValueError, match="name"):
        replace(stage, followers=[replace(stage.followers[0], name="critic")])
    longer = replace(stage.updates[1], optimization=Optimization(STEPS + 1, batch_size=8))
    with pytest.raises(ValueError, match="steps"):
        replace(stage, updates=[stage.updates[0], longer])


def test_processor_time_is_that_of_the_steps_and_survives(tmp_path: Path) -> None:
    stage = two_networks(tmp_path)
    busy: list[float] = []

    def work(step: int, values: dict[str, float]) -> dict[str, float]:
        began = time.process_time()
        while time.process_time() - began < 0.2:
            pass
        busy.append(0.2)
        return {}

    stage.hooks.append(work)
    used = time.process_time()
    with pytest.raises(Interrupted):
        train(stage, tmp_path, lambda: True)
    saved = read_tensors(stage.checkpoint)[1]["record"]["processor_seconds"]
    again = two_networks(tmp_path)
    again.hooks.append(work)
    train(again, tmp_path)
    used = time.process_time() - used
    assert len(busy) == 4
    assert 0 < saved < again.record["processor_seconds"] <= used - sum(busy)


def test_a_checkpoint_of_other_parts_is_refused(tmp_path: Path) -> None:
    stage = two_networks(tmp_path)
    with pytest.raises(Interrupted):
        train(stage, tmp_path, lambda: True)
    other = two_networks(tmp_path)
    other.followers.pop()
    with pytest.raises(RactdError, match="another version of ractd"):
        train(other, tmp_path)


# --- losses that are no numbers ----------------------------------------------------------------------------------


def poison(stage: Stage, at: int, value: float) -> None:
    """Multiply the loss of a stage's first update by `value` at a step."""
    loss, step = stage.updates[0].loss, 0

    def poisoned(draws: dict[str, Tensor]) -> dict[str, Tensor]:
        nonlocal step
        bad = value if step == at else 1.0
        step += 1
        return {name: term * bad for name, term in loss(draws).items()}

    stage.updates[0].loss = poisoned


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e8])
def test_a_bad_loss_stops_with_step_and_term_and_keeps_the_checkpoint(tmp_path: Path, value: float) -> None:
    at = 2 * LOG_EVERY + 7
    stage = stage_of(teacher_objective, tmp_path)
    poison(stage, at, value)
    with pytest.raises(RactdError, match=f"step {at}: term 'loss'") as error:
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
    poison(stage, 0, math.nan)
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


def test_a_stage_may_grow_a_thousandfold_where_it_says_so(tmp_path: Path) -> None:
    at = LOG_EVERY + 7
    stage = two_networks(tmp_path / "watched")
    poison(stage, at, 1e8)
    with pytest.raises(RactdError, match=f"step {at}: term 'critic/loss'"):
        train(stage, tmp_path / "watched")
    stage = replace(two_networks(tmp_path / "free"), exploded=None)
    poison(stage, at, 1e8)
    train(stage, tmp_path / "free")
    stage = replace(two_networks(tmp_path / "nan"), exploded=None)
    poison(stage, at, math.nan)
    with pytest.raises(RactdError, match=f"step {at}: term 'critic/loss' is nan"):
        train(stage, tmp_path / "nan")


@pytest.mark.parametrize("build", STAGES[:2], ids=["teacher", "student"])
def test_bf16_rounds_losses_and_not_weights(build: Callable[..., Stage], tmp_path: Path) -> None:
    single = train(build(tmp_path / "single"), tmp_path)
    stage = build(tmp_path / "whole")
    stage.bf16 = True
    rounded = train(stage, tmp_path)
    assert {weight.dtype for weight in rounded} == {torch.float32}
    off = max(float((a - b).detach().abs().max()) for a, b in zip(single, rounded, strict=True))
    assert 0 < off < 0.05, "other weights, and not far from those of single precision"

    parts = build(tmp_path / "parts")
    parts.bf16 = True
    with pytest.raises(Interrupted):
        train(parts, tmp_path, lambda: True)
    again = build(tmp_path / "parts")
    again.bf16 = True
    for a, b in zip(train(again, tmp_path), rounded, strict=True):
        assert torch.equal(a, b), "it goes on bit for bit"
