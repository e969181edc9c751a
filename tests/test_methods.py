"""BC, TD3+BC and IQL on problems whose answers are known, killed and continued."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import assert_same_tensors
from numpy.typing import NDArray

from ractd.data import OfflineDataset
from ractd.errors import RactdError
from ractd.export import export_policy
from ractd.methods import bc, iql, method_named, td3_bc
from ractd.networks.actor import Actor
from ractd.networks.tensors import read_header
from ractd.policies import Policy
from ractd.runs.train import train
from ractd.settings import Evaluation, Optimization
from ractd.training.metrics import Metrics
from ractd_runtime import Policy as Deployed

METHODS = ("bc", "td3_bc", "iql")
SECTIONS: dict[str, Any] = {"bc": bc.BC, "td3_bc": td3_bc.TD3BC, "iql": iql.IQL}
TD = {"critic_layers": (64, 64), "tau": 0.05}


def config_of(name: str, steps: int = 300, **options: Any) -> Any:
    """Small networks, and many of what the target needs to follow in few steps."""
    head = "gaussian" if name == "iql" else "deterministic"
    own = {
        "network": Actor(layers=(32, 32), head=options.pop("head", head)),
        "optimization": Optimization(
            steps, batch_size=128, learning_rate=5e-3, warmup_steps=50, ema=0.98, max_grad_norm=1e6
        ),
        **(TD if name != "bc" else {}),
        **options,
    }
    section = SECTIONS[name](**own)
    return method_named(name).settings(horizon=1, **{name: section})


def trained(data: OfflineDataset, out: Path, name: str, **options: Any) -> Policy:
    return train(data, method=name, config=config_of(name, **options), out=out / name).policy()


Episode = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""Observations [T, O], actions [T] and rewards [T]."""


def dataset(episodes: list[Episode], cut: int | None = None) -> OfflineDataset:
    """Episodes that the environment ends, but for those of `cut` steps, which a time limit does."""
    observations, actions, rewards = (
        np.concatenate(arrays).astype(np.float32) for arrays in zip(*episodes, strict=True)
    )
    lengths = np.array([len(episode[2]) for episode in episodes])
    last, limited = np.zeros((2, len(rewards)), bool)
    last[np.cumsum(lengths) - 1] = True
    limited[np.cumsum(lengths)[lengths == cut] - 1] = True
    return OfflineDataset(
        "toy", observations, actions[:, None], rewards, last & ~limited, limited, terminals_mean="success"
    )


# --- a bandit: the reward is 1 - (a - best)^2 ---------------------------------------------------------------------

BEST = {-1.0: -0.5, 1.0: 0.6}


@pytest.fixture(scope="module")
def bandit() -> OfflineDataset:
    rng = np.random.default_rng(0)
    contexts, actions = rng.choice([-1.0, 1.0], 4000), rng.uniform(-1, 1, 4000)
    actions[:2] = -1, 1  # the range of the data is [-1, 1]
    rewards = 1 - (actions - np.vectorize(BEST.get)(contexts)) ** 2
    return dataset(
        [(np.array([[c]]), np.array([a]), np.array([r])) for c, a, r in zip(contexts, actions, rewards, strict=True)]
    )


def act(policy: Policy, *observations: float) -> NDArray[Any]:
    return policy.act(np.array(observations, np.float32)[:, None])[:, 0]


@pytest.mark.parametrize("head", ["deterministic", "gaussian"])
def test_cloning_the_best_tenth_finds_the_best_actions(bandit: OfflineDataset, tmp_path: Path, head: str) -> None:
    assert act(trained(bandit, tmp_path, "bc", share=0.1, head=head), *BEST) == pytest.approx(
        [*BEST.values()], abs=0.08
    )


def test_cloning_everything_is_the_mean(bandit: OfflineDataset, tmp_path: Path) -> None:
    assert act(trained(bandit, tmp_path, "bc"), *BEST) == pytest.approx([0, 0], abs=0.1)


