"""A student whose critic follows it: its loss, a junction that it joins, how it is resumed, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import assert_same_tensors
from dataset_factory import make
from test_losses import batch, critics  # noqa: F401
from test_methods import MIDDLE, START, act, junction, walks  # noqa: F401
from torch import Tensor, nn

from ractd.critics import pessimistic
from ractd.critics.q import QFunction, QPart
from ractd.critics.settings import ReturnModel
from ractd.data import OfflineDataset
from ractd.errors import RactdError
from ractd.methods import td3_bc
from ractd.methods.following import critic_loss
from ractd.methods.ractd_settings import PRESETS, Config, Following, Student
from ractd.networks.mlp import MLP
from ractd.policies import Policy
from ractd.runs.directory import read_run
from ractd.runs.train import train
from ractd.settings import Optimization, check
from ractd.stopping import Interrupted
from ractd.training.loop import Stage
from ractd.training.run import Run
from ractd.training.transitions import Batch


def config_of(steps: int = 400, **options: Any) -> Config:
    """The preset with small networks, and many of what the target needs to follow in few steps."""
    optimization = Optimization(steps, batch_size=128, learning_rate=3e-3, warmup_steps=50, ema=0.98)
    following = Following(n_step=1, tau=0.05, every=1, distance_penalty=0.0)
    student = replace(PRESETS["following"].student, optimization=optimization, following=following, **options)
    return Config(
        horizon=1,
        return_model=ReturnModel(kind="q", layers=(32, 32), members=2, gamma=0.9, optimization=optimization),
        teacher=replace(PRESETS["following"].teacher, network=MLP(width=32, blocks=1), optimization=optimization),
        student=student,
    )


def student_of(data: OfflineDataset, out: Path, config: Config) -> Policy:
    return train(data, config=config, out=out).policy()


def test_without_a_penalty_its_loss_is_that_of_td3(batch: Batch) -> None:  # noqa: F811
    critic, target = critics(), critics()
    action = torch.rand(batch.action.shape) * 2 - 1

    class Fixed(nn.Module):
        def forward(self, condition: Tensor) -> Tensor:
            return action

    wanted = td3_bc.critic_loss(critic, target, Fixed(), batch, torch.zeros_like(action), 0.0)["loss"]
    torch.testing.assert_close(critic_loss(critic, target, batch, action, 0.0)["loss"], wanted)


def test_a_next_action_costs_its_distance_from_the_logged_one(batch: Batch) -> None:  # noqa: F811
    """A critic that is right on all rows has, with a penalty, the squares of what the penalty takes as its loss."""
    _, target = critics(), critics()
    away = torch.full_like(batch.next_action, 0.25)
    action = batch.next_action + away

    class Right(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            after: Tensor = target(torch.cat([batch.next_condition, action], 1)).amin(0)
            return (batch.reward + batch.discount * after).expand(2, -1)

    loss = critic_loss(Right(), target, batch, action, 2.0)["loss"]  # type: ignore[arg-type]
    taken = batch.continued * batch.discount * 2.0 * away.square().sum(1)
    torch.testing.assert_close(loss, 2 * taken.square().mean())


def test_it_joins_what_no_episode_does(junction: OfflineDataset, tmp_path: Path) -> None:  # noqa: F811
    policy = student_of(junction, tmp_path / "following", config_of())
    assert (act(policy, START, MIDDLE) > 0.3).all()
    at_start = policy.estimate_return(np.array([[START]] * 2, np.float32), np.array([[0.7], [-0.7]], np.float32))
    assert at_start == pytest.approx([0.9, 0.3], abs=0.2)


@pytest.mark.slow
def test_returns_to_go_can_not(junction: OfflineDataset, tmp_path: Path) -> None:  # noqa: F811
    config = config_of()
    returns = replace(config.return_model, kind="return-to-go")
    policy = student_of(junction, tmp_path / "fixed", replace(config, return_model=returns))
    assert act(policy, START)[0] < 0.3


def test_eq_7_holds_it_to_the_best_episodes(junction: OfflineDataset, tmp_path: Path) -> None:  # noqa: F811
    """Without a reward, the student of the best third is in the middle where those are that earn 1; that of all isn't."""
    plain = config_of(reward_weight=0.0)
    with pytest.raises(RactdError, match=r"the share is 0.3, 66 transitions of 'toy', and a batch has 128"):
        student_of(junction, tmp_path / "few", replace(plain, student=replace(plain.student, share=0.3)))
    assert not (tmp_path / "few").exists()
    small = replace(plain.student.optimization, batch_size=64)
    plain = replace(plain, student=replace(plain.student, optimization=small))
    best = student_of(junction, tmp_path / "best", replace(plain, student=replace(plain.student, share=0.3)))
    everything = student_of(junction, tmp_path / "all", plain)
    assert act(best, MIDDLE)[0] == pytest.approx(0.7, abs=0.15)
    assert act(everything, MIDDLE)[0] == pytest.approx(0.0, abs=0.25)


