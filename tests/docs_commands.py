"""The commands of README.md and docs/: where they are found, and what a test may change or leave out, with the reason.

A new `ractd` command that trains needs nothing here. One that takes a minute gets a line in `LONG`, one that can't be run in
a test a line in `PARSED`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]

STAGES = ("return-model", "teacher", "student")
TINY = {
    "--evaluation.episodes": "2",
    "--diffusion.bins": "5",
    "--teacher.network.width": "16",
    **{f"--{stage}.optimization.steps": "10" for stage in STAGES},
    **{f"--{stage}.optimization.batch-size": "16" for stage in STAGES},
}
FOLLOWING = {option: value for option, value in TINY.items() if not option.startswith(("--return", "--teacher.opt"))}
"""For the default, which trains no teacher, and no return model before its student."""
PLAYED = {"--evaluation.checkpoints": "1", "--evaluation.checkpoint-episodes": "1"}
"""For trainings that choose their checkpoint by playing, as those of `ractd reproduce` do."""
TINY_PLANNER = {
    **TINY,
    "--horizon": "32",
    "--sequence.points": "5",
    "--sequence.optimization.steps": "10",
    "--sequence.optimization.batch-size": "16",
}


def tiny_for(words: Sequence[str]) -> dict[str, str]:
    """The options that make a training short: of a method, of a preset with a teacher, or of the default."""
    if "--method" in words:
        return tiny(words[words.index("--method") + 1])
    return TINY if {"--preset", "--teacher"} & set(words) else FOLLOWING


def tiny(method: str) -> dict[str, str]:
    """The options that make a method's training short; its own are in a section of its name."""
    section = method.replace("_", "-")
    played = {option: value for option, value in TINY.items() if option.startswith("--evaluation.")}
    return played | {f"--{section}.optimization.steps": "10", f"--{section}.optimization.batch-size": "16"}


SMALLEST: dict[str, dict[str, str]] = {
    "ractd train": {},
    "ractd eval": {"--episodes": "2"},
    "ractd export": {"--check-episodes": "1"},
    "ractd report": {},
    "ractd --tyro-write-completion": {},
    "ractd methods": {},
    "ractd data make": {"--steps": "1500"},
    "ractd data list": {},
    "ractd data inspect": {},
    "ractd data validate": {},
    "python examples/own_format.py": {},
    "python examples/own_method.py": {"--steps": "10"},
    "python examples/own_network.py": {"--steps": "10"},
    "python examples/own_critic.py": {"--steps": "10"},
    "python examples/compare_methods.py": {
        "--seeds": "1",
        "--methods": "bc:optimization.steps=10,evaluation.episodes=2,evaluation.checkpoints=1",
    },
    "python examples/control_loop.py": {"--hz": "200", "--seconds": "0.1"},
    "python examples/compare_candidates.py": {"--episodes": "1"},
}
"""Options that every command of a kind is run with: they replace what the page says, or are added."""
FLAGS = {"ractd train": ["--no-report"], "ractd report": ["--no-video"], "ractd data make": ["--overwrite"]}
"""Added as well: the films and the reports of trainings have tests of their own."""

