"""The 1-D temporal U-Net with FiLM conditioning (paper, Appendix A; the architecture of Chi et al., 2023)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, cast

import torch
from msgspec import Meta
from torch import Tensor, nn

from ractd.errors import RactdError
from ractd.networks import Network
from ractd.networks.embedding import JumpEmbedding
from ractd.networks.fixed_time import NETWORK_ALONE, Preconditioning, linear
from ractd.networks.mish import Mish
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

    def build(self, shape: tuple[int, int], condition_dim: int, jumps: bool) -> UNetDenoiser:
        """Return a denoiser of sequences of this shape, see `Network.build`."""
        return UNetDenoiser(self, shape, condition_dim, jumps)


def channels_beside(weight: Tensor) -> Tensor:
    """Return a convolution's weight `[C, C, k]` with its second channels beside each other in memory."""
    return weight.transpose(1, 2).contiguous().transpose(1, 2)


class Conv(nn.Conv1d):
    """Convolution over time of images one pixel high, `[B, C_in, 1, c] -> [B, C_out, 1, c]`.

    Only images can have their channels beside each other in memory, which is how a CPU convolves and normalises them fastest.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.weight.data = channels_beside(self.weight.data)

    def forward(self, x: Tensor) -> Tensor:
        weight, stride, padding = self.weight.unsqueeze(2), (1, *self.stride), (0, self.padding[0])
        return nn.functional.conv2d(x, weight, self.bias, stride, padding)  # type: ignore[arg-type]


class ConvTranspose(nn.ConvTranspose1d):
    """The transposed convolution over time of images one pixel high."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.weight.data = channels_beside(self.weight.data)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        weight, stride, padding = self.weight.unsqueeze(2), (1, *self.stride), (0, self.padding[0])
        return nn.functional.conv_transpose2d(x, weight, self.bias, stride, padding)  # type: ignore[arg-type]


class ConvBlock(nn.Sequential):
    """Convolution over time, group normalisation, Mish: `[B, C_in, 1, c] -> [B, C_out, 1, c]`."""

    def __init__(self, channels_in: int, channels_out: int, settings: UNet) -> None:
        super().__init__(
            Conv(channels_in, channels_out, settings.kernel_size, padding=settings.kernel_size // 2),
            nn.GroupNorm(settings.groups, channels_out),
            Mish(),
        )


class ResidualBlock(nn.Module):
    """Two convolution blocks around a FiLM modulation by the condition, and a skip."""

    def __init__(self, channels_in: int, channels_out: int, condition_dim: int, settings: UNet) -> None:
        super().__init__()
        self.first = ConvBlock(channels_in, channels_out, settings)
        self.film = nn.Sequential(Mish(), nn.Linear(condition_dim, 2 * channels_out))
        self.second = ConvBlock(channels_out, channels_out, settings)
        self.skip = Conv(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, bias = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        return self.second(scale * self.first(x) + bias) + self.skip(x)  # type: ignore[no-any-return]


class UNetDenoiser(nn.Module):
    """Denoise `x [B, c, D]` at times `t`, `[B]` or `[1]`, given `condition [B, K]` (and target times `s`, for a student).

    Every level but the last halves the horizon; raises `RactdError` for a horizon that doesn't divide.
    """

    def __init__(self, settings: UNet, shape: tuple[int, int], condition_dim: int, jumps: bool) -> None:
        super().__init__()
        horizon, dim = shape
        halvings = len(settings.down_dims) - 1
        if horizon % 2**halvings:
            below, above = (2**halvings * (horizon // 2**halvings + i) for i in (0, 1))
            raise RactdError(
                f"horizon {horizon} can't be halved {halvings} times by the U-Net {settings.down_dims}: "
                f"use {f'{below} or ' if below else ''}{above}"
            )
        for width in settings.down_dims:
            if width % settings.groups:
                raise RactdError(
                    f"U-Net width {width} is not a multiple of the {settings.groups} groups of its normalisation"
                )
        self.embedding = JumpEmbedding(settings.embed_dim, 4 * settings.embed_dim, Mish, jumps)
        widths, total = settings.down_dims, settings.embed_dim + condition_dim

        def pair(channels_in: int, channels_out: int) -> nn.ModuleList:
            return nn.ModuleList(
                [
                    ResidualBlock(channels_in, channels_out, total, settings),
                    ResidualBlock(channels_out, channels_out, total, settings),
                ]
            )

        self.down = nn.ModuleList(pair(i, o) for i, o in pairwise((dim, *widths)))
        self.shrink = nn.ModuleList(Conv(width, width, 3, stride=2, padding=1) for width in widths[:-1])
        self.middle = pair(widths[-1], widths[-1])
        self.up = nn.ModuleList(pair(2 * o, i) for i, o in reversed(list(pairwise(widths))))
        self.grow = nn.ModuleList(
            ConvTranspose(width, width, 4, stride=2, padding=1) for width in reversed(widths[:-1])
        )
        self.output = nn.Sequential(ConvBlock(widths[0], widths[0], settings), Conv(widths[0], dim, 1))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
        embedding = self.embedding(t, s).expand(x.shape[0], -1)
        return self.modulated(x, torch.cat([embedding, condition], dim=1))

    def modulated(self, x: Tensor, condition: Tensor) -> Tensor:
        """Denoise `x [B, c, D]` with what the FiLM layers take, `[B, E + K]`: the times' embedding, then the condition."""
        h, skips = x.transpose(1, 2).unsqueeze(2), []
        for level, blocks in enumerate(self.down):
            for block in cast(nn.ModuleList, blocks):
                h = block(h, condition)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        for block in self.middle:
            h = block(h, condition)
        for blocks, grow in zip(self.up, self.grow, strict=True):
            h = torch.cat([h, skips.pop()], dim=1)
            for block in cast(nn.ModuleList, blocks):
                h = block(h, condition)
            h = grow(h)
        return self.output(h).squeeze(2).transpose(1, 2)  # type: ignore[no-any-return]

    @torch.no_grad()
    def at_time(self, t: Tensor, s: Tensor | None, scales: Preconditioning) -> UNetAtTime:
        """Return the denoiser at one time, see `ractd.networks.fixed_time`."""
        return UNetAtTime(self, self.embedding(t, s), scales)


class UNetAtTime(nn.Module):
    """The U-Net: the embedding's columns of every FiLM layer become its bias."""

    def __init__(self, network: UNetDenoiser, embedding: Tensor, scales: Preconditioning) -> None:
        super().__init__()
        self.scales = scales
        self.network = _sharing_tensors(network)
        del self.network.embedding
        for block in self.network.modules():
            if isinstance(block, ResidualBlock):
                activation, film = block.film[0], cast(nn.Linear, block.film[1])
                known, rest = film.weight.split([embedding.shape[1], film.in_features - embedding.shape[1]], dim=1)
                bias = film.bias + known @ activation(embedding)[0]
                block.film = nn.Sequential(activation, linear(rest.contiguous(), bias))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        a, b, c = self.scales
        if self.scales == NETWORK_ALONE:
            return self.network.modulated(x, condition)
        return a * x + b * self.network.modulated(c * x, condition)


def _sharing_tensors(network: UNetDenoiser) -> UNetDenoiser:
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, tensors)
