"""Networks that denoise sequences: a network is one file here, and one line below."""

from __future__ import annotations

from typing import Self

from ractd.registry import find
from ractd.settings import Registered

NETWORKS = {
    "mlp": "ractd.networks.mlp:MLP",
    "unet": "ractd.networks.unet:UNet",
    "actor": "ractd.networks.actor:Actor",
}
"""Where the settings of each kind of network are found, which also build it."""


class Network(Registered):
    """Settings of a denoiser's network."""

    @classmethod
    def of_kind(cls, kind: str) -> type[Self]:
        """Return the class of a kind; raises `RactdError` naming the known ones."""
        return find(NETWORKS, kind, "network")  # type: ignore[no-any-return]
