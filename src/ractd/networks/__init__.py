"""Networks that denoise sequences: a network is one file here, and one line below.

Nothing here knows about training, data or files. Importing this imports no torch; a network's own file does.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from ractd.settings import Registered

if TYPE_CHECKING:
    from torch import nn

NETWORKS = {
    "mlp": "ractd.networks.mlp:MLP",
    "unet": "ractd.networks.unet:UNet",
    "actor": "ractd.networks.actor:Actor",
}
"""Where the settings of each kind of network are found, which also build it."""
WIDE = 1024
"""Units of a layer from which its matrices are worth dividing among threads."""


class Network(Registered):
    """Settings of a network that makes sequences: a frozen dataclass of one kind."""

    denoises: ClassVar[bool] = True
    """Whether it makes them of noise at known times, or of the condition alone."""

    kinds = NETWORKS, "network", ""

    @abstractmethod
    def build(self, shape: tuple[int, int], condition_dim: int, jumps: bool) -> nn.Module:
        """Return a network for sequences of a `shape`, c steps of D entries.

        One that denoises is called as `(x [B, c, D], t, condition [B, K]) -> [B, c, D]`, with K = `condition_dim` and times t
        `[B]`, or `[1]` where all rows have the same. With `jumps`, as a student's, it takes a target time `s` at the end, of t's
        shape, and starts as the network without. It may have
        `at_time`, see `ractd.networks.fixed_time.FoldsTime`. One that doesn't denoise takes the condition alone.

        Raises:
            RactdError: for a shape that it can't have.
        """

    @property
    def many_threads(self) -> bool:
        """True where a second thread pays: it costs a small network more than it gains."""
        return True


def copy_matching(source: nn.Module, target: nn.Module) -> list[str]:
    """Copy every weight whose name and shape agree from `source` to `target`; return the names that did not."""
    weights, own = source.state_dict(), target.state_dict()
    agree = {
        name: weights[name] for name, value in own.items() if name in weights and weights[name].shape == value.shape
    }
    target.load_state_dict(agree, strict=False)
    return [name for name in own if name not in agree]
