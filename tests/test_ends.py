"""What an episode's end means: said by flags, by the user, by the environment, and else judged from the data or left open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import Answer, options
from dataset_factory import arrays, make, save_fields

from ractd import validate
from ractd.data import load_dataset, write_hdf5
from ractd.data.dataset import OfflineDataset
from ractd.data.ends import kind_by_data
from ractd.data.findings import stop_at_errors
from ractd.data.returns import resolved_penalty
from ractd.envs.validation import examine
from ractd.errors import RactdError

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
Fields = dict[str, Any]


def examined(data: OfflineDataset | Path, accept: Sequence[str] = (), **options: Any) -> Any:
    """What training does with a dataset before it begins."""
    found, findings = examine(data, **options)
    return found, stop_at_errors(findings, accept)


def warnings_of(path: Path, **options: Any) -> list[str]:
    return [finding.message for finding in validate(path, **options) if finding.level == "warning"]


def robot(lengths: list[int], terminal: list[bool], step: float, bonus: float, seed: int = 0) -> OfflineDataset:
    """Rewards of about `step` a row, and `bonus` more at terminals."""
    data = make(lengths, terminal=terminal, seed=seed)
    data.rewards[:] = step + 0.1 * data.rewards
    data.rewards[data.terminals] += bonus
    return data


FALLS = robot([20, 30, 25, 100, 100, 100], [True] * 3 + [False] * 3, step=1.0, bonus=0.0)
SUCCESSES = robot([20, 30, 25, 100, 100, 100], [True] * 3 + [False] * 3, step=-0.1, bonus=10.0)
COSTS = robot([20, 30, 25, 100, 100, 100], [True] * 3 + [False] * 3, step=-1.0, bonus=0.0)
CRASHES = robot([20, 30, 25, 100, 100, 100], [True] * 3 + [False] * 3, step=0.0, bonus=-50.0)
CONTRADICTION = robot([20, 30, 25, 100, 100, 100], [True] * 3 + [False] * 3, step=1.0, bonus=10.0)
ALL_END = robot([20, 30, 25, 60], [True] * 4, step=1.0, bonus=0.0)
LIMIT = robot([50] * 4, [True] * 4, step=1.0, bonus=0.0)


@pytest.mark.parametrize(
    ("data", "kind", "why"),
    [
        (FALLS, "failure", "less than the others in 100% of pairs"),
        (SUCCESSES, "success", "terminal rows are paid"),
        (COSTS, "success", "more than the others in 100% of pairs"),
        (CRASHES, "failure", "less than nearly all others"),
        (CONTRADICTION, "unclear", "contradict themselves"),
        (ALL_END, "unclear", "neither rewards nor returns tell"),
        (LIMIT, "cut", "after exactly 50 steps"),
    ],
    ids=["falls", "successes", "costs", "crashes", "contradiction", "all end", "limit"],
)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_the_data_tell_what_terminals_mean_whatever_their_scale(
    data: OfflineDataset, kind: str, why: str, scale: float
) -> None:
    data = replace(data, rewards=data.rewards * np.float32(scale))
    found, told = kind_by_data(data)
    assert found == kind
    assert why in told
    assert set(data.ends.counts) == {kind, "cut"} if not data.terminals[data.episode_ends - 1].all() else {kind}


def test_returns_are_compared_by_the_share_of_pairs() -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    data = make([4, 5] * 30, terminal=[e % 3 == 0 for e in range(60)])
    terminal = data.terminals[data.episode_ends - 1]
    for least, kind in ((-3, "failure"), (0, "unclear"), (3, "success")):
        returns = rng.integers(0, 6, 60) + np.where(terminal, least, 0)  # with ties
        data.rewards[:] = np.repeat(returns / data.episode_lengths, data.episode_lengths)
        exact = data.episode_returns()
        pairs = terminal.sum() * (~terminal).sum()
        share = mannwhitneyu(exact[terminal], exact[~terminal]).statistic / pairs
        found, told = kind_by_data(data)
        assert found == kind
        if kind != "unclear":
            assert f"in {max(share, 1 - share):.0%} of pairs" in told


def test_order_of_trust() -> None:
    flags = np.zeros(FALLS.num_transitions, bool)
    flags[FALLS.episode_ends[[0, 3]] - 1] = True  # one at a terminal, one at a time limit
    by_flags = replace(FALLS, successes=flags, terminals_mean="success", env_id="Hopper-v5")
    assert by_flags.ends.counts == {"failure": 2, "success": 2, "cut": 2}
    assert "flags" in by_flags.ends.source
    unused = replace(FALLS, successes=np.zeros_like(flags), terminals_mean="success")
    assert unused.ends.counts == {"success": 3, "cut": 3}, "flags that are never raised say nothing"
    said = replace(FALLS, terminals_mean="success", env_id="Hopper-v5")
    assert said.ends.counts == {"success": 3, "cut": 3}
    assert "--ends" in said.ends.source
    by_environment = replace(SUCCESSES, env_id="Hopper-v5")
    assert by_environment.ends.counts == {"failure": 3, "cut": 3}
    assert "Hopper-v5" in by_environment.ends.source
    for other in ("HopperHop-v1", "AntMaze_UMaze-v5", "Pendulum-v1", "MyHopper-v5"):
        assert replace(SUCCESSES, env_id=other).ends.counts == {"success": 3, "cut": 3}


@pytest.mark.skipif(not SHARED.is_dir(), reason="skipped: the shared example datasets are not on this machine")
@pytest.mark.parametrize("path", sorted(SHARED.glob("*.hdf5")), ids=lambda path: path.stem)
def test_on_the_nine_gym_sets_the_penalty_is_the_papers(path: Path) -> None:
    data = load_dataset(path)
    assert resolved_penalty(data, None) == -100
    falls = data.terminals[data.episode_ends - 1]
    np.testing.assert_array_equal(data.ends.are("failure"), falls)
    if falls.any():  # and the data alone say the same
        assert kind_by_data(data)[0] == "failure"
        assert data.final_observation_known.all()


# Names of ends.


def marks_of(fields: Fields) -> np.ndarray:
    return np.asarray(fields["terminals"] | fields["timeouts"])


def without(fields: Fields, *names: str, **more: Any) -> Fields:
    return {name: value for name, value in fields.items() if name not in names} | more


TWO = ("terminals", "timeouts")
CLEAR: dict[str, Callable[[Fields], Fields]] = {
    "gymnasium": lambda f: without(f, *TWO, terminations=f["terminals"], truncations=f["timeouts"]),
    "steps of gymnasium": lambda f: without(f, *TWO, terminated=f["terminals"], truncated=f["timeouts"]),
    "singular": lambda f: without(f, *TWO, terminal=f["terminals"], timeout=f["timeouts"]),
    "capitals": lambda f: without(f, *TWO, Terminals=f["terminals"], Timeouts=f["timeouts"]),
    "rlds": lambda f: without(f, *TWO, is_terminal=f["terminals"], is_last=marks_of(f)),
    "d3rlpy": lambda f: without(f, "timeouts", episode_terminals=marks_of(f)),
    "marks and terminals": lambda f: without(f, "timeouts", dones=marks_of(f)),
    "marks and timeouts": lambda f: without(f, "terminals", dones=marks_of(f)),
    "counts": lambda f: without(f, "timeouts", episode_ends=np.flatnonzero(marks_of(f)) + 1),
    "flags named as counts": lambda f: without(f, "timeouts", episode_ends=marks_of(f)),
    "flags as integers": lambda f: without(f, "timeouts", episode_ends=marks_of(f).astype(np.int64)),
}


@pytest.mark.parametrize("change", CLEAR.values(), ids=CLEAR)
def test_other_names_are_read_where_their_meaning_is_clear(tmp_path: Path, change: Callable[..., Any]) -> None:
    fields = arrays([5, 3, 7, 4], terminal=[True, False, True, False])
    data = load_dataset(save_fields(tmp_path / "x.hdf5", change(fields)))
    np.testing.assert_array_equal(data.terminals, fields["terminals"])
    np.testing.assert_array_equal(data.timeouts, fields["timeouts"])


@pytest.mark.parametrize("name", ["dones", "done"])
def test_an_end_that_may_be_a_time_limit_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    fields = arrays()
    path = save_fields(tmp_path / "x.hdf5", without(fields, *TWO, **{name: marks_of(fields)}))
    with pytest.raises(
        RactdError, match=f"'{name}' says that an episode ended, but not whether .* time limit did; save"
    ) as raised:
        load_dataset(path)
    assert "rename" not in str(raised.value)


@pytest.mark.parametrize("name", ["is_last", "episode_terminals", "episode_ends"])
def test_marks_alone_are_cuts_and_said_to_be(tmp_path: Path, name: str) -> None:
    fields = arrays([5, 3, 7])
    path = save_fields(tmp_path / "x.hdf5", without(fields, *TWO, **{name: marks_of(fields)}))
    data = load_dataset(path)
    assert data.episode_ends.tolist() == [5, 8, 15]
    assert data.ends.counts == {"cut": 3}
    assert any(f"field '{name}' says where episodes end and nothing says why" in found for found in warnings_of(path))


def test_ends_in_a_field_of_their_own_are_not_one_long_episode(tmp_path: Path) -> None:
    fields = arrays([500] * 4, terminal=[False] * 4)
    fields["terminals"][:] = False
    path = save_fields(tmp_path / "x.hdf5", without(fields, "timeouts", episode_terminals=fields["timeouts"]))
    assert load_dataset(path).num_episodes == 4


@pytest.mark.parametrize("ends", [[5, 3, 15], [0, 5, 15], [5, 8, 16], [5, 5, 15]])
def test_counts_that_are_no_ends_are_refused(tmp_path: Path, ends: list[int]) -> None:
    path = save_fields(tmp_path / "x.hdf5", without(arrays([5, 3, 7]), "timeouts", episode_ends=np.array(ends)))
    with pytest.raises(RactdError, match="field 'episode_ends' should hold rising row numbers from 1 to 15"):
        load_dataset(path)


def test_an_error_names_the_field_as_the_file_does(tmp_path: Path) -> None:
    fields = arrays([5, 3])
    path = save_fields(tmp_path / "x.hdf5", without(fields, "terminals", terminated=np.full((8, 2), False)))
    with pytest.raises(RactdError, match=r"field 'terminated' has shape \(8, 2\)"):
        load_dataset(path)


# A terminal on every row near a goal.


def walk(lengths: list[int], near: int, seed: int = 0, start: float = 0.0) -> Fields:
    """Points that drift from about `start`; an episode's last `near` rows are terminals, and its last one a timeout as well."""
    rng = np.random.default_rng(seed)
    fields = arrays(lengths, obs=2, act=1)
    fields["terminals"][:] = fields["timeouts"][:] = False
    first = 0
    for length in lengths:
        steps = 0.1 + 0.02 * rng.normal(size=(length, 2))
        fields["observations"][first : first + length] = start + rng.normal(size=2) + np.cumsum(steps, axis=0)
        fields["terminals"][first + length - near : first + length] = True
        fields["timeouts"][first + length - 1] = True
        first += length
    return fields


