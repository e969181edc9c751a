"""Do two commits compute the same numbers? Both train on this machine, and every weight and some actions are compared bit for bit.

    python benchmarks/same_numbers.py COMMIT               # COMMIT against what is checked out, uncommitted changes included
    python benchmarks/same_numbers.py COMMIT --steps 50    # shorter

The data are made here: hopper-like transitions with the shapes of Hopper-v5, played there, and maze-like ones of
ractd/maze2d-umaze. Each is trained with two seeds on one thread, every stage for the same number of steps: hopper with the paper's
stages and with the default's student, whose critic follows it. A commit of before is checked out into a folder of its own beside
the runs; one that has no preset `following` takes `--runs hopper maze`. Exit code 1 if anything differs. Not a test: what a commit
computes is another thing on another processor.
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

from ractd.registry import unknown

ROOT = Path(__file__).resolve().parent.parent
EPISODES, LENGTH = 60, 50
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


@dataclass(frozen=True)
class Run:
    """What is trained on which shapes."""

    env_id: str
    observation_dim: int
    action_dim: int
    preset: str
    stages: tuple[str, ...]
    """Those that the preset trains."""


RUNS = {
    "hopper": Run("Hopper-v5", 11, 3, "cpu", ("return-model", "teacher", "student")),
    "following": Run("Hopper-v5", 11, 3, "following", ("student",)),
    "maze": Run("ractd/maze2d-umaze", 4, 2, "maze2d-umaze-cpu", ("return-model", "teacher", "student", "sequence")),
}


@dataclass
class Options:
    """Which commit, and how long."""

    commit: Positional[str]
    """The commit that what is checked out is compared with."""
    steps: int = 200
    """Steps of every stage."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of each."""
    runs: tuple[str, ...] = tuple(RUNS)
    """Which of them."""
    options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="WORDS")] = field(default_factory=tuple)
    """Further words of both commits' 'ractd train'."""


def make_data(of: Run, path: Path) -> None:
    """Write transitions of random walks with the shapes of an environment: they are to be the same, not to be good."""
    rng = np.random.default_rng(0)
    rows = EPISODES * LENGTH
    actions = rng.uniform(-1, 1, (rows, of.action_dim))
    steps = 0.05 * rng.normal(size=(EPISODES, LENGTH, of.observation_dim))
    starts = rng.uniform(1, 2, (EPISODES, 1, of.observation_dim))
    observations = np.clip(starts + np.cumsum(steps, axis=1), 0.5, 3.5).reshape(rows, of.observation_dim)
    last = np.arange(rows) % LENGTH == LENGTH - 1
    fell = np.repeat(np.arange(EPISODES) % 3 > 0, LENGTH) & last & (of.env_id == "Hopper-v5")
    np.savez(
        path,
        observations=observations.astype(np.float32),
        actions=actions.astype(np.float32),
        rewards=(1 + actions[:, 0] - 0.1 * (actions**2).sum(axis=1)).astype(np.float32),
        terminals=fell,
        timeouts=last & ~fell,
        env_id=of.env_id,
    )


def words(tree: Path, of: Run, options: Options) -> list[str]:
    """Return the options of a training with a checkout: every stage short, and few evaluations."""
    planned = "sequence" if (tree / "src/ractd/sequences").is_dir() else "plan"  # its older name
    stages = [planned if stage == "sequence" else stage for stage in of.stages]
    short = [word for stage in stages for word in (f"--{stage}.optimization.steps", str(options.steps))]
    played = ["--evaluation.select", "online", "--evaluation.episodes", "3"]
    played += ["--evaluation.checkpoints", "2", "--evaluation.checkpoint-episodes", "2"]
    return ["--preset", of.preset, *short, *played, "--no-report", *options.options]


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
    run(tree, *command, *words(tree, RUNS[data.stem], options))
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
    for name in options.runs:
        if name not in RUNS:
            sys.exit(str(unknown("run", name, RUNS)))
    rows, differing = [], 0
    with tempfile.TemporaryDirectory() as temporary, checked_out(options.commit, Path(temporary)) as before:
        folder = Path(temporary)
        for name in options.runs:
            make_data(RUNS[name], data := folder / f"{name}.npz")
            for seed in options.seeds:
                outs = [folder / f"{name}-s{seed}-{when}" for when in ("before", "now")]
                for tree, out in zip((before, ROOT), outs, strict=True):
                    train(tree, data, out, seed, options)
                count, told = differences(*outs)
                differing += len(told)
                rows.append([f"{name}, seed {seed}", str(count), str(count - len(told))])
                print("\n".join([f"{name}, seed {seed}: {count} arrays, {len(told)} differ", *told[:20]]), flush=True)
    print_table(
        f"{options.commit} and what is checked out, {options.steps} steps a stage", ["run", "arrays", "equal"], rows
    )
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
