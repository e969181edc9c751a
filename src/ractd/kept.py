"""A network that a module keeps to itself: nobody else can change its weights, so that what is folded of them stays true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from torch import Tensor, nn


class Kept:
    """A network, and what was made of its weights; shared by all modules that keep the same one."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.made: dict[Any, Any] = {}
        self.lent = False
        """True once one of them gave the network away, with which all of them stop keeping it."""


class Keeper(nn.Module):
    """A module whose submodule `network` may be kept.

    While it is, `_kept.made` may hold what was computed of its weights. Whatever gives the weights away (`network`,
    `parameters()`, `state_dict()`, `modules()`, ...) ends that for good: they may change at any time from then on, and in ways
    that no one can see, so that the module has to work with the network as it is. Then it is a module like any other.
    """

    network: nn.Module
    _shared: Kept | None = None

    def _keep(self, kept: Kept) -> None:
        """Keep a network, of which nobody outside may hold a reference."""
        self._modules.pop("network", None)
        self._shared = kept

    @property
    def _kept(self) -> Kept | None:
        """What is kept, None for a module like any other."""
        if self._shared is not None and self._shared.lent:
            self._lend()
        return self._shared

    @property
    def _own_network(self) -> nn.Module:
        """The network, for those who give it to nobody."""
        return self.network if self._kept is None else self._kept.network

    def _lend(self) -> None:
        kept, self._shared = self._shared, None
        if kept is not None:
            kept.lent = True
            kept.made.clear()
            self._modules = {"network": kept.network, **self._modules}

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Be a module like any other for a moment, for what keeps no reference."""
        kept, modules = self._kept, self._modules
        if kept is None:
            yield
            return
        self._shared, self._modules = None, {"network": kept.network, **modules}
        try:
            yield
        finally:
            self._shared, self._modules = kept, modules

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = self._kept
        if kept is not None:
            kept.made.clear()  # the weights move
        with self._whole():
            return super()._apply(fn, recurse)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Self:
        """Set the mode, as `torch.nn.Module.train`."""
        with self._whole():
            return super().train(mode)

    def __repr__(self) -> str:
        with self._whole():
            return super().__repr__()

    # What gives the weights away.

    def __getattr__(self, name: str) -> Any:
        if name == "network":
            self._lend()
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "network":
            self._lend()
        super().__setattr__(name, value)

    def named_modules(self, *arguments: Any, **options: Any) -> Any:
        """See `torch.nn.Module.named_modules`, through which go `modules`, `parameters` and `buffers`."""
        self._lend()
        return super().named_modules(*arguments, **options)

    def named_children(self) -> Any:
        """See `torch.nn.Module.named_children`, through which goes `children`."""
        self._lend()
        return super().named_children()

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        """See `torch.nn.Module.state_dict`."""
        self._lend()
        return super().state_dict(*arguments, **options)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """See `torch.nn.Module.load_state_dict`."""
        self._lend()
        return super().load_state_dict(*arguments, **options)
