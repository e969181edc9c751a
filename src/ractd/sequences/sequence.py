"""The interface of a kind of sequence, and the kinds there are."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ractd.data import OfflineDataset
from ractd.registry import find
from ractd.sequences.normalizer import Normalizer
from ractd.sequences.settings import SEQUENCES, SequenceSettings
from ractd.settings import Optimization, Registered, check_part


class Samples(Protocol):
    """A dataset's sequences x in [-1, 1] with their conditions, as a method trains on them."""

    def draw(self, batch: int, generator: torch.Generator, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Draw what decides on `batch` samples, each tensor `[batch]`, of all transitions or of `rows` (int64 `[R]`)."""

    def observations(self, draws: dict[str, Tensor]) -> Tensor:
        """Return what the policy observes at draws, raw, `[B, h, O]`."""

    def gather(self, draws: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return conditions `[B, K]` and sequences x `[B, n, D]` of draws, both normalised."""

    @property
    def summary(self) -> str:
        """What a user should know of them, in half a sentence."""


class LearntDecoder(NamedTuple):
    """What a kind of sequence has to learn before its sequences can become actions: a stage of its own."""

    network: nn.Module
    objective: nn.Module
    optimization: Optimization


class SequencePart(Registered):
    """What a policy file says of a kind of sequence: a frozen dataclass."""

    kinds = SEQUENCES, "kind of sequence", "Part"


class Sequence(nn.Module):
    """One kind of sequence, with the statistics of the data that it was fitted to.

    B batch, h observations of history, O and A their and an action's entries, c actions predicted, K entries of a condition;
    x is `[B, n, D]`.
    """

    kind: ClassVar[str]
    Part: ClassVar[type[SequencePart]]
    """What a policy file says of such a sequence; `__init__` takes one."""
    Settings: ClassVar[type[SequenceSettings]]
    """Settings of such a sequence, for a method's `sequence`."""
    critic: ClassVar[str] = "return-to-go"
    """The kind of critic that values such sequences by default."""

    part: Any
    normalizer: Normalizer
    observation_dim: int
    """O, of what a policy is asked with."""
    action_dim: int
    horizon: int
    """c."""
    history: int
    """h."""
    shape: tuple[int, int]
    """(n, D) of one x."""
    entries: tuple[int, int]
    """(steps, entries of a step) of what `decode` returns."""
    rewarded: int
    """Over how many steps of what `decode` returns a critic looks: the first action, or all states of a plan."""

    def __init_subclass__(cls) -> None:
        check_part(cls)

    @classmethod
    @abstractmethod
    def describe(cls, config: Any, dataset: OfflineDataset) -> Sequence:
        """Return the sequence that `fit` does, without the statistics: its shapes are known."""

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, dataset: OfflineDataset, device: torch.device) -> Sequence:
        """Return a sequence with the statistics of a dataset, for a method's settings, whose `sequence` is of this kind."""

    @abstractmethod
    def samples(self, dataset: OfflineDataset) -> Samples:
        """Return a dataset's sequences of this kind."""

    @abstractmethod
    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return what critics value, in [-1, 1] where the data is, of sequences x and their conditions."""

    @abstractmethod
    def to_actions(self, x: Tensor, observations: Tensor) -> Tensor:
        """Return raw actions `[B, c, A]` of sequences x, made at raw observations `[B, h, O]`."""

    @abstractmethod
    def scaled(self, raw: Tensor) -> Tensor:
        """Return raw actions (a plan's: states) as `decode` returns them."""

    @property
    def open_loop(self) -> bool:
        """Whether the whole sequence is executed before the next one is made, see `SequenceSettings`."""
        return self.Settings.open_loop

    @property
    def condition_dim(self) -> int:
        """K."""
        return self.history * self.observation_dim

    @property
    def environment_dim(self) -> int:
        """Entries of an environment's observation, of which `observe` makes what a policy is asked with."""
        return self.observation_dim

    def condition(self, observations: Tensor) -> Tensor:
        """Return the conditions `[B, K]` of raw observations `[B, h, O]`."""
        return self.normalizer.observation(observations).flatten(1)

    def outputs(self, x: Tensor, observations: Tensor) -> dict[str, Tensor]:
        """Return all that sequences x stand for, by name: `actions` first, then what else an exported policy gives."""
        return {"actions": self.to_actions(x, observations)}

    def describe_outputs(self) -> dict[str, dict[str, Any]]:
        """Return shape and meaning of the outputs besides `actions`, for the contract of an exported policy."""
        return {}

    decoder_stage: ClassVar[str | None] = None
    """Name of the stage that `learnt_decoder` is trained in, which seeds its draws; None where nothing has to be learnt."""

    def learnt_decoder(self, samples: Samples) -> LearntDecoder:
        """Return what has to be learnt before sequences can become actions."""
        raise NotImplementedError(f"sequences of {self.kind} have no decoder to learn")

    def use_decoder(self, network: nn.Module) -> None:
        """Decode with a trained network of `learnt_decoder` from now on."""
        raise NotImplementedError(f"sequences of {self.kind} have no decoder to learn")


def sequence_class(kind: str) -> type[Sequence]:
    """Return the class of a kind of sequence; raises `RactdError` naming the known ones."""
    return find(SEQUENCES, kind, "kind of sequence")  # type: ignore[no-any-return]
