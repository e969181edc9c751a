"""The methods: a file each, and a line each in `METHODS`. Importing this module imports no method, and no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ractd.registry import find

if TYPE_CHECKING:
    from ractd.data import OfflineDataset
    from ractd.networks import Network
    from ractd.training.meanings import Meaning
    from ractd.training.run import Asked, Run

METHODS = {
    "ractd": "ractd.methods.ractd:METHOD",
    "bc": "ractd.methods.bc:METHOD",
    "td3_bc": "ractd.methods.td3_bc:METHOD",
    "iql": "ractd.methods.iql:METHOD",
}
"""Every method: its name, and where it is described."""

Need = Literal["rewards"]
"""What a method may need of the data."""


@dataclass(frozen=True)
class Variant:
    """A policy of a run, sampled in one way: a row of its result.

    Whether it is the last checkpoint or the best is in the policy's file. A run that lacks the policy lacks the row.
    """

    label: str
    """Two variants of one label are two checkpoints of the same."""
    policy: str
    """Its folder in the run's `policy/`."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """What differs from how the policy samples by itself: `sampler`, `steps`, `candidates`."""
    stages: tuple[str, ...] = ()
    """Stages of the training that it needed."""


@dataclass(frozen=True)
class Method:
    """One way to turn data into a policy: what the rest of ractd has to know of it."""

    name: str
    summary: str
    """One line for a list."""
    source: str
    """Title, authors and year of its paper."""
    presets: Mapping[str, Any]
    """Settings by name; each method has `cpu`."""
    train: Callable[[Run], None]
    """Train the stages of a run, each from its checkpoint, and save their policies."""
    variants: Callable[[Any], tuple[Variant, ...]]
    """The rows of a result, for settings: the one that it is about first."""
    resolve: Callable[[Any, OfflineDataset, Asked], Any] = lambda config, data, asked: config
    """Fill in what the settings leave to the data; raises `RactdError` for data and settings that don't go together."""
    sequence: Callable[[Any], str] = lambda config: "actions"
    """The kind of sequence that it makes, for settings."""
    networks: Callable[[Any], tuple[Network, ...]] = lambda config: ()
    """Settings of the networks that it trains, for settings."""
    termination_penalty: Callable[[Any], float | None] = lambda config: None
    """What a failure is to cost, for settings; None where that is left to the data."""
    needs: frozenset[Need] = frozenset()
    part_needs: str = ""
    """What a part of it needs beside that, for a list: "rewards, for a share below 1"."""
    stages: tuple[str, ...] = ()
    """Stages that can be trained alone."""
    main_settings: tuple[str, ...] = ()
    """Places of those of its own settings that help shows at first, as `bc.share`; all of them where none is named."""
    default: str = "cpu"
    """The preset of data with rewards, where none is named and it is of no maze."""
    reuses_teacher: bool = False
    """Whether it takes a teacher of another run."""
    meanings: Mapping[str, Meaning] = field(default_factory=dict)
    """What its stages and its metrics are called where people read them, and what rising or falling means, by name."""

    @property
    def settings(self) -> type[Any]:
        """The class of its settings."""
        return type(next(iter(self.presets.values())))


def main_optimization(section: str) -> tuple[str, ...]:
    """Return what people change of the optimisation of a method's section, for `main_settings`."""
    return tuple(f"{section}.optimization.{name}" for name in ("steps", "batch_size", "learning_rate"))


def best_and_last(label: str, name: str) -> tuple[Variant, ...]:
    """Return the rows of a method of one stage and one policy, both called `name`: as `train_policy` saves its checkpoints."""
    return Variant(label, name, stages=(name,)), Variant(label, f"{name}-last", stages=(name,))


def method_named(name: str) -> Method:
    """Return a method by its name; raises `RactdError` naming the nearest for an unknown one."""
    return find(METHODS, name, "method")  # type: ignore[no-any-return]