def test_a_run_of_terminals_near_a_goal_is_one_end(tmp_path: Path) -> None:
    fields = walk([100, 80, 120], near=30)
    fields["rewards"] = fields["terminals"].astype(np.float32)
    path = save_fields(tmp_path / "x.hdf5", fields)
    data = load_dataset(path)
    assert data.episode_lengths.tolist() == [71, 51, 91]
    assert data.episode_returns().tolist() == [1, 1, 1]
    assert data.terminals[data.episode_ends - 1].all()
    assert any("87 terminals, the first in row 71, stand right after another" in found for found in warnings_of(path))


def test_a_run_of_terminals_is_one_end_of_a_dataset_in_memory_too() -> None:
    fields = walk([100, 80, 120], near=30)
    data, findings = examined(OfflineDataset("ants", **fields))
    assert data.episode_lengths.tolist() == [71, 51, 91]
    assert any("87 terminals" in finding.message for finding in findings)
    with_goals = walk([100, 80, 120], near=1)
    same = OfflineDataset("ants", **with_goals)
    assert examined(same)[0] is same, "what is sound is taken as it is, without a copy"


def test_episodes_of_one_row_are_left_alone(tmp_path: Path) -> None:
    bandit = arrays([1] * 50, terminal=[True] * 50)
    assert load_dataset(save_fields(tmp_path / "bandit.hdf5", bandit)).num_episodes == 50
    path = save_fields(tmp_path / "short.hdf5", arrays([6, 1, 1, 5], terminal=[True] * 4))
    assert load_dataset(path).episode_lengths.tolist() == [6, 1, 1, 5]
    assert any("2 of 4 episodes have one row only" in found for found in warnings_of(path))