def test_where_episodes_are_alike_values_count_less(junction: OfflineDataset, tmp_path: Path) -> None:  # noqa: F811
    """By default Q's weight is 5, less in proportion to a spread of returns below 0.4, and 5 where they are all the same."""
    config = config_of(steps=5)

    def weight_of(data: OfflineDataset, name: str, **options: Any) -> float:
        train(data, config=config, out=tmp_path / name, quiet=True, **options)
        return float(read_run(tmp_path / name)["config"]["student"]["reward_weight"])

    for name, offset in {"as it is": 0.0, "much alike": 10.0}.items():
        rewards = junction.rewards.copy()
        rewards[junction.episode_ends - 1] += offset
        weight = weight_of(replace(junction, rewards=rewards), name)
        returns = np.repeat(junction.episode_returns() + offset, junction.episode_lengths)
        assert weight == pytest.approx(5 * min(returns.std() / returns.mean() / 0.4, 1), rel=1e-4)
    assert 0.1 < weight < 1

    same = replace(
        junction, rewards=(1 / np.repeat(junction.episode_lengths, junction.episode_lengths)).astype(np.float32)
    )
    assert weight_of(same, "the same", accept=["equal-returns"]) == 5, "how soon rewards come is all there is to learn"


@pytest.mark.parametrize("distilled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_stopped_and_continued_it_ends_bit_for_bit_as_if_it_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distilled: bool
) -> None:
    config = config_of(steps=100)
    if distilled:
        config = replace(config, student=replace(config.student, distilled=True, ctm_weight=1.0))
    student_of(walks(), tmp_path / "whole", config)
    monkeypatch.setattr(Run, "train", stopping_at(50))
    with pytest.raises(Interrupted):
        student_of(walks(), tmp_path / "stopped", config)
    monkeypatch.undo()
    student_of(walks(), tmp_path / "stopped", config)
    assert not (tmp_path / "whole" / "policy" / "plain").exists(), "nothing to compare with: no critic was before it"
    for file in ("policy/student/policy.safetensors", "checkpoints/student/last.safetensors"):
        assert_same_tensors(tmp_path / "whole" / file, tmp_path / "stopped" / file)
    assert (tmp_path / "whole" / "policy" / "teacher").exists() == distilled


