"""The policy as one graph: raw observation and noise in, raw action sequence out, for `torch.export` and ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from ractd.diffusion.settings import Diffusion
from ractd.networks.fixed_time import FoldsScales
from ractd.policies import Policy, folding
from ractd.sequences.actions import Actions


class PolicyGraph(nn.Module):
    """`(observation [B, h, O], noise [B, draws, N, n, D]) -> actions [B, c, A]`: `Policy.sample` with the batch first.

    The policy's own sampling runs unchanged; only its model is replaced by one whose times are constants. A policy that draws no
    noise takes none; one whose sequences stand for more than actions returns a tuple, see `Sequence.outputs`.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = _FixedTimes(
            policy.sequence,
            nn.Identity(),
            policy.sampling,
            network_settings=policy.network_settings,
            critic=policy.critic if policy.sampling.candidates > 1 else None,
        )
        direct = policy.sampling.kind == "direct"
        self.policy.evaluated = nn.ModuleList(
            [policy.network] if direct else folding.denoisers(policy.sampling, policy.network)
        )

    def forward(self, observation: Tensor, noise: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        none = observation.new_zeros(0, observation.shape[0], *self.policy.sequence.shape)
        draws = none if noise is None else draws_first(noise)
        outputs = tuple(self.policy.outputs(observation, draws).values())
        return outputs if len(outputs) > 1 else outputs[0]


class OneStepGraph(nn.Module):
    """`PolicyGraph` of a network that takes one step, in fewer operations: every scale is in the weights beside it.

    Engines take longer to start an operation on one observation than to compute it.
    """

    def __init__(self, policy: Policy, denoiser: FoldsScales) -> None:
        super().__init__()
        sequence, schedule = policy.sequence, cast(Diffusion, policy.sampling.schedule)
        n = self.normalizer = sequence.normalizer
        half = ((n.action_high - n.action_low) / 2).repeat(sequence.horizon)
        std, middle = n.observation_std.repeat(sequence.history), n.action_low.repeat(sequence.horizon) + half
        self.scale = nn.Buffer(denoiser.fold_scales(schedule.sigma_max, std, half, middle))
        self.denoiser, self.shape = denoiser, sequence.shape

    def forward(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        n = self.normalizer
        x = observation.new_zeros(observation.shape[0], len(self.scale)) if noise is None else noise.flatten(1)
        scaled: Tensor = self.denoiser(x, (n.limited(observation) - n.observation_mean).flatten(1))
        if noise is not None:
            scaled = scaled + self.scale * x
        actions: Tensor = scaled.unflatten(1, self.shape).clamp(n.action_low, n.action_high)  # type: ignore[no-untyped-call]
        return actions


def graph_of(policy: Policy) -> nn.Module:
    """Return a policy's graph, of the kind that takes the fewest operations."""
    sampling = policy.sampling
    one_step = sampling.kind == "student" and policy.evaluations == sampling.candidates == 1
    if one_step and isinstance(policy.sequence, Actions):
        (denoiser,) = folding.denoisers(sampling, policy.network)
        if isinstance(denoiser, FoldsScales):
            return OneStepGraph(policy, denoiser)
    return PolicyGraph(policy)


def draws_first(noise: Tensor) -> Tensor:
    """Return the graph's noise `[B, draws, N, n, D]` as `Policy.sample` takes it, `[draws, B * N, n, D]`."""
    return noise.transpose(0, 1).flatten(1, 2)


def batch_first(noise: Tensor, candidates: int) -> Tensor:
    """Return noise of `Policy.draw_noise`, `[draws, B * N, n, D]`, as the graph takes it, `[B, draws, N, n, D]`."""
    framed: Tensor = noise.unflatten(1, (-1, candidates)).transpose(0, 1)
    return framed


class _FixedTimes(Policy):
    """A policy whose network is a list of those at each of its evaluations."""

    evaluated: nn.ModuleList

    def model(self) -> Callable[..., Tensor]:
        if self.sampling.kind == "direct":
            return self.evaluated[0]
        return folding.model_of(self.sampling, list(self.evaluated))