GPU = "needs GPUs, and hours"
NETWORK = "downloads"
PARSED: dict[str, str] = {
    "ractd data inspect mujoco/hopper/medium-v0": NETWORK,
    "ractd train hopper-medium-replay-v2": NETWORK,
    "ractd sweep hopper-mixed walker2d-medium-v2 --vary student.reward-weight 2.5 5 10 --vary horizon 1 4 --jobs 8": NETWORK,
    "ractd data collect Hopper-v5 --steps 1000000": "trains SAC for hours; tests/test_collect.py runs it",
    "torchrun --nproc_per_node 2 -m ractd.cli train logs.hdf5 --preset mujoco": GPU,
    "accelerate launch --multi_gpu -m ractd.cli train logs.hdf5 --preset mujoco": GPU,
    "ractd compare logs.hdf5 --methods ractd bc:preset=best-tenth iql --seeds 3 --jobs 2": (
        "trains nine runs; tests/test_compare.py runs four small ones"
    ),
    "ractd compare logs.hdf5 --methods ractd bc:preset=best-tenth iql --seeds 3": "the same, one at a time",
    "ractd reproduce table1 --preset paper --jobs 4 --gpus 1": GPU,
    "ractd sweep hopper-mixed --seeds 5 --ray-address auto --cpus 4 --gpus 1": GPU,
}
"""Commands of ours that are only parsed, and why."""
LONG: dict[str, dict[str, str]] = {
    "ractd sweep hopper-mixed --seeds 5 --jobs 2": {"--seeds": "2"},
    "ractd sweep hopper-mixed --vary student.reward-weight 0.1 1 -- --preset demo --teacher runs/a": {},
    "ractd reproduce table4 --datasets hopper-mixed": {},
    "ractd reproduce table4 figure3 --datasets a.hdf5 b.hdf5 --seeds 3 --jobs 2": {"--seeds": "2"},
    # Its own datasets are D4RL's, which would have to be downloaded.
    "ractd reproduce table3 --no-train": {"--datasets": "hopper-mixed"},
    "ractd reproduce table5 --datasets hopper-mixed -- --teacher.optimization.steps 8000 --student.optimization.steps 2000": {},
    "ractd serve deployed": {"--port": "0"},
    "ractd serve --torch runs/a": {"--port": "0"},
    "ractd serve --torch runs/a --host 0.0.0.0 --api-key-file key --tls-cert tls.crt --tls-key tls.key": {
        "--port": "0"
    },
}
"""Commands that train several runs, or serve until they are stopped, and what `make proofs` runs them with."""
FOREIGN = {
    "make": "builds the project's own environment; its target has to be there",
    "pip": "installs; its extras have to be there",
    "ray": "starts a cluster",
    "scp": "needs a robot",
    "curl": "asks a running server; tests/test_serve.py asks these pages",
    "openssl": "makes the user's own key",
    "kill": "needs a running server; tests/test_serve.py sends these signals",
}
"""Programs that are not ours, and why they are not run."""
PRELUDES: dict[str, list[str]] = {
    "docs/api.md": ["", ""],
    "README.md": ["observation = np.zeros(11)", "observation = np.zeros(4)"],
    "docs/quickstart.md": [""],
    "docs/data.md": ["", ""],
    "docs/mazes.md": [""],
    "docs/deploy.md": ["robot = Robot()"],
}
"""What each Python block of a page takes for granted, in order."""
UNRUN_PYTHON = {"docs/serve.md": "talks to a running server; tests/test_serve.py does so with these classes"}

_BLOCK = re.compile(r"^```(bash|console|sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A line of a bash block."""

    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def ours(self) -> list[str] | None:
        """Its arguments to `ractd`, however that is started; None for other programs."""
        for prefix in (("ractd",), ("-m", "ractd.cli")):
            for i in range(len(self.words)):
                if self.words[i : i + len(prefix)] == prefix and (len(prefix) > 1 or i == 0):
                    return list(self.words[i + len(prefix) :])
        return None

    @property
    def kind(self) -> str | None:
        """Its entry in `SMALLEST`."""
        return next((kind for kind in SMALLEST if self.words[: kind.count(" ") + 1] == tuple(kind.split())), None)

    @property
    def out(self) -> str | None:
        """The run directory that it trains."""
        if self.words[:2] != ("ractd", "train") or self.text in PARSED:
            return None
        if "--out" in self.words:
            return self.words[self.words.index("--out") + 1]
        return f"runs/{Path(self.words[2]).stem}-s0"

    def smallest(self) -> list[str]:
        """Its words, with the smallest settings that keep its meaning."""
        assert self.kind is not None
        settings = SMALLEST[self.kind]
        if self.kind == "ractd train":
            settings = TINY_PLANNER if plans(self.words[2]) else tiny_for(self.words)
        if "--check-episodes" not in self.words:
            settings = {option: value for option, value in settings.items() if option != "--check-episodes"}
        return replaced(self.words, settings) + FLAGS.get(self.kind, [])


def replaced(words: Sequence[str], settings: dict[str, str]) -> list[str]:
    """The words with other values for these options, which are added where they aren't there."""
    words = list(words)
    for option, value in settings.items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    return words


def plans(dataset: str) -> bool:
    """True for the datasets that are mazes in the pages."""
    return dataset == "mine" or dataset.startswith("maze2d-")


def steps(page: str) -> list[Command | str]:
    """The commands and the Python blocks of a page, in its order."""
    found: list[Command | str] = []
    for language, block in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if language == "python":
            found.append(block)
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words:
                found.append(Command(tuple(words)))
    return found


def commands() -> list[Command]:
    """All commands of all pages."""
    return [step for page in PAGES for step in steps(page) if isinstance(step, Command)]
