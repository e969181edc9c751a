"""The residual MLP denoiser: the CPU's backbone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, cast

import torch
from msgspec import Meta
from torch import Tensor, nn

from ractd.networks import WIDE, Network
from ractd.networks.embedding import JumpEmbedding
from ractd.networks.fixed_time import Preconditioning, linear
from ractd.settings import LARGEST_INT, Count


@dataclass(frozen=True)
class MLP(Network):
    """Residual MLP denoiser: the CPU default (ours; the paper has the U-Net only)."""

    kind: ClassVar[str] = "mlp"

    width: Count = 256
    """Width of every hidden layer, of the teacher and, where nothing else is said, of the student."""
    blocks: Count = 3
    """Residual blocks, one hidden layer each."""
    embed_dim: Annotated[int, Meta(ge=4, le=LARGEST_INT)] = 64
    """Size of the time embedding."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield each field that can't be as it is, and what is expected of it."""
        if self.embed_dim % 2:
            yield "embed_dim", "an even number"

    @property
    def many_threads(self) -> bool:
        """True where a second thread pays."""
        return self.width >= WIDE

    def build(self, shape: tuple[int, int], condition_dim: int, jumps: bool) -> MLPDenoiser:
        """Return a denoiser of sequences of this shape, see `Network.build`."""
        return MLPDenoiser(self, shape, condition_dim, jumps)


class Block(nn.Module):
    """`h + W silu(FiLM(norm(h), embedding))`: one hidden layer, modulated by the noise level."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.film = nn.Linear(embed_dim, 2 * width)
        self.inner = nn.Linear(width, width)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding).chunk(2, dim=1)
        return h + self.inner(nn.functional.silu(torch.addcmul(shift, self.norm(h), 1 + scale)))  # type: ignore[no-any-return]


class MLPDenoiser(nn.Module):
    """Denoise `x [B, c, D]` at times `t`, `[B]` or `[1]`, given `condition [B, K]` (and target times `s`, for a student)."""

    def __init__(self, settings: MLP, shape: tuple[int, int], condition_dim: int, jumps: bool) -> None:
        super().__init__()
        x_dim = shape[0] * shape[1]
        self.embedding = JumpEmbedding(settings.embed_dim, 2 * settings.embed_dim, nn.SiLU, jumps)
        self.input = nn.Linear(x_dim + condition_dim + settings.embed_dim, settings.width)
        self.blocks = nn.ModuleList(Block(settings.width, settings.embed_dim) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(settings.width)
        self.output = nn.Linear(settings.width, x_dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, s: Tensor | None = None) -> Tensor:
        embedding = self.embedding(t, s)
        h = self.input(torch.cat([x.flatten(1), condition, embedding.expand(x.shape[0], -1)], dim=1))
        for block in self.blocks:
            h = block(h, embedding)
        return self.output(nn.functional.silu(self.norm(h))).view_as(x)  # type: ignore[no-any-return]

    @torch.no_grad()
    def at_time(self, t: Tensor, s: Tensor | None, scales: Preconditioning) -> MLPAtTime:
        """Return the denoiser at one time, see `ractd.networks.fixed_time`."""
        return MLPAtTime(self, self.embedding(t, s), scales)


class MLPAtTime(nn.Module):
    """The residual MLP: the embedding's columns become a bias, FiLM the normalisations' own scale and shift."""

    def __init__(self, network: MLPDenoiser, embedding: Tensor, scales: Preconditioning) -> None:
        super().__init__()
        self.a = scales.a
        x_dim, taken = network.output.out_features, network.input.in_features - embedding.shape[1]
        weight = network.input.weight[:, :taken].clone()
        weight[:, :x_dim] *= scales.c
        self.input = linear(weight, network.input.bias + network.input.weight[:, taken:] @ embedding[0])
        blocks = [cast(Block, block) for block in network.blocks]
        self.norms = nn.ModuleList(_film_in_norm(block, embedding) for block in blocks)
        self.inner = nn.ModuleList(block.inner for block in blocks)
        self.norm = network.norm
        self.output = linear(scales.b * network.output.weight, scales.b * network.output.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.input(torch.cat([x.flatten(1), condition], dim=1))
        for norm, inner in zip(self.norms, self.inner, strict=True):
            h = h + inner(nn.functional.silu(norm(h)))
        out: Tensor = self.output(nn.functional.silu(self.norm(h))).view_as(x)
        return self.a * x + out if self.a else out

    @torch.no_grad()
    def fold_scales(self, x: float, condition: Tensor, out: Tensor, shift: Tensor) -> Tensor:
        """See `ractd.networks.fixed_time.FoldsScales`."""
        of_x, of_condition = self.input.weight.tensor_split([len(out)], dim=1)
        of_x.mul_(x)
        of_condition.div_(condition)
        self.output.weight.mul_(out[:, None])
        self.output.bias.mul_(out).add_(shift)
        skip, self.a = x * self.a * out, 0.0
        return skip


def _film_in_norm(block: Block, embedding: Tensor) -> nn.LayerNorm:
    scale, shift = block.film(embedding)[0].chunk(2)
    norm = copy.deepcopy(block.norm)
    norm.weight.mul_(1 + scale)
    norm.bias.mul_(1 + scale).add_(shift)
    return norm
