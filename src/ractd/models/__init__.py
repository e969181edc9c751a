"""Plain networks: nothing here knows about training, data or files."""

from __future__ import annotations

from torch import nn

from ractd.models.mlp import MLPDenoiser
from ractd.models.unet import UNetDenoiser
from ractd.networks import Network
from ractd.networks.actor import Actor
from ractd.networks.mlp import MLP
from ractd.networks.unet import UNet

__all__ = [
    "MLPDenoiser",
    "UNetDenoiser",
    "build_network",
    "copy_matching",
]


def build_network(network: Network, horizon: int, dim: int, condition_dim: int, jumps: bool) -> nn.Module:
    """Build the denoiser of a configuration: `(x [B, c, D], t [B], condition [B, K], s [B] | None) -> [B, c, D]`.

    `jumps` adds the target time s as an input (the student); raises `RactdError` where a U-Net can't halve the horizon.
    """
    if isinstance(network, Actor):
        return network.build((horizon, dim), condition_dim)
    if isinstance(network, MLP):
        return MLPDenoiser(horizon, dim, condition_dim, network, jumps)
    assert isinstance(network, UNet)
    return UNetDenoiser(horizon, dim, condition_dim, network, jumps)


def copy_matching(source: nn.Module, target: nn.Module) -> list[str]:
    """Copy every weight whose name and shape agree from `source` to `target`; return the names that did not."""
    weights, own = source.state_dict(), target.state_dict()
    agree = {
        name: weights[name] for name, value in own.items() if name in weights and weights[name].shape == value.shape
    }
    target.load_state_dict(agree, strict=False)
    return [name for name in own if name not in agree]
