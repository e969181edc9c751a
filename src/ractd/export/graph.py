"""The policy as one graph: raw observation and noise in, raw action sequence out, for `torch.export` and ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from ractd import fixed_times
from ractd.models.mlp import MLPAtTime, MLPDenoiser
from ractd.planner import Planner
from ractd.policy import MODELS, Policy


class PolicyGraph(nn.Module):
    """`(observation [B, h, O], noise [B, draws, N, c, D]) -> actions [B, c, A]`: `Policy.sample` with the batch first.

    The policy's own sampling runs unchanged; only its model is replaced by one whose times are constants.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        spec, parts = policy.spec, (policy.spec, nn.Identity(), policy.return_network)
        self.policy: _FixedTimes | _FixedTimesPlanner
        if isinstance(policy, Planner):
            self.policy = _FixedTimesPlanner(*parts, policy.normalizer, policy.dynamics)
        else:
            self.policy = _FixedTimes(*parts, policy.normalizer)
        self.policy.denoisers = nn.ModuleList(fixed_times.denoisers(spec, MODELS[spec.kind], policy._own_network))
        del self.policy.network
        if spec.candidates == 1:
            del self.policy.return_network

    def forward(self, observation: Tensor, noise: Tensor) -> Tensor:
        return self.policy.sample(observation, draws_first(noise))


class PlannerGraph(PolicyGraph):
    """`(observation [B, 1, 2 S], noise [B, draws, N, c, D]) -> actions [B, H, A], states [B, H, S]`: `Planner.sample_plan`."""

    def forward(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        states, actions = self.policy.sample_plan(observation, draws_first(noise))  # type: ignore[operator]
        return actions, states


class OneStepGraph(nn.Module):
    """`PolicyGraph` of an MLP that takes one step, in fewer operations: every scale is in the weights beside it.

    Engines take longer to start an operation on one observation than to compute it.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        spec, n = policy.spec, policy.normalizer
        (folded,) = fixed_times.denoisers(spec, MODELS[spec.kind], policy._own_network)
        denoiser = self.denoiser = cast(MLPAtTime, folded)
        half = ((n.action_high - n.action_low) / 2).repeat(spec.horizon)
        self.scale = nn.Buffer(spec.diffusion.sigma_max * denoiser.a * half)
        self.normalizer = n
        of_noise, of_observation = denoiser.input.weight.tensor_split([len(half)], dim=1)
        of_noise.mul_(spec.diffusion.sigma_max)
        of_observation.div_(n.observation_std.repeat(spec.history))
        denoiser.output.weight.mul_(half[:, None])
        denoiser.output.bias.mul_(half).add_(n.action_low.repeat(spec.horizon) + half)
        denoiser.a = 0.0

    def forward(self, observation: Tensor, noise: Tensor) -> Tensor:
        x, n = noise.flatten(1), self.normalizer
        scaled: Tensor = self.scale * x + self.denoiser(x, (n.limited(observation) - n.observation_mean).flatten(1))
        actions: Tensor = scaled.unflatten(1, noise.shape[3:]).clamp(n.action_low, n.action_high)  # type: ignore[no-untyped-call]
        return actions


def graph_of(policy: Policy) -> nn.Module:
    """Return a policy's graph, of the kind that takes the fewest operations."""
    spec = policy.spec
    if spec.plans:
        return PlannerGraph(policy)
    one_step = spec.kind == "student" and policy.evaluations == spec.candidates == 1
    return (OneStepGraph if one_step and isinstance(policy._own_network, MLPDenoiser) else PolicyGraph)(policy)


def draws_first(noise: Tensor) -> Tensor:
    """Return the graph's noise `[B, draws, N, c, D]` as `Policy.sample` takes it, `[draws, B * N, c, D]`."""
    return noise.transpose(0, 1).flatten(1, 2)


def batch_first(noise: Tensor, candidates: int) -> Tensor:
    """Return noise of `Policy.draw_noise`, `[draws, B * N, c, D]`, as the graph takes it, `[B, draws, N, c, D]`."""
    framed: Tensor = noise.unflatten(1, (-1, candidates)).transpose(0, 1)
    return framed


class _FixedTimes(Policy):
    denoisers: nn.ModuleList

    def model(self) -> Callable[..., Tensor]:
        return fixed_times.model(self.spec, MODELS[self.spec.kind], list(self.denoisers))


class _FixedTimesPlanner(_FixedTimes, Planner):
    pass
