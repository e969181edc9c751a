"""The product: observation in, actions out; saved as safetensors and JSON that can run no code when opened."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ractd import fixed_times
from ractd.data.environment import REGISTERED, EnvironmentSettings
from ractd.diffusion.ctm import sequence_return
from ractd.diffusion.samplers import SAMPLERS, Kind, Sampler
from ractd.diffusion.settings import DDPM, Diffusion
from ractd.envs.context import Context
from ractd.errors import RactdError
from ractd.files import read_json, write_json
from ractd.kept import Keeper, Kept
from ractd.models import InverseDynamics, ReturnNetwork, build_network
from ractd.models.normalizer import Normalizer, PlanNormalizer
from ractd.networks import Network
from ractd.noise import EpisodeNoise
from ractd.settings import Count, CountOrNone, Positive, from_json, to_json
from ractd.training.checkpoint import load_weights, read_tensors, write_tensors
from ractd.training.ddpm import noise_denoiser
from ractd.training.student import student_network
from ractd.training.teacher import denoiser

FORMAT_VERSION = 1
WEIGHTS, CONTRACT = "policy.safetensors", "config.json"
FEW = 8
"""Of a student of so many steps what its times decide is folded; for more the copies are not worth their memory."""
MODELS: dict[Kind, Callable[[nn.Module, Any], Callable[..., Tensor]]] = {
    "student": student_network,
    "teacher": denoiser,
    "DDPM teacher": noise_denoiser,
}
"""What the samplers of each kind of policy take, from its network and its schedule."""


@dataclass(frozen=True)
class PolicySpec:
    """Everything about a policy that is not a weight; `config.json` of a policy file."""

    observation_dim: Count
    action_dim: Count
    horizon: Count
    history: Count
    network: Network
    jumps: bool
    """True for a student, whose network takes a target time."""
    sampler: str
    """A name in `ractd.diffusion.samplers.SAMPLERS`, of those for this kind of policy."""
    steps: Count
    """Steps of the sampler."""
    return_layers: tuple[Count, ...]
    """Layers of the return model that ranks candidates."""
    return_mean: float
    """Mean of the dataset's returns-to-go: the return model's zero."""
    return_std: Positive
    """Standard deviation of the dataset's returns-to-go: the return model's unit."""
    return_members: CountOrNone = 1
    """Members of the return model; 0 for a policy without one."""
    candidates: Count = 1
    """Samples drawn for each action, of which the return model's favourite is executed."""
    diffusion: Diffusion = field(default_factory=Diffusion)
    ddpm: DDPM | None = None
    """The schedule of a DDPM teacher, None for an EDM teacher and for a student."""
    env_id: str | None = None
    """The environment that it is scored in, made of this and of `env_settings` by this machine's Gymnasium."""
    env_settings: EnvironmentSettings = REGISTERED
    state_dim: CountOrNone = 0
    """Of a planner, whose sequences are states and whose observation is a state and a goal; 0 for action sequences."""
    points: CountOrNone = 0
    """Control points that a planner's sequences are made of; 0 where they are the states."""
    dynamics_layers: tuple[Count, ...] = ()
    """Layers of a planner's inverse dynamics."""
    maze: str = ""
    """Map of a planner's maze, as text."""
    goal: tuple[float, ...] = ()
    """Where a planner is sent when it is scored: the first entries of a state, the others are zero."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where it comes from: dataset, training, scores, versions."""

    @property
    def kind(self) -> Kind:
        """What decides which samplers there are."""
        return "student" if self.jumps else "teacher" if self.ddpm is None else "DDPM teacher"

    @property
    def plans(self) -> bool:
        """True for a planner."""
        return self.state_dim > 0

    @property
    def sequence_shape(self) -> tuple[int, int]:
        """Steps c and entries D of its sequences x."""
        return self.points or self.horizon, self.state_dim or self.action_dim

    @property
    def rewarded(self) -> int:
        """Over how many steps of a sequence the return model is summed: the first action, or all states of a plan."""
        return self.horizon if self.plans else 1

    @property
    def schedule(self) -> Diffusion | DDPM:
        """The noise levels that the network knows."""
        return self.diffusion if self.jumps or self.ddpm is None else self.ddpm

    @property
    def draws(self) -> int:
        """Noise draws for one sample."""
        return self.sampling.draws(self.steps)

    @property
    def sampling(self) -> Sampler[Any, Any]:
        """The way of sampling that `sampler` names."""
        return SAMPLERS[self.kind][self.sampler]

    def check_sampling(self) -> None:
        """Raise `RactdError` for a sampler or a number of steps that this kind of policy can't have."""
        valid = SAMPLERS[self.kind]
        if self.sampler not in valid:
            others = [f"a {kind}'s" for kind, samplers in SAMPLERS.items() if self.sampler in samplers]
            raise RactdError(
                f"sampler is {self.sampler!r}{f' ({others[0]})' if others else ''}, "
                f"expected one of {', '.join(valid)} for a {self.kind}"
            )
        least, most = self.sampling.limits(self.schedule)
        if not least <= self.steps <= most:
            raise RactdError(f"steps is {self.steps}, expected {least} to {most} for the {self.sampler} sampler")


