"""Settings of the residual MLP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from msgspec import Meta

from ractd.networks import Network
from ractd.settings import LARGEST_INT, Count


@dataclass(frozen=True)
class MLP(Network):
    """Residual MLP denoiser: the CPU default (ours; the paper has the U-Net only)."""

    kind: ClassVar[str] = "mlp"

    width: Count = 256
    """Width of every hidden layer."""
    blocks: Count = 3
    """Residual blocks, one hidden layer each."""
    embed_dim: Annotated[int, Meta(ge=4, le=LARGEST_INT)] = 64
    """Size of the time embedding."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield each field that can't be as it is, and what is expected of it."""
        if self.embed_dim % 2:
            yield "embed_dim", "an even number"