def test_td3_bc_stops_where_both_terms_balance(bandit: OfflineDataset, tmp_path: Path) -> None:
    """The gradient `2 lambda (best - a)` of Q against `2 a` of cloning uniform actions, with lambda = alpha / Q(a)."""
    policy = trained(bandit, tmp_path, "td3_bc", alpha=2.5)
    for context, best in BEST.items():
        wanted = best
        for _ in range(50):
            weight = 2.5 / (1 - (wanted - best) ** 2)
            wanted = weight * best / (1 + weight)
        assert act(policy, context)[0] == pytest.approx(wanted, abs=0.08)


def test_iql_is_the_mean_of_weighted_actions(bandit: OfflineDataset, tmp_path: Path) -> None:
    beta = 4.0
    policy = trained(bandit, tmp_path, "iql", temperature=beta, expectile=0.7)
    actions = np.linspace(-1, 1, 2001)
    unit = np.ptp(bandit.rewards)
    for context, best in BEST.items():
        weights = np.exp(-beta * (actions - best) ** 2 / unit)
        assert act(policy, context)[0] == pytest.approx(float((weights * actions).sum() / weights.sum()), abs=0.08)


# --- a chain: to the right is the goal ----------------------------------------------------------------------------

LENGTH, GAMMA, LIMIT = 5, 0.9, 20


def walk(rng: np.random.Generator, right: float) -> Episode:
    """From anywhere, a step to the right where an action is positive, to the left (or nowhere) where it is not."""
    place = int(rng.integers(LENGTH))
    places: list[list[float]] = []
    actions: list[float] = []
    rewards: list[float] = []
    while len(rewards) < LIMIT and place < LENGTH:
        actions.append((0.7 if rng.random() < right else -0.7) + 0.1 * rng.normal())
        places.append([float(place)])
        place = max(place + (1 if actions[-1] > 0 else -1), 0)
        rewards.append(1.0 if place == LENGTH else 0.0)
    return np.array(places), np.array(actions), np.array(rewards)


@pytest.fixture(scope="module")
def chain() -> OfflineDataset:
    """Random walks, of which some come to the goal."""
    rng = np.random.default_rng(0)
    return dataset([walk(rng, 0.5) for _ in range(600)], cut=LIMIT)


@pytest.mark.parametrize("name", ["td3_bc", "iql"])
def test_a_chain_is_walked_to_its_end(chain: OfflineDataset, tmp_path: Path, name: str) -> None:
    options = {"expectile": 0.9} if name == "iql" else {}
    policy = trained(chain, tmp_path, name, steps=600, gamma=GAMMA, **options)
    assert (act(policy, *map(float, range(LENGTH))) > 0.2).all()
    places = np.arange(LENGTH, dtype=np.float32)[:, None]
    values = policy.estimate_return(places, np.full_like(places, 0.7))
    assert values == pytest.approx(GAMMA ** np.arange(LENGTH - 1, -1, -1), abs=0.12)


def test_cloning_the_best_part_of_a_chain_walks_to_its_end(tmp_path: Path) -> None:
    """Most rows are of walks to the left, which earn nothing."""
    rng = np.random.default_rng(1)
    data = dataset([walk(rng, 0.9 if i % 2 else 0.1) for i in range(400)], cut=LIMIT)
    places = list(map(float, range(LENGTH)))
    assert (act(trained(data, tmp_path / "best", "bc", share=0.1), *places) > 0.2).all()
    assert (act(trained(data, tmp_path / "all", "bc"), *places[:2]) < 0).all()


# --- stitching ----------------------------------------------------------------------------------------------------

START, OTHER_START, MIDDLE = 0.0, 2.0, 1.0