class Policy(Keeper):
    """A policy that acts on raw observations and returns raw actions.

    `act` and `act_chunk` take one observation `[O]`, a batch `[B, O]`, or histories `[h, O]`, `[B, h, O]` where h > 1.
    Same seed, same actions: noise comes from the policy's own generator, see `reset`. A policy that is made of a network acts
    with what the network's weights are at the moment; see `folded` for a faster one.
    """

    def __init__(
        self, spec: PolicySpec, network: nn.Module, return_network: ReturnNetwork, normalizer: Normalizer
    ) -> None:
        super().__init__()
        self.spec, self.network, self.return_network, self.normalizer = spec, network, return_network, normalizer
        self.generator = torch.Generator().manual_seed(0)
        self.requires_grad_(False)
        self.eval()

    @property
    def evaluations(self) -> int:
        """Network evaluations for one action sequence (NFE)."""
        return self.spec.sampling.evaluations(self.spec.steps)

    def configured(
        self, *, sampler: str | None = None, steps: int | None = None, candidates: int | None = None
    ) -> Policy:
        """Return the same policy with another sampler, steps or candidates; raises `RactdError` for what it can't do.

        `sampler` is a name in `ractd.diffusion.samplers.SAMPLERS`, of those for this kind of policy. Both have the same networks.
        """
        spec = replace(
            self.spec,
            sampler=self.spec.sampler if sampler is None else sampler,
            steps=self.spec.steps if steps is None else steps,
            candidates=self.spec.candidates if candidates is None else candidates,
        )
        spec.check_sampling()
        if not 1 <= spec.candidates <= 4096:
            raise RactdError(f"candidates is {spec.candidates}, expected 1 to 4096")
        if spec.candidates > 1:
            self._need_return_model(f"candidates is {spec.candidates}, expected 1")
        policy = self._with(spec)
        if self._kept is not None:
            policy._keep(self._kept)
            policy.model()
        return policy

    def _need_return_model(self, what: str) -> None:
        if not self.return_network.exists:
            raise RactdError(f"{what}: the policy has no return model, since its data had no rewards")

    def _with(self, spec: PolicySpec) -> Policy:
        return Policy(spec, self._own_network, self.return_network, self.normalizer)

    def reset(self, seed: int = 0) -> Self:
        """Restart the noise from a seed."""
        self.generator.manual_seed(seed)
        return self

    def draw_noise(self, batch: int) -> Tensor:
        """Return the standard normal draws of one call, `[draws, batch * candidates, c, A]`."""
        spec = self.spec
        shape = (spec.draws, batch * spec.candidates, *spec.sequence_shape)
        return torch.randn(shape, generator=self.generator).to(self.normalizer.action_low.device)

    def episode_noise(self) -> EpisodeNoise:
        """Return the draws of episodes side by side, of the seed that the policy was last reset to."""
        spec = self.spec
        return EpisodeNoise(self.generator.initial_seed(), spec.draws, (spec.candidates, *spec.sequence_shape))

    def model(self) -> Callable[..., Tensor]:
        """Return what the policy's sampler takes, for one sample: the network with its preconditioning, see `MODELS`."""
        spec, wrap, kept = self.spec, MODELS[self.spec.kind], self._kept
        if kept is not None and spec.kind == "student" and spec.steps <= FEW:
            folded = fixed_times.kept_denoisers(spec, wrap, kept)
            if folded is not None:
                return fixed_times.model(spec, wrap, folded)
        return wrap(self._own_network, spec.schedule)

    def folded(self) -> Self:
        """Return a copy with the weights of this moment, which acts faster if it is a student of few steps.

        What depends on its times alone is computed once and folded into the weights. That lasts as long as the copy keeps its
        network to itself: once asked for its weights (`network`, `parameters()`, `state_dict()`, ...), which may change from
        then on, it acts with them as they are. What `load` returns is folded in the same way.
        """
        policy = copy.deepcopy(self)
        policy._keep(Kept(policy._own_network))
        policy.model()
        return policy

    def _tensors(self) -> dict[str, Tensor]:
        """Return what `save` writes; to be read only."""
        with self._whole():
            return self.state_dict()  # type: ignore[no-any-return]

    def sequence(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Return sequences x `[B, c, D]` for conditions `[B, K]`, all normalised, a pure function of both inputs.

        With N candidates, `noise` has N rows per condition and the sequence that the return model likes best is returned.
        """
        spec = self.spec
        if spec.candidates > 1:
            condition = condition.repeat_interleave(spec.candidates, 0)
        x = spec.sampling.sample(self.model(), noise, condition, spec.schedule, spec.steps)
        if spec.candidates > 1:
            given = self.return_network.given(condition)
            returns = sequence_return(self.return_network, given, self.decode(x, condition), spec.rewarded).view(
                -1, spec.candidates
            )
            x = x.unflatten(0, (-1, spec.candidates))
            x = x[torch.arange(x.shape[0], device=x.device), returns.argmax(1)]
        return x

    def decode(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return what the return model judges, in [-1, 1] where the data is, of sequences x: the actions that they stand for."""
        return x * self.normalizer.varying

    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Return raw action sequences `[B, c, A]` for raw observations `[B, h, O]`, a pure function of both inputs."""
        x = self.sequence(self.normalizer.observation(observations).flatten(1), noise)
        return self.normalizer.raw_action(x)

    def act_chunk(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """Return the next c actions, `[c, A]` or `[B, c, A]`; raises `RactdError` for a wrong shape or NaN."""
        batch, single = self._batch(observation)
        actions = self._actions(batch, self.draw_noise(len(batch)))
        return actions[0] if single else actions  # type: ignore[no-any-return]

    @torch.inference_mode()
    def _actions(self, observations: Tensor, noise: Tensor) -> NDArray[np.float32]:
        return self.sample(observations, noise).cpu().numpy()  # type: ignore[no-any-return]

    def act(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """Return the action to execute now, `[A]` or `[B, A]`; raises `RactdError` for a wrong shape or NaN."""
        return self.act_chunk(observation)[..., 0, :]  # type: ignore[no-any-return]

    def seen(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what `act_chunk` takes, of an environment's observations `[B, h, O]`: the same."""
        return observations

    def acting(self) -> Acting:
        """Return what `ractd.envs.evaluate` runs, with the noise of the seed that the policy was last reset to."""
        return Acting(self)

    @torch.inference_mode()
    def estimate_return(self, observation: NDArray[Any], action: NDArray[Any]) -> NDArray[np.float32]:
        """Return the return model's estimate of the return-to-go of `action [B, A]` at `observation [B, O]`.

        Raises `RactdError` for a policy without a return model.
        """
        self._need_return_model("there is no estimate of returns")
        device = self.normalizer.action_low.device
        s = self.normalizer.observation(torch.as_tensor(observation, dtype=torch.float32, device=device))
        a = self.normalizer.action(torch.as_tensor(action, dtype=torch.float32, device=device))
        return (self.return_network(s, a) * self.spec.return_std + self.spec.return_mean).cpu().numpy()  # type: ignore[no-any-return]

    def _batch(self, observation: NDArray[Any]) -> tuple[Tensor, bool]:
        spec = self.spec
        array = np.array(observation, dtype=np.float32, order="C")
        one = (spec.observation_dim,) if spec.history == 1 else (spec.history, spec.observation_dim)
        single = array.shape == one
        full = (spec.history, spec.observation_dim)
        if not single and array.shape[1:] not in (one, full):
            raise RactdError(
                f"observation has shape {list(array.shape)}, expected {list(one)} or a batch {['B', *one]}"
            )
        if not np.isfinite(array).all():
            raise RactdError("observation holds NaN or infinite values")
        device = self.normalizer.action_low.device
        return torch.from_numpy(array).to(device).reshape(-1, *full), single

    def save(self, directory: str | Path) -> Path:
        """Write `policy.safetensors` and `config.json` into a directory, each by atomic rename."""
        directory = Path(directory)
        write_tensors(directory / WEIGHTS, self._tensors(), {"format_version": FORMAT_VERSION})
        write_json(
            directory / CONTRACT, {"format": "ractd-policy", "format_version": FORMAT_VERSION, **to_json(self.spec)}
        )
        return directory

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Policy:
        """Open a policy directory, or a run directory (its student).

        No code from the files is run. Raises `RactdError` for a missing, damaged or newer file, or weights that don't fit.
        """
        directory = Path(path)
        if not (directory / CONTRACT).exists() or (directory / "policy").is_dir():
            directory = directory / "policy" / "student"
        if not directory.is_dir():
            raise RactdError(
                f"{path}: no policy here (expected {CONTRACT} and {WEIGHTS}, or a run with policy/student)"
            )
        contract = read_json(directory / CONTRACT)
        if not isinstance(contract, dict) or contract.pop("format", None) != "ractd-policy":
            raise RactdError(f"{directory / CONTRACT}: not a ractd policy")
        version = contract.pop("format_version", None)
        if version != FORMAT_VERSION:
            hint = (
                "install a newer ractd"
                if isinstance(version, int) and version > FORMAT_VERSION
                else "the file is damaged"
            )
            raise RactdError(
                f"{directory / CONTRACT}: format version {version!r}, this ractd reads {FORMAT_VERSION}; {hint}"
            )
        spec = from_json(PolicySpec, contract, directory / CONTRACT)
        try:
            spec.check_sampling()
        except RactdError as error:
            raise RactdError(f"{directory / CONTRACT}: {str(error).removeprefix('--')}") from None
        tensors, _ = read_tensors(directory / WEIGHTS)
        network = build_network(spec.network, *spec.sequence_shape, spec.history * spec.observation_dim, spec.jumps)
        given = spec.state_dim or spec.observation_dim
        return_network = ReturnNetwork(given, spec.sequence_shape[1], spec.return_layers, spec.return_members)
        if spec.plans:
            dynamics = InverseDynamics(spec.state_dim, spec.action_dim, spec.dynamics_layers)
            normalizer = PlanNormalizer(spec.state_dim, spec.action_dim, spec.horizon, spec.points)
            from ractd.planner import Planner  # which is a Policy

            policy: Policy = Planner(spec, network, return_network, normalizer, dynamics)
        else:
            policy = Policy(spec, network, return_network, Normalizer(spec.observation_dim, spec.action_dim))
        if "normalizer.observation_low" in tensors:  # only where the data had outliers
            policy.normalizer.limit(*torch.zeros(2, spec.observation_dim))
        load_weights(policy, tensors, directory / WEIGHTS)
        policy.to(device)._keep(Kept(network))
        policy.model()
        return policy


class Acting:
    """A policy in episodes that run side by side: the noise of each one's plans is its own, see `EpisodeNoise`."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.noise = policy, policy.episode_noise()

    def in_episodes(self, observations: NDArray[np.float32], context: Context, /) -> NDArray[np.float32]:
        """Return actions `[B, c, A]` for observations `[B, h, O]` of the environment."""
        batch, _ = self.policy._batch(self.policy.seen(observations))
        return self.policy._actions(batch, self.noise.at(context.episodes, context.plan).to(batch.device))
