"""The interface of critics, what wraps them, and the kinds there are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ractd.data import OfflineDataset
from ractd.registry import find
from ractd.sequences import Sequence
from ractd.settings import Registered, check_part

CRITICS = {
    "return-to-go": "ractd.critics.return_to_go:ReturnToGo",
    "goal": "ractd.critics.goal:GoalReward",
    "q": "ractd.critics.q:QFunction",
    "sarsa": "ractd.critics.td:Sarsa",
    "iql": "ractd.critics.td:ImplicitQ",
}
"""Every kind of critic: its name, and where its class is."""

ROWS = 4096
"""Rows that a critic values at a time on a CPU where it is differentiated: what is between its layers stays in the caches."""

RowValue = Callable[[Tensor, Tensor], Tensor]
"""What a critic looks at of a condition `[N, O]` and one entry of a sequence `[N, D]` -> what that is worth, `[N]`."""


class CriticObjective(nn.Module):
    """What a critic minimises, a stage's objective, with its error on held-out transitions."""

    best_by_error: ClassVar[bool] = True
    """Whether the weights with the smallest error are kept; else the last: a temporal difference is small early, too."""
    average: Critic
    """The critic's moving average, given before training."""

    @abstractmethod
    def error(self, network: Any, index: Tensor) -> float:
        """Return the mean squared error of a critic on transitions `index [N]`."""


class CriticPart(Registered):
    """What a policy file says of a kind of critic: a frozen dataclass."""

    kinds = CRITICS, "kind of critic", "Part"


class Critic(nn.Module):
    """An ensemble of networks that values decoded sequences, with the scale of its values.

    A value is in standard deviations of the data's values from their mean: `data_units` turns it into the data's units.
    """

    kind: ClassVar[str]
    fitted_before: ClassVar[bool] = True
    """Whether it is trained before a policy; else a method learns it with one."""
    Part: ClassVar[type[CriticPart]]
    """Frozen dataclass of what a policy file says of such a critic; `__init__` takes one and a sequence."""

    part: Any
    mean: float = 0.0
    """The zero of values, in the data's units."""
    std: float = 1.0
    """The unit of values, in the data's units."""
    members: nn.ModuleList
    """The ensemble's networks: entries of a condition and of one step of a sequence, side by side `[N, O + D]` -> `[N, 1]`."""
    condition_dim: int
    """O: how many of a condition's last entries a critic looks at."""
    rewarded: int = 1
    """Over how many steps of a sequence values are summed: the first, or all of a plan."""

    @classmethod
    @abstractmethod
    def build(cls, part: Any, sequence: Sequence) -> Critic:
        """Return a critic for sequences of one kind, of what a policy file says of it."""

    @classmethod
    def fit(
        cls, config: Any, sequence: Sequence, dataset: OfflineDataset, rows: Tensor
    ) -> tuple[Critic, CriticObjective]:
        """Return an untrained critic for a dataset, and what it minimises on the transitions `rows [N]`.

        `config` says how large it is and what it is to learn, as `ReturnModel` does. Only a critic that is `fitted_before` a policy
        has this.
        """
        raise NotImplementedError(f"a critic of kind {cls.kind} is learnt with its policy")

    @abstractmethod
    def largest(self, config: Any, dataset: OfflineDataset) -> float:
        """Return the value that no sequence of a dataset exceeds: a critic that promises more is being deceived."""

    def each(self, given: Tensor, entry: Tensor) -> Tensor:
        """Return every member's value of rows `given [N, O]`, `entry [N, D]`: `[members, N]`."""
        x = torch.cat([given, entry], dim=1)
        return torch.stack([member(x).squeeze(1) for member in self.members])

    def row(self, given: Tensor, entry: Tensor) -> Tensor:
        """Return the members' mean value of rows `given [N, O]`, `entry [N, D]`: `[N]`."""
        return self.each(given, entry).mean(0)

    def value(self, condition: Tensor, entries: Tensor, row: RowValue | None = None) -> Tensor:
        """Return what decoded sequences `entries [B, n, D]` are worth at conditions `[B, K]`: `[B]`, standardised.

        A critic never saw anything outside [-1, 1], where the data is, so it gets clipped entries. `row` values single steps, by
        default the members' mean; see `pessimistic` and `differentiated` for others.
        """
        given = condition[:, -self.condition_dim :].repeat_interleave(self.rewarded, 0)
        steps = entries[:, : self.rewarded].clamp(-1, 1).flatten(0, 1)
        return (row or self.row)(given, steps).view(-1, self.rewarded).sum(1)

    def __init_subclass__(cls) -> None:
        check_part(cls)

    def data_units(self, value: Tensor) -> Tensor:
        """Return values in the data's units."""
        return value * self.std + self.mean


def critic_class(kind: str, where: str | Path) -> type[Critic]:
    """Return the class of a kind of critic; raises `RactdError`, naming `where` it was asked for."""
    return find(CRITICS, kind, "kind of critic", where)  # type: ignore[no-any-return]


def pessimistic(critic: Critic, deviations: float) -> RowValue:
    """Return the members' mean less so many of their standard deviations: they disagree where no data told them.

    With 0 it is the mean; above that a critic needs two members or more.
    """

    def row(given: Tensor, entry: Tensor) -> Tensor:
        each = critic.each(given, entry)
        return each.mean(0) - deviations * each.std(0)

    return row if deviations else critic.row


def differentiated(row: RowValue) -> RowValue:
    """Return the same values with their gradient by the entry, computed at once, however often it is asked for."""

    def with_gradient(given: Tensor, entry: Tensor) -> Tensor:
        return cast(Tensor, _WithGradient.apply(entry, given, row))  # type: ignore[no-untyped-call]

    return with_gradient


def without_gradient(row: RowValue) -> RowValue:
    """Return the same values without a gradient: where they are watched and have no weight."""

    @torch.no_grad()
    def constant(given: Tensor, entry: Tensor) -> Tensor:
        return torch.cat([row(some, x) for some, x in _blocks(given, entry)])

    return constant


def _blocks(given: Tensor, entry: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    rows = ROWS if entry.is_cpu else max(len(entry), 1)
    return zip(given.split(rows), entry.split(rows), strict=True)


class _WithGradient(torch.autograd.Function):
    """A value of each row and, at once, its gradient by the row: a step asks for that twice, and a row has no part in another's."""

    @staticmethod
    def forward(ctx: Any, entry: Tensor, given: Tensor, row: RowValue) -> Tensor:
        values, gradients = [], []
        for some, x in _blocks(given, entry):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                value = row(some, x)
                (gradient,) = torch.autograd.grad(value.sum(), x)
            values.append(value.detach())
            gradients.append(gradient)
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, by_value: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return by_value.unsqueeze(1) * gradient, None, None