# What episodes ended with.


@pytest.mark.parametrize("suffix", [".hdf5", ".npz"])
def test_final_observations_are_kept_an_episode_each(tmp_path: Path, suffix: str) -> None:
    fields = arrays([5, 3, 7])
    following = np.roll(fields["observations"], -1, axis=0)
    following[[4, 7, 14]] = [[50, 50, 50], [51, 51, np.nan], [52, 52, 52]]
    fields["next_observations"] = following
    path = tmp_path / f"x{suffix}"
    if suffix == ".npz":
        np.savez(path, **fields)
    else:
        save_fields(path, fields)
    data = load_dataset(path)
    assert data.final_observation_known.tolist() == [True, False, True]
    assert data.final_observations is not None
    assert data.final_observations[[0, 2], 0].tolist() == [50, 52]
    assert (
        load_dataset(save_fields(tmp_path / "y.hdf5", without(fields, "next_observations"))).final_observations is None
    )


def test_what_is_known_of_ends_survives_a_file(tmp_path: Path) -> None:
    fields = arrays([5, 3, 7], terminal=[True, True, False])
    successes = np.isin(np.arange(15), [2, 7])
    final = np.array([[1, 2, 3], [np.nan] * 3, [7, 8, 9]], np.float32)
    data = OfflineDataset("x", **fields, successes=successes, final_observations=final)
    write_hdf5(tmp_path / "x.hdf5", data)
    again = load_dataset(tmp_path / "x.hdf5")
    np.testing.assert_array_equal(again.successes, successes)
    np.testing.assert_array_equal(again.final_observations, final)
    assert again.ends.counts == {"failure": 1, "success": 1, "cut": 1}
    assert again.fingerprint == data.fingerprint
    write_hdf5(tmp_path / "y.hdf5", OfflineDataset("y", **fields | {"rewards": np.zeros(15)}, has_rewards=False))
    with h5py.File(tmp_path / "y.hdf5") as file:
        assert set(file) == {"observations", "actions", "terminals", "timeouts"}


