"""A denoiser at one noise level: what depends on time alone is folded into its weights.

A sampler visits known times, so a policy that only acts needs no time embedding and no layer that reads nothing else. At
one time a preconditioned denoiser is `a x + b F(c x, condition)` with three numbers a, b, c.
"""

from __future__ import annotations

import copy
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ractd.models.mlp import Block, MLPDenoiser
from ractd.models.unet import ResidualBlock, UNetDenoiser


class Preconditioning(NamedTuple):
    """The numbers of `a x + b F(c x, condition)`."""

    a: float
    b: float
    c: float


NETWORK_ALONE = Preconditioning(0.0, 1.0, 1.0)


@torch.no_grad()
def at_time(network: nn.Module, t: Tensor, s: Tensor | None, scales: Preconditioning) -> nn.Module:
    """Return the denoiser `(x [B, c, D], condition [B, K]) -> [B, c, D]` at times `t [1]` (and `s [1]`, for a student).

    Weights that don't depend on time are shared with the network.
    """
    if isinstance(network, MLPDenoiser):
        return MLPAtTime(network, network.embedding(t, s), scales)
    network = cast(UNetDenoiser, network)
    return UNetAtTime(network, network.embedding(t, s), scales)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
    return layer


class MLPAtTime(nn.Module):
    """The residual MLP: the embedding's columns become a bias, FiLM the normalisations' own scale and shift."""

    def __init__(self, network: MLPDenoiser, embedding: Tensor, scales: Preconditioning) -> None:
        super().__init__()
        self.a = scales.a
        x_dim, taken = network.output.out_features, network.input.in_features - embedding.shape[1]
        weight = network.input.weight[:, :taken].clone()
        weight[:, :x_dim] *= scales.c
        self.input = _linear(weight, network.input.bias + network.input.weight[:, taken:] @ embedding[0])
        blocks = [cast(Block, block) for block in network.blocks]
        self.norms = nn.ModuleList(_film_in_norm(block, embedding) for block in blocks)
        self.inner = nn.ModuleList(block.inner for block in blocks)
        self.norm = network.norm
        self.output = _linear(scales.b * network.output.weight, scales.b * network.output.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.input(torch.cat([x.flatten(1), condition], dim=1))
        for norm, inner in zip(self.norms, self.inner, strict=True):
            h = h + inner(nn.functional.silu(norm(h)))
        out: Tensor = self.output(nn.functional.silu(self.norm(h))).view_as(x)
        return self.a * x + out if self.a else out


def _film_in_norm(block: Block, embedding: Tensor) -> nn.LayerNorm:
    scale, shift = block.film(embedding)[0].chunk(2)
    norm = copy.deepcopy(block.norm)
    norm.weight.mul_(1 + scale)
    norm.bias.mul_(1 + scale).add_(shift)
    return norm


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
                block.film = nn.Sequential(activation, _linear(rest.contiguous(), bias))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        a, b, c = self.scales
        if self.scales == NETWORK_ALONE:
            return self.network.modulated(x, condition)
        return a * x + b * self.network.modulated(c * x, condition)


def _sharing_tensors(network: UNetDenoiser) -> UNetDenoiser:
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, tensors)
