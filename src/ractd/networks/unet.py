"""Settings of the paper's U-Net."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from msgspec import Meta

from ractd.networks import Network
from ractd.settings import LARGEST_INT, Count


@dataclass(frozen=True)
class UNet(Network):
    """1-D temporal U-Net with FiLM conditioning (paper, Appendix A, Tables 6 and 7)."""

    kind: ClassVar[str] = "unet"

    down_dims: tuple[Count, ...] = (512, 1024, 2048)
    """Channels of each level; every level but the last halves the horizon."""
    embed_dim: Annotated[int, Meta(ge=4, le=LARGEST_INT)] = 128
    """Size of the time embedding (`diffusion_step_embed_dim` in the tables)."""
    kernel_size: Count = 5
    """Kernel of the temporal convolutions."""
    groups: Count = 8
    """Groups of the group normalisation."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield each field that can't be as it is, and what is expected of it."""
        if self.embed_dim % 2:
            yield "embed_dim", "an even number"
        if self.kernel_size % 2 == 0:
            yield "kernel_size", "an odd number"