def test_next_observations_made_by_shifting_are_no_final_ones(tmp_path: Path) -> None:
    fields = arrays([5, 3, 7])
    fields["next_observations"] = np.roll(fields["observations"], -1, axis=0)
    path = save_fields(tmp_path / "x.hdf5", fields)
    assert load_dataset(path).final_observations is None
    assert any("made by shifting 'observations'" in found for found in warnings_of(path))


def test_final_observations_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(RactdError, match=r"'final_observations' has shape \(2, 3\), expected \(3, 3\)"):
        OfflineDataset("x", **arrays(), final_observations=np.zeros((2, 3), np.float32))


# Rewards that say nothing.


def test_without_rewards_nothing_is_ranked(tmp_path: Path) -> None:
    fields = arrays(terminal=[False] * 3)
    for change in (
        without(fields, "rewards"),
        without(fields, rewards=np.zeros(15)),
        without(fields, rewards=np.ones(15)),
    ):
        path = save_fields(tmp_path / "x.hdf5", change)
        data, findings = examined(path)
        assert not data.has_rewards
        assert any("a policy can only imitate the data" in finding.message for finding in findings)
        path.unlink()


def test_equal_rewards_tell_by_the_lengths_of_episodes_that_fail(tmp_path: Path) -> None:
    fields = arrays([5, 3, 7], terminal=[True] * 3) | {"rewards": np.ones(15, np.float32)}
    path = save_fields(tmp_path / "x.hdf5", fields)
    data, findings = examined(path, ends="failure")
    assert data.has_rewards
    assert any("only the lengths of episodes tell" in finding.message for finding in findings)


