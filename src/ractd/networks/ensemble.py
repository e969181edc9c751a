"""Several MLPs of the same shape side by side, each layer of all of them one batched product."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """`members` MLPs of Linear (+ LayerNorm) + ReLU layers to one number, which differ in their first weights: `[B, I] -> [M, B]`.

    Weights are drawn as `nn.Linear` draws its own.
    """

    def __init__(self, members: int, inputs: int, layers: tuple[int, ...], layer_norm: bool = False) -> None:
        super().__init__()
        self.members = members
        widths = (inputs, *layers, 1)

        def drawn(fan_in: int, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(members, *shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))

        self.weights = nn.ParameterList(drawn(i, i, o) for i, o in pairwise(widths))
        self.biases = nn.ParameterList(drawn(i, 1, o) for i, o in pairwise(widths))
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(members, 1, o)) for o in layers if layer_norm)
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, o)) for o in layers if layer_norm)

    def forward(self, x: Tensor) -> Tensor:
        h = x.expand(self.members, *x.shape)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight)
            if layer < last:
                if len(self.scales):
                    normalised = nn.functional.layer_norm(h, h.shape[-1:])
                    h = torch.addcmul(self.shifts[layer], normalised, self.scales[layer])
                h = h.relu()
        return h.squeeze(2)
