"""What the reward costs and how much it counts: R beside its gradient, and the weight that keeps it in bounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ractd.diffusion.ctm import ReturnFunction, sequence_return
from ractd.models import ReturnNetwork
from ractd.training.samples import Samples

WEIGHT_MEMORY = 0.99
"""Decay of the averages that the automatic reward weight is computed from."""
LOGGED = 1024
"""Logged sequences that tell how steep R is in the data."""
ROWS = 4096
"""Rows that R judges at a time on a CPU: what is between its layers stays in the caches."""


def _blocks(observation: Tensor, action: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    rows = ROWS if action.is_cpu else max(len(action), 1)
    return zip(observation.split(rows), action.split(rows), strict=True)


class _Judged(torch.autograd.Function):
    """R of each row and, at once, its gradient by the row: a step asks for that twice, and a row has no part in another's."""

    @staticmethod
    def forward(ctx: Any, action: Tensor, observation: Tensor, return_to_go: ReturnFunction) -> Tensor:
        returns, gradients = [], []
        for given, x in _blocks(observation, action):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                values = return_to_go(given, x)
                (gradient,) = torch.autograd.grad(values.sum(), x)
            returns.append(values.detach())
            gradients.append(gradient)
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(returns)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, by_return: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return by_return.unsqueeze(1) * gradient, None, None


def differentiated(return_to_go: ReturnFunction) -> ReturnFunction:
    """Return R with its gradient by the action, which takes one pass through its network however often it is asked for."""

    def judge(observation: Tensor, action: Tensor) -> Tensor:
        return cast(Tensor, _Judged.apply(action, observation, return_to_go))  # type: ignore[no-untyped-call]

    return judge


def only_judged(return_to_go: ReturnFunction) -> ReturnFunction:
    """Return R without a gradient: where the reward is watched and has no weight."""

    @torch.no_grad()
    def judge(observation: Tensor, action: Tensor) -> Tensor:
        return torch.cat([return_to_go(given, x) for given, x in _blocks(observation, action)])

    return judge


def mean_gradient(values: Tensor, at: Tensor) -> Tensor:
    """Return the mean norm of the gradient of `values [B]` by the rows of `at`, leaving the graph as it is."""
    (gradient,) = torch.autograd.grad(values.sum(), at, retain_graph=True)
    mean: Tensor = gradient.flatten(1).norm(dim=1).mean()
    return mean


def gradient_of_data(judge: ReturnFunction, return_network: ReturnNetwork, samples: Samples) -> Tensor:
    """Return the mean norm of R's gradient at logged sequences, of a sample of them: neither R nor the data change.

    `judge` is R of the network as the reward has it, see `differentiated`.
    """
    weight = next(return_network.parameters())
    draws = samples.draw(LOGGED, torch.Generator().manual_seed(0))
    condition, x0 = samples.gather({name: value.to(weight.device) for name, value in draws.items()})
    logged = x0.detach().requires_grad_()
    judged, given = samples.decode(logged, condition), return_network.given(condition)
    return mean_gradient(sequence_return(judge, given, judged, samples.rewarded), logged)


def auto_weight(share: float, gradients: Tensor) -> Tensor:
    """Return the weight that holds the reward gradient at `share` of the data gradient.

    `gradients` are their mean norms: the data's, R's at the samples and R's at the logged sequences. R's counts for at least
    what it is at the logged ones: where a sample has left the data it can vanish, and a weight that grew in answer would
    drive the sample further out.
    """
    data, at_samples, at_logged = gradients
    weight: Tensor = share * data / torch.maximum(at_samples, at_logged).clamp(min=1e-12)
    return weight