@pytest.mark.parametrize("rewards", [None, 0.0, -1.0])
def test_with_success_flags_alone_a_success_is_paid_one(tmp_path: Path, rewards: float | None) -> None:
    fields = without(arrays([5, 3, 7], terminal=[False] * 3), "rewards", "terminals")
    fields["is_success"] = np.zeros(15, bool)
    fields["is_success"][[3, 4, 14]] = True  # twice in the first episode
    if rewards is not None:
        fields["rewards"] = np.full(15, rewards, np.float32)
    path = save_fields(tmp_path / "x.hdf5", fields)
    data, findings = examined(path)
    assert np.flatnonzero(data.rewards).tolist() == [3, 14]
    assert data.episode_returns().tolist() == [1, 0, 1]
    assert data.ends.counts == {"success": 2, "cut": 1}
    assert any("2 of 3 episodes succeed: a success is paid 1" in finding.message for finding in findings)
    assert load_dataset(path).fingerprint == data.fingerprint


def test_success_flags_among_d4rls_infos_are_read(tmp_path: Path) -> None:
    fields = arrays([5, 3, 7], terminal=[True] * 3)
    path = save_fields(tmp_path / "x.hdf5", fields)
    with h5py.File(path, "r+") as file:
        file["infos/success"] = np.isin(np.arange(15), [4, 14]).astype(np.float64)
    assert load_dataset(path).ends.counts == {"failure": 1, "success": 2}


def test_terminals_that_are_successes_are_paid_where_nothing_else_is(tmp_path: Path) -> None:
    path = save_fields(tmp_path / "x.hdf5", without(arrays([5, 3, 7], terminal=[True, False, True]), "rewards"))
    data, _ = examined(path, ends="success")
    assert np.flatnonzero(data.rewards).tolist() == [4, 14]


# Findings.


def test_terminals_that_fit_a_time_limit_are_named(tmp_path: Path) -> None:
    lengths = [50, 20, 50, 30, 50]
    fields = arrays(lengths, terminal=[True] * 5)
    path = save_fields(tmp_path / "x.hdf5", fields)
    assert any("3 of 5 terminals come after exactly 50 steps" in f for f in warnings_of(path, ends="failure"))
    path = save_fields(tmp_path / "y.hdf5", arrays([50] * 5, terminal=[True] * 5))
    assert any("the 5 terminals are taken for a time limit" in f for f in warnings_of(path))


def test_paid_terminals_that_are_called_failures_are_named(tmp_path: Path) -> None:
    fields = {
        name: getattr(SUCCESSES, name) for name in ("observations", "actions", "rewards", "terminals", "timeouts")
    }
    path = save_fields(tmp_path / "x.hdf5", fields)
    assert any(
        "taken for failures (as was said with --ends), and yet terminal rows" in f
        for f in warnings_of(path, ends="failure")
    )
    assert not any("taken for" in f for f in warnings_of(path, ends="success"))