def stopping_at(step: int) -> Any:
    """Return `Run.train` of which the student's stage is asked to stop at a step."""
    whole = Run.train

    def train_until(self: Run, stage: Stage) -> None:
        reached: list[int] = []

        def note(at: int, metrics: dict[str, float]) -> dict[str, float]:
            reached.append(at)
            return {}

        if stage.name == "student":
            stage.hooks.append(note)
            self.should_stop = lambda: step in reached
        whole(self, stage)

    return train_until


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ({"ctm_weight": 1.0}, r"--student.ctm-weight is 1.0, expected 0 for a student that is not distilled"),
        ({"anchor": "ode"}, r"--student.anchor is 'ode', expected 'dsm'"),
        ({"reward_weight": "auto"}, r"--student.reward-weight is 'auto', expected a number"),
        ({"share": 0.0}, r"--student.share is 0.0, expected a number above 0 to 1"),
        ({"share": 1.5}, r"--student.share is 1.5, expected a number above 0 to 1"),
    ],
)
def test_what_does_not_go_together_is_refused(student: dict[str, Any], said: str) -> None:
    with pytest.raises(RactdError, match=said):
        check(config_of(**student))


def test_the_default_s_student_is_paid_the_smaller_of_both_values() -> None:
    config = PRESETS["following"]
    Q = QFunction(QPart((8,), True, config.return_model.members, 1.0, 0.99), 3, 2)
    given, entry = torch.randn(50, 3), torch.randn(50, 2)
    smaller = Q.each(given, entry).amin(0)
    torch.testing.assert_close(pessimistic(Q, config.student.pessimism)(given, entry), smaller)


def test_planners_and_reward_aware_teachers_have_other_critics() -> None:
    config = config_of()
    with pytest.raises(RactdError, match=r"--teacher.reward-weight is 1.0, expected 0"):
        check(replace(config, teacher=replace(config.teacher, reward_weight=1.0)))
    planner = PRESETS["maze2d-umaze-cpu"]
    with pytest.raises(RactdError, match=r"--return-model.kind is 'q', expected 'goal'"):
        check(replace(planner, return_model=replace(planner.return_model, kind="q"), student=Student(reward_weight=1)))
    with pytest.raises(RactdError, match=r"--return-model.kind is 'sarsa', expected 'goal'"):
        check(replace(planner, return_model=replace(planner.return_model, kind="sarsa")))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"only": "teacher"}, "--only teacher: the settings train no such stage; name a preset that does, as cpu"),
        ({"only": "return"}, "--only return: the settings train no such stage"),
        ({"teacher.optimization.steps": 5}, "'teacher.optimization.steps': no teacher is trained; name a preset"),
        ({"teacher.ddpm.timesteps": 5}, "'teacher.ddpm.timesteps': no teacher is trained"),
        (
            {"student.ctm_share": 0.5},
            "'student.ctm_share': eq. 5 has no weight; use 'student.ctm_weight' 1, and a teacher",
        ),
        ({"student.reward_share": 0.5}, "'student.reward_share': values that follow the student are weighed in units"),
        ({"preset": "cpu", "student.following.n_step": 3}, "'student.following.n_step': no values follow the student"),
        ({"preset": "cpu", "teacher.ddpm.timesteps": 5}, "'teacher.ddpm.timesteps': the teacher is no DDPM; use"),
        ({"preset": "cpu", "return_model.kind": "goal"}, "--return-model.kind is 'goal', expected one of return-to-go"),
        (
            {"return_model.optimization.steps": 5},
            "'return_model.optimization.steps': values that follow .* have its own; use 'student.optimization.steps'",
        ),
    ],
)
def test_what_it_does_not_have_is_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RactdError, match=said):
        train(make(), out=tmp_path / "run", quiet=True, **options)
    assert not (tmp_path / "run").exists()


def test_without_rewards_it_clones_all_data(tmp_path: Path) -> None:
    data = replace(make((30, 40)), has_rewards=False)
    few: dict[str, Any] = {"student.optimization.steps": 10, "student.optimization.batch_size": 16}
    result = train(data, preset="following", out=tmp_path / "run", quiet=True, **few)
    assert [(row.variant, row.policy) for row in result.rows] == [("plain student", "student")]
    assert result.policy().critic is None
    few["student.share"] = 0.5
    with pytest.raises(RactdError, match=r"--student.share is 0.5, expected 1: there are no rewards"):
        train(data, preset="following", out=tmp_path / "half", quiet=True, **few)
