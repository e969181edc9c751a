"""Do two commits compute the same numbers? Both train on this machine, and every weight and some actions are compared bit for bit.

    python benchmarks/same_numbers.py COMMIT               # COMMIT against what is checked out, uncommitted changes included
    python benchmarks/same_numbers.py COMMIT --steps 50    # shorter

The data are made here: hopper-like transitions with the shapes of Hopper-v5, played there, and maze-like ones of
ractd/maze2d-umaze. Each is trained with two seeds on one thread, every stage for the same number of steps. A commit of before is
checked out into a folder of its own beside the runs. Exit code 1 if anything differs. Not a test: what a commit computes is another
thing on another processor.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from common import print_table
from safetensors.numpy import load_file
from tyro.conf import Positional

ROOT = Path(__file__).resolve().parent.parent
EPISODES, LENGTH = 60, 50
STAGES = ("return-model", "teacher", "student")
ACT = """
import sys
import numpy as np
import ractd
policy = ractd.Policy.load(sys.argv[1])
rng = np.random.default_rng(0)
owner = getattr(policy, "sequence", None)
owner = owner if hasattr(owner, "observation_dim") else policy.spec
observations = rng.normal(size=(8, owner.observation_dim)).astype(np.float32)
np.save(sys.argv[2], policy.reset(0).act_chunk(observations))
"""
"""What each commit runs for its own policies: sequences of actions at eight observations, one draw of noise each."""

RENAMED = (
    (r"(checkpoints/.*: )optimizer\.(\d+)\.", r"\1optimizer.network.\2.", "a stage may have several optimisers"),
    (r"(checkpoints/.*: )objective\.", r"\1state.", "what losses keep from step to step belongs to the stage"),
    (r"(policy/.*: )return_network\.", r"\1critic.", "a policy's critic is one part"),
    (r"(policy/.*: )(normalizer|dynamics)\.", r"\1sequence.\2.", "a policy's sequence is one part"),
)
"""Arrays that later commits write under another name: pattern, replacement, and why."""
ONE_SIDED: tuple[tuple[str, str], ...] = (
    (r"(policy/\w+-last/|actions-\w+-last\.npy)", "the last checkpoint is kept beside the best"),
    (r"checkpoints/(plain|student)/last.*: state\.sigmas", "the noise levels are the settings', not the stage's"),
)
"""Arrays that one of the commits rightly lacks: pattern, and why."""


@dataclass
class Options:
    """Which commit, and how long."""

    commit: Positional[str]
    """The commit that what is checked out is compared with."""
    steps: int = 200
    """Steps of every stage."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of each dataset's runs."""
    datasets: tuple[str, ...] = ("hopper", "maze")
    """Which of the datasets."""
    options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="WORDS")] = field(default_factory=tuple)
    """Further words of both commits' 'ractd train'."""


def make_data(name: str, path: Path) -> None:
    """Write transitions of random walks with the shapes of an environment: they are to be the same, not to be good."""
    rng = np.random.default_rng(0)
    rows, (env_id, observation_dim, action_dim) = EPISODES * LENGTH, ENVIRONMENTS[name]
    actions = rng.uniform(-1, 1, (rows, action_dim))
    steps = 0.05 * rng.normal(size=(EPISODES, LENGTH, observation_dim))
    starts = rng.uniform(1, 2, (EPISODES, 1, observation_dim))
    observations = np.clip(starts + np.cumsum(steps, axis=1), 0.5, 3.5).reshape(rows, observation_dim)
    last = np.arange(rows) % LENGTH == LENGTH - 1
    fell = np.repeat(np.arange(EPISODES) % 3 > 0, LENGTH) & last & (name == "hopper")
    np.savez(
        path,
        observations=observations.astype(np.float32),
        actions=actions.astype(np.float32),
        rewards=(1 + actions[:, 0] - 0.1 * (actions**2).sum(axis=1)).astype(np.float32),
        terminals=fell,
        timeouts=last & ~fell,
        env_id=env_id,
    )


ENVIRONMENTS = {"hopper": ("Hopper-v5", 11, 3), "maze": ("ractd/maze2d-umaze", 4, 2)}
"""Environment, and entries of an observation and of an action."""


