"""The policy as one graph: raw observation and noise in, raw action sequence out, for `torch.export` and ONNX."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ractd import fixed_times
from ractd.policy import MODELS, Policy


class PolicyGraph(nn.Module):
    """`(observation [B, h, O], noise [B, draws, N, c, A]) -> actions [B, c, A]`: `Policy.sample` with the batch first.

    The policy's own sampling runs unchanged; only its model is replaced by one whose times are constants.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = _FixedTimes(policy)

    def forward(self, observation: Tensor, noise: Tensor) -> Tensor:
        return self.policy.sample(observation, draws_first(noise))


def draws_first(noise: Tensor) -> Tensor:
    """Return the graph's noise `[B, draws, N, c, A]` as `Policy.sample` takes it, `[draws, B * N, c, A]`."""
    return noise.transpose(0, 1).flatten(1, 2)


def batch_first(noise: Tensor, candidates: int) -> Tensor:
    """Return noise of `Policy.draw_noise`, `[draws, B * N, c, A]`, as the graph takes it, `[B, draws, N, c, A]`."""
    framed: Tensor = noise.unflatten(1, (-1, candidates)).transpose(0, 1)
    return framed


class _FixedTimes(Policy):
    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.spec, policy.network, policy.return_network, policy.normalizer)
        self.denoisers = nn.ModuleList(fixed_times.denoisers(policy.spec, MODELS[policy.spec.kind], policy.network))
        del self.network
        if policy.spec.candidates == 1:
            del self.return_network

    def model(self) -> Callable[..., Tensor]:
        return fixed_times.model(self.spec, MODELS[self.spec.kind], list(self.denoisers))