@pytest.fixture(scope="module")
def junction() -> OfflineDataset:
    """No episode goes from START to the reward of 1: those that leave it for MIDDLE err there, and most take 0.3 and end.

    Those that come to MIDDLE from elsewhere show what to do there.
    """
    rng = np.random.default_rng(0)

    def episode(*steps: tuple[float, float, float]) -> Episode:
        places, actions, rewards = map(np.array, zip(*steps, strict=True))
        return places[:, None], actions + 0.1 * rng.normal(size=len(steps)), rewards

    errs = [episode((START, 0.7, 0.0), (MIDDLE, -0.7, 0.0)) for _ in range(40)]
    shows = [episode((OTHER_START, -0.7, 0.0), (MIDDLE, 0.7, 1.0)) for _ in range(40)]
    modest = [episode((START, -0.7, 0.3)) for _ in range(60)]
    return dataset([*errs, *shows, *modest])


def test_iql_stitches(junction: OfflineDataset, tmp_path: Path) -> None:
    assert (act(trained(junction, tmp_path, "iql", expectile=0.9), START, MIDDLE) > 0.3).all()


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_cloning_can_not(junction: OfflineDataset, tmp_path: Path, share: float) -> None:
    assert act(trained(junction, tmp_path, "bc", share=share), START)[0] < 0


# --- resuming -----------------------------------------------------------------------------------------------------


def walks() -> OfflineDataset:
    rng = np.random.default_rng(0)
    return dataset([walk(rng, 0.5) for _ in range(50)], cut=LIMIT)


def short(out: Path, name: str) -> None:
    """A training of five lines of the log, with a checkpoint at each."""
    train(walks(), method=name, config=config_of(name, steps=220), out=out / name, checkpoint_seconds=0)


def kill_each(out: Path) -> None:
    """Let a process train each method and die at a line of the log, as a killed one does."""
    importlib.import_module("torch._dynamo")  # as optimisers do: once for all, it takes longer than the training

    log = Metrics.log

    def die(self: Metrics, stage: str, step: int, values: dict[str, float]) -> None:
        if step == 150:
            os.kill(os.getpid(), signal.SIGKILL)
        log(self, stage, step, values)

    Metrics.log = die  # type: ignore[method-assign]
    for name in METHODS:
        child = os.fork()
        if child == 0:
            short(out, name)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of each method that were killed; in processes that imported torch and used it for nothing else."""
    out = tmp_path_factory.mktemp("killed")
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    program = f"import pathlib, test_methods; test_methods.kill_each(pathlib.Path({str(out)!r}))"
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": paths}, check=True)
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of each method that nothing interrupted; read only."""
    out = tmp_path_factory.mktemp("whole")
    for name in METHODS:
        short(out, name)
    return out


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", METHODS)
def test_killed_and_continued_it_ends_bit_for_bit_as_if_it_was_not(killed: Path, whole: Path, name: str) -> None:
    assert not (killed / name / "policy").exists()
    assert read_header(killed / name / "checkpoints" / name / "last.safetensors")["step"] == 100
    short(killed, name)
    for file in (f"policy/{name}/policy.safetensors", f"checkpoints/{name}/last.safetensors"):
        assert_same_tensors(killed / name / file, whole / name / file)