def test_unclear_ends_say_that_there_is_no_penalty(tmp_path: Path) -> None:
    path = save_fields(tmp_path / "x.hdf5", arrays([20, 30, 25], terminal=[True] * 3))
    assert any("can't be told" in f and "no penalty" in f and "--ends failure" in f for f in warnings_of(path))


def test_a_penalty_above_the_spread_of_returns_is_named(tmp_path: Path) -> None:
    fields = arrays([5, 6, 7, 8], terminal=[True] * 4)
    fields["rewards"] = (1 + 0.01 * fields["rewards"]).astype(np.float32)
    path = save_fields(tmp_path / "x.hdf5", fields)
    _, findings = examined(path, ends="failure", termination_penalty=None)
    assert any("a failure costs 100" in each.message and "spread of 1.1" in each.message for each in findings)
    assert not any("a failure costs" in each for each in warnings_of(path, ends="failure")), (
        "the default preset has none"
    )


def test_a_penalty_that_was_chosen_is_the_one_that_is_compared(tmp_path: Path) -> None:
    fields = arrays([5, 6, 7, 8], terminal=[True] * 4)
    fields["rewards"] = (1 + 0.01 * fields["rewards"]).astype(np.float32)
    path = save_fields(tmp_path / "x.hdf5", fields)
    for penalty, named in ((0.0, False), (-0.5, False), (-2.5, True)):
        _, findings = examined(path, ends="failure", termination_penalty=penalty)
        assert any(f"a failure costs {abs(penalty):g}, more" in each.message for each in findings) == named


def test_returns_that_overflow_are_an_error(tmp_path: Path) -> None:
    fields = arrays([5, 6])
    fields["rewards"][7] = 3e38
    with pytest.raises(RactdError, match=r"episode 1 has rewards of 3e\+38 in all"):
        examined(save_fields(tmp_path / "x.hdf5", fields))


def test_equal_returns_stop_until_they_are_accepted(tmp_path: Path) -> None:
    fields = arrays([5, 3, 7], terminal=[True] * 3)
    fields["rewards"][:] = 0
    fields["rewards"][[4, 7, 14]] = 1
    path = save_fields(tmp_path / "x.hdf5", fields)
    with pytest.raises(RactdError, match=r"all 3 episodes have the same return, 1, .*--accept equal-returns"):
        examined(path)
    _, findings = examined(path, accept=["equal-returns"])
    assert any("same return" in finding.message and finding.level == "warning" for finding in findings)
    with pytest.raises(RactdError, match="accept has 'everything', expected some of one-episode, equal-returns"):
        examined(path, accept=["everything"])


@pytest.mark.slow
def test_one_episode_without_an_end_trains_only_if_it_is_accepted(tmp_path: Path, cli: Callable[..., Answer]) -> None:
    fields = arrays([120], obs=2, act=1, terminal=[False])
    fields["timeouts"][:] = False
    train = ["train", save_fields(tmp_path / "x.hdf5", fields), "--out", tmp_path / "run", *options(), "--no-plain"]
    refused = cli(*train)
    assert refused.code == 2
    assert "all 120 rows are one episode without an end" in refused.err
    assert not (tmp_path / "run").exists()
    accepted = cli(*train, "--accept", "one-episode")
    assert accepted.code == 0, accepted.err
    assert "warning: " in accepted.out
    assert "one episode without an end" in accepted.out


def test_what_is_in_memory_is_examined_the_same_way(tmp_path: Path) -> None:
    fields = arrays([20, 30, 25], terminal=[True] * 3)
    on_disk = validate(save_fields(tmp_path / "x.hdf5", fields))
    in_memory = validate(OfflineDataset("x", **fields))
    named = [finding.message.replace(str(tmp_path / "x.hdf5"), "dataset 'x'") for finding in on_disk]
    assert [finding.message for finding in in_memory] == named
