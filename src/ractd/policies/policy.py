"""The policy: a kind of sequence, a network that makes such sequences, a sampler, and perhaps a critic that ranks them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ractd.critics import Critic
from ractd.envs.context import Context
from ractd.envs.environments import Environment
from ractd.errors import RactdError
from ractd.networks import Network
from ractd.networks.fixed_time import FoldsTime
from ractd.networks.tensors import load_weights
from ractd.policies import folding
from ractd.policies.files import read_policy, save_policy
from ractd.policies.noise import EpisodeNoise
from ractd.policies.sampling import Sampling
from ractd.registry import find
from ractd.sequences import Sequence

FEW = 8
"""Of a student of so many steps what its times decide is folded; for more the copies are not worth their memory."""


class Policy(nn.Module):
    """A policy that acts on raw observations and returns raw actions.

    `act` and `act_chunk` take one observation `[O]`, a batch `[B, O]`, or histories `[h, O]`, `[B, h, O]` where h > 1.
    Same seed, same actions: noise comes from the policy's own generator, see `reset`. It acts with what its network's weights are
    at the moment, unless it is folded: see `fold`.
    """

    def __init__(
        self,
        sequence: Sequence,
        network: nn.Module,
        sampling: Sampling,
        *,
        network_settings: Network,
        critic: Critic | None = None,
        environment: Environment | None = None,
        method: str = "ractd",
        provenance: dict[str, Any] | None = None,
    ) -> None:
        """Put a policy together.

        Args:
            sequence: What x is, with the data's statistics.
            network: Makes x, as `sampling.kind` says.
            sampling: How it samples.
            network_settings: What `network` was built of; they go into the policy's file.
            critic: Ranks candidates and estimates returns; None for a policy that can do neither.
            environment: Where it is scored, None where its data names none.
            method: The name of the method that made it.
            provenance: Where it comes from: dataset, training, scores, versions.
        """
        super().__init__()
        self.sequence, self.network, self.critic = sequence, network, critic
        self.sampling, self.network_settings = sampling, network_settings
        self.environment, self.method, self.provenance = environment, method, provenance or {}
        self.generator = torch.Generator().manual_seed(0)
        self._folded: list[nn.Module] | None = None
        # Not the critic: a method may play its policy while it still trains the critic.
        self.network.requires_grad_(False)
        self.sequence.requires_grad_(False)
        self.eval()

    @property
    def evaluations(self) -> int:
        """Network evaluations for one action sequence (NFE)."""
        return self.sampling.evaluations

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.sequence.normalizer.action_low.device

    def configured(
        self, *, sampler: str | None = None, steps: int | None = None, candidates: int | None = None
    ) -> Self:
        """Return the same policy with another sampler, steps or candidates; raises `RactdError` for what it can't do.

        `sampler` is a name in `ractd.diffusion.samplers.SAMPLERS`, of those for this kind of policy. Both have the same networks.
        """
        sampling = self.sampling.configured(sampler, steps, candidates)
        if sampling.candidates > 1:
            self.need_critic(f"candidates is {sampling.candidates}, expected 1")
        policy = type(self)(
            self.sequence,
            self.network,
            sampling,
            network_settings=self.network_settings,
            critic=self.critic,
            environment=self.environment,
            method=self.method,
            provenance=self.provenance,
        )
        return policy.fold() if self._folded is not None else policy

    def need_critic(self, what: str) -> Critic:
        """Return the critic; raises `RactdError`, which says `what` it is needed for, where there is none."""
        if self.critic is None:
            raise RactdError(f"{what}: the policy has no critic: its data has no rewards, or its method learns none")
        return self.critic

    def reset(self, seed: int = 0) -> Self:
        """Restart the noise from a seed."""
        self.generator.manual_seed(seed)
        return self

    def draw_noise(self, batch: int) -> Tensor:
        """Return the standard normal draws of one call, `[draws, batch * candidates, n, D]`."""
        shape = (self.sampling.draws, batch * self.sampling.candidates, *self.sequence.shape)
        return torch.randn(shape, generator=self.generator).to(self.device)

    def episode_noise(self) -> EpisodeNoise:
        """Return the draws of episodes side by side, of the seed that the policy was last reset to."""
        sample = (self.sampling.candidates, *self.sequence.shape)
        return EpisodeNoise(self.generator.initial_seed(), self.sampling.draws, sample)

    def fold(self) -> Self:
        """Compute once what depends on a few-step student's times alone, and act faster from now on; returns the policy itself.

        It then acts with the weights of this moment: after a change of the network's weights call it again. `load` returns a folded
        policy; loading weights and moving it to another device or type fold it anew.
        """
        folds = self.sampling.kind == "student" and self.sampling.steps <= FEW and isinstance(self.network, FoldsTime)
        with torch.inference_mode(False):
            self._folded = folding.denoisers(self.sampling, self.network) if folds else None
        return self

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """See `torch.nn.Module.load_state_dict`; a folded policy is folded anew."""
        result = super().load_state_dict(*arguments, **options)
        if self._folded is not None:
            self.fold()
        return result

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        return self if self._folded is None else self.fold()

    def model(self) -> Callable[..., Tensor]:
        """Return what the policy's sampler takes, for one sample."""
        if self._folded is not None:
            return folding.model_of(self.sampling, self._folded)
        return self.sampling.model(self.network)

    def make_sequence(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Return sequences x `[B, n, D]` for conditions `[B, K]`, all normalised, a pure function of both inputs.

        With N candidates, `noise` has N rows per condition and the sequence that the critic values most is returned.
        """
        N = self.sampling.candidates
        if N > 1:
            condition = condition.repeat_interleave(N, 0)
        x = self.sampling.sample(self.model(), noise, condition)
        if N > 1 and self.critic is not None:
            values = self.critic.value(condition, self.sequence.decode(x, condition)).view(-1, N)
            x = x.unflatten(0, (-1, N))
            x = x[torch.arange(x.shape[0], device=x.device), values.argmax(1)]
        return x

    def outputs(self, observations: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Return all that the sequences for raw observations `[B, h, O]` stand for, `actions` first: see `Sequence.outputs`."""
        return self.sequence.outputs(self.make_sequence(self.sequence.condition(observations), noise), observations)

    def sample(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Return raw action sequences `[B, c, A]` for raw observations `[B, h, O]`, a pure function of both inputs."""
        return self.sequence.to_actions(self.make_sequence(self.sequence.condition(observations), noise), observations)

    def act_chunk(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """Return the next c actions, `[c, A]` or `[B, c, A]`; raises `RactdError` for a wrong shape or NaN."""
        batch, single = self.batch_of(observation)
        actions = self.sample_array(batch, self.draw_noise(len(batch)))
        return actions[0] if single else actions  # type: ignore[no-any-return]

    @torch.inference_mode()
    def sample_array(self, observations: Tensor, noise: Tensor) -> NDArray[np.float32]:
        """Return `sample` as an array."""
        return self.sample(observations, noise).cpu().numpy()  # type: ignore[no-any-return]

    def act(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """Return the action to execute now, `[A]` or `[B, A]`; raises `RactdError` for a wrong shape or NaN."""
        return self.act_chunk(observation)[..., 0, :]  # type: ignore[no-any-return]

    def observe(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what `act_chunk` takes, of an environment's observations `[B, h, O]`."""
        return observations

    def acting(self) -> ActsInEpisodes:
        """Return what `ractd.envs.evaluate` runs, with the noise of the seed that the policy was last reset to."""
        return ActsInEpisodes(self)

    @torch.inference_mode()
    def estimate_return(self, observation: NDArray[Any], action: NDArray[Any]) -> NDArray[np.float32]:
        """Return the critic's estimate for actions `[B, A]` (a plan's states `[B, c, S]`) at observations `[B, O]`, in data units.

        Raises `RactdError` for a policy without a critic, and for numbers that are not finite or of another shape.
        """
        critic = self.need_critic("there is no estimate of returns")
        inputs, outputs = self.sequence.observation_dim, self.sequence.entries[1]
        given, taken = np.asarray(observation, np.float32), np.asarray(action, np.float32)
        if given.ndim != 2 or given.shape[1] != inputs or taken.shape[:1] != given.shape[:1]:
            raise RactdError(
                f"observations have shape {list(given.shape)}, expected ['B', {inputs}], a row for each action"
            )
        if taken.ndim not in (2, 3) or taken.shape[-1] != outputs:
            raise RactdError(f"actions have shape {list(taken.shape)}, expected ['B', {outputs}], or a plan's")
        if not (np.isfinite(given).all() and np.isfinite(taken).all()):
            raise RactdError("observations or actions are not finite; an estimate needs numbers")
        observations, raw = torch.from_numpy(given).to(self.device), torch.from_numpy(taken).to(self.device)
        condition = self.sequence.condition(observations.unsqueeze(1))
        entries = self.sequence.scaled(raw if raw.ndim > 2 else raw.unsqueeze(1))
        return critic.data_units(critic.value(condition, entries)).cpu().numpy()  # type: ignore[no-any-return]

    def batch_of(self, observation: NDArray[Any]) -> tuple[Tensor, bool]:
        """Return observations as a batch `[B, h, O]`, and whether it was a single one; raises `RactdError` for others."""
        sequence = self.sequence
        try:
            array = np.array(observation, dtype=np.float32, order="C")
        except (TypeError, ValueError):
            what = (
                f"a dict of {', '.join(map(str, observation))}"
                if isinstance(observation, dict)
                else "no array of numbers"
            )
            raise RactdError(
                f"observation is {what}, expected an array of {sequence.observation_dim} numbers, in the order of the data's"
            ) from None
        full = (sequence.history, sequence.observation_dim)
        one = full[1:] if sequence.history == 1 else full
        single = array.shape == one
        if not single and array.shape[1:] not in (one, full):
            raise RactdError(
                f"observation has shape {list(array.shape)}, expected {list(one)} or a batch {['B', *one]}"
            )
        if not np.isfinite(array).all():
            raise RactdError("observation holds NaN or infinite values")
        return torch.from_numpy(array).to(self.device).reshape(-1, *full), single

    def save(self, directory: str | Path) -> Path:
        """Write `policy.safetensors` and `config.json` into a directory, each by atomic rename."""
        return save_policy(self, Path(directory))

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Policy:
        """Open a policy directory, or a run directory (its main policy), folded: see `fold`.

        No code from the files is run. Raises `RactdError` for a missing, damaged, older or newer file, or weights that don't fit.
        """
        parts, tensors, where = read_policy(Path(path))
        policy = policy_class(parts["sequence"])(**parts)
        load_weights(policy, tensors, where)
        return policy.to(device).fold()


POLICIES = {"states": "ractd.policies.planner:Planner"}
"""Where policies that can do more than act are found, by the kind of their sequences."""


def policy_class(sequence: Sequence) -> type[Policy]:
    """Return the class of policies that make a kind of sequence."""
    return find(POLICIES, sequence.kind, "planner") if sequence.kind in POLICIES else Policy


class ActsInEpisodes:
    """A policy in episodes that run side by side: the noise of each one's plans is its own, see `EpisodeNoise`."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.noise = policy, policy.episode_noise()

    def in_episodes(self, observations: NDArray[np.float32], context: Context, /) -> NDArray[np.float32]:
        """Return actions `[B, c, A]` for observations `[B, h, O]` of the environment."""
        batch, _ = self.policy.batch_of(self.policy.observe(observations))
        return self.policy.sample_array(batch, self.noise.at(context.episodes, context.plan).to(batch.device))