@pytest.mark.parametrize("name", METHODS)
def test_playing_on_the_way_changes_nothing_of_what_is_trained(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    episodes = [(rng.normal(size=(10, 4)), rng.uniform(-3, 3, 10), rng.normal(size=10)) for _ in range(20)]
    data = replace(dataset(episodes), env_id="InvertedPendulum-v5")
    config = config_of(name, steps=20)
    for select in ("last", "online"):
        evaluation = Evaluation(select=select, episodes=2, checkpoints=2, checkpoint_episodes=2)
        train(data, method=name, config=replace(config, evaluation=evaluation), out=tmp_path / select)
    assert_same_tensors(
        tmp_path / "last" / "policy" / name / "policy.safetensors",
        tmp_path / "online" / "policy" / f"{name}-last" / "policy.safetensors",
    )


# --- what is refused ----------------------------------------------------------------------------------------------


def test_more_than_one_action_at_once_is_cloning_only(chain: OfflineDataset, tmp_path: Path) -> None:
    for name in ("td3_bc", "iql"):
        with pytest.raises(RactdError, match="--horizon is 4, expected 1: Q values single actions"):
            train(chain, method=name, config=replace(config_of(name), horizon=4), out=tmp_path / name)
    train(chain, method="bc", config=replace(config_of("bc", steps=20), horizon=4), out=tmp_path / "bc")
    policy = Policy.load(tmp_path / "bc")
    assert policy.act_chunk(np.zeros((2, 1), np.float32)).shape == (2, 4, 1)


def test_heads_that_a_method_can_not_have_are_refused(chain: OfflineDataset, tmp_path: Path) -> None:
    for name, head in (("td3_bc", "gaussian"), ("iql", "deterministic")):
        with pytest.raises(RactdError, match=f"--{name.replace('_', '-')}.network.head is '{head}', expected"):
            train(chain, method=name, config=config_of(name, head=head), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_data_without_rewards_can_be_cloned_whole(chain: OfflineDataset, tmp_path: Path) -> None:
    unpaid = replace(chain, rewards=np.zeros_like(chain.rewards), has_rewards=False, terminals_mean=None)
    for name, said in (("bc", "--bc.share is 0.1, expected 1"), ("iql", "no rewards"), ("td3_bc", "no rewards")):
        options: dict[str, Any] = {"share": 0.1} if name == "bc" else {}
        with pytest.raises(RactdError, match=said):
            train(unpaid, method=name, config=config_of(name, **options), out=tmp_path / name)
    train(unpaid, method="bc", config=config_of("bc", steps=20), out=tmp_path / "whole")


@pytest.mark.parametrize("name", METHODS)
def test_its_policy_is_exported_as_it_acts(whole: Path, tmp_path: Path, name: str) -> None:
    exported = export_policy(whole / name, tmp_path / "deployed")
    assert exported.contract["sampling"]["network_evaluations"] == 1
    places = np.random.default_rng(0).uniform(0, LENGTH, (20, 1)).astype(np.float32)
    expected = Policy.load(whole / name).act(places)
    assert Deployed.load(tmp_path / "deployed").act(places) == pytest.approx(expected, abs=1e-5)


def test_a_run_of_one_method_is_not_continued_by_another(whole: Path) -> None:
    with pytest.raises(RactdError, match="method is 'bc' there and 'iql' now"):
        train(walks(), method="iql", config=config_of("iql", steps=220), out=whole / "bc")


def test_every_method_says_where_it_is_from() -> None:
    for name in METHODS:
        method = method_named(name)
        assert method.name == name
        assert method.presets["cpu"] is not None
        assert method.summary
        assert method.source


@pytest.mark.parametrize(
    ("name", "option", "value", "said"),
    [
        ("bc", "share", 0.0, r"--bc.share is 0.0, expected a number above 0 to 1"),
        ("iql", "expectile", 1.0, r"--iql.expectile is 1.0, expected a number from 0.5 below 1"),
        ("td3_bc", "tau", 0.0, r"--td3-bc.tau is 0.0, expected a number above 0 to 1"),
    ],
)
def test_ranges_that_leave_out_an_end_are_told(
    chain: OfflineDataset, tmp_path: Path, name: str, option: str, value: Any, said: str
) -> None:
    for flush in (False, True):
        if not torch.set_flush_denormal(flush):
            pytest.skip("this processor can't take subnormal numbers for 0")
        try:
            with pytest.raises(RactdError, match=said):
                train(chain, method=name, config=config_of(name, **{option: value}), out=tmp_path / name)
        finally:
            torch.set_flush_denormal(False)
        assert not (tmp_path / name).exists()