def words(tree: Path, name: str, options: Options) -> list[str]:
    """Return the options of a dataset's trainings with a checkout: every stage short, and few evaluations."""
    stages = [*STAGES]
    if name == "maze":  # the options of a planner's sequences were once named after plans
        stages.append("sequence" if (tree / "src/ractd/sequences").is_dir() else "plan")
    short = [word for stage in stages for word in (f"--{stage}.optimization.steps", str(options.steps))]
    played = ["--evaluation.select", "online", "--evaluation.episodes", "3"]
    played += ["--evaluation.checkpoints", "2", "--evaluation.checkpoint-episodes", "2"]
    return [
        "--preset",
        "maze2d-umaze-cpu" if name == "maze" else "cpu",
        *short,
        *played,
        "--no-report",
        *options.options,
    ]


def run(tree: Path, *command: str) -> None:
    """Run Python with the package of a checkout, on one thread; ends with its output where it fails."""
    paths = os.pathsep.join(str(tree / part) for part in ("src", "runtime/src"))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{tree}: {' '.join(command[:3])} ... ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def train(tree: Path, data: Path, out: Path, seed: int, options: Options) -> None:
    """Train on a dataset with a checkout, and let each of the run's policies act."""
    command = ["-m", "ractd.cli", "train", str(data), "--out", str(out), "--seed", str(seed)]
    run(tree, *command, *words(tree, data.stem, options))
    for policy in sorted((out / "policy").iterdir()):
        run(tree, "-c", ACT, str(policy), str(out / f"actions-{policy.name}.npy"))


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out into a folder for as long as the block lasts."""
    tree = folder / "before"
    git = ["git", "-C", str(ROOT), "worktree"]
    done = subprocess.run([*git, "add", "--detach", str(tree), commit], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{commit}: can't be checked out ({done.stderr.strip().splitlines()[-1]})")
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], capture_output=True, check=True)


def renamed(name: str) -> str:
    """Return the newest name of an array."""
    for pattern, replacement, _ in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def arrays(run_directory: Path) -> dict[str, np.ndarray]:
    """Return every tensor of a run's policies and checkpoints, and what its policies did, by its file and newest name."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(
        [*run_directory.glob("policy/*/*.safetensors"), *run_directory.glob("checkpoints/*/*.safetensors")]
    ):
        file = path.relative_to(run_directory)
        found |= {renamed(f"{file}: {name}"): value for name, value in load_file(path).items()}
    for path in sorted(run_directory.glob("actions-*.npy")):
        found[path.name] = np.load(path)
    return found


def differences(before: Path, after: Path) -> tuple[int, list[str]]:
    """Return how many arrays two runs have, and a sentence on each that only one has or that isn't the same to the bit."""
    old, new = arrays(before), arrays(after)
    for name in old.keys() ^ new.keys():
        if any(re.search(pattern, name) for pattern, _ in ONE_SIDED):
            old.pop(name, None), new.pop(name, None)
    told = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            told.append(f"{name}: only {'before' if name in old else 'now'}")
        elif old[name].shape != new[name].shape or old[name].tobytes() != new[name].tobytes():
            same = old[name].shape == new[name].shape
            by = (
                f"by up to {np.abs(old[name].astype(float) - new[name].astype(float)).max():.3g}"
                if same
                else "in shape"
            )
            told.append(f"{name}: differs {by}")
    return len(old.keys() | new.keys()), told


def main() -> None:
    """Train with both, compare, and say what differs."""
    options = tyro.cli(Options, description=__doc__)
    rows, differing = [], 0
    with tempfile.TemporaryDirectory() as name, checked_out(options.commit, Path(name)) as before:
        folder = Path(name)
        for dataset in options.datasets:
            make_data(dataset, folder / f"{dataset}.npz")
            for seed in options.seeds:
                outs = [folder / f"{dataset}-s{seed}-{when}" for when in ("before", "now")]
                for tree, out in zip((before, ROOT), outs, strict=True):
                    train(tree, folder / f"{dataset}.npz", out, seed, options)
                count, told = differences(*outs)
                differing += len(told)
                rows.append([f"{dataset}, seed {seed}", str(count), str(count - len(told))])
                print(
                    "\n".join([f"{dataset}, seed {seed}: {count} arrays, {len(told)} differ", *told[:20]]), flush=True
                )
    print_table(
        f"{options.commit} and what is checked out, {options.steps} steps a stage", ["run", "arrays", "equal"], rows
    )
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
