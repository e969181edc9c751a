"""What the server needs of a policy, and the policies that fulfil it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ractd.errors import RactdError
from ractd_runtime.past import PAST_ACTIONS, PAST_REWARDS, Past

if TYPE_CHECKING:
    from ractd.policies import Policy

FloatArray = NDArray[np.float32]


class ServedPolicy(Protocol):
    """A policy as a pure function of observations and noise, and how to describe it.

    B requests, h observations of history, O their size, c actions of size A, N candidates.
    """

    contract: dict[str, Any]
    """What it takes and gives, as JSON; sent to every client."""
    identity: str
    """Changes whenever the policy does."""
    observation_shape: tuple[int, int]
    """`(h, O)`."""
    action_shape: tuple[int, int]
    """`(c, A)`."""
    noise_shape: tuple[int, ...]
    """Standard normal draws of one request: (draws, N, c, A); draws is 0 for a policy without noise."""
    past_steps: int
    """Steps of an episode whose actions and rewards it needs to know (K), 0 for none."""

    def check(self, observation: FloatArray) -> str | None:
        """Return a warning about a finite observation [h, O], or None; raises `RactdError` to refuse it."""
        ...

    def sample(self, observations: FloatArray, noise: FloatArray, past: Past | None) -> FloatArray:
        """Return actions [B, c, A] for observations [B, h, O] and noise [B, draws, N, c, A]; called from one thread.

        `past` is there where `past_steps` isn't 0.
        """
        ...


Load = Callable[[], ServedPolicy]
"""Opens the policy anew; raises `RactdError` where it can't be."""


class TorchPolicy:
    """A PyTorch policy as the server takes it."""

    past_steps = 0

    def __init__(self, policy: Policy) -> None:
        from ractd.policies.files import describe_policy

        sequence, sampling, description = policy.sequence, policy.sampling, describe_policy(policy)
        self.policy = policy
        self.observation_shape = (sequence.history, sequence.observation_dim)
        self.action_shape = (sequence.horizon, sequence.action_dim)
        self.noise_shape: tuple[int, ...] = (sampling.draws, sampling.candidates, *sequence.shape)
        weights = {name: tensor.cpu().contiguous().numpy().data for name, tensor in policy.state_dict().items()}
        self.identity = identity_of(description, weights)
        low, high = sequence.normalizer.action_low, sequence.normalizer.action_high
        self.contract = served_contract(self, low.tolist(), high.tolist()) | {
            "environment": description["environment"] and description["environment"]["env_id"],
            "environment_settings": description["environment"] and description["environment"]["env_settings"],
            "sampling": {
                "steps": sampling.steps,
                "candidates": sampling.candidates,
                "network_evaluations": policy.evaluations,
            },
        }

    def check(self, observation: FloatArray) -> None:
        """See `ServedPolicy.check`; a PyTorch policy doesn't know its data's range."""

    def sample(self, observations: FloatArray, noise: FloatArray, past: Past | None) -> FloatArray:
        """See `ServedPolicy.sample`."""
        import torch

        observed, drawn = (torch.from_numpy(array).to(self.policy.device) for array in (observations, noise))
        return self.policy.sample_array(observed, drawn.transpose(0, 1).flatten(1, 2))


def torch_policy(path: Path, device: str) -> ServedPolicy:
    """Open a run's main policy, or a policy directory, with PyTorch.

    Raises `RactdError` as `Policy.load` does, and for a device that isn't there.
    """
    import torch

    from ractd.policies import Policy

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RactdError(f"--device {device} can't be used: {str(error).splitlines()[0]}") from None
    return TorchPolicy(Policy.load(path, device))


def identity_of(description: dict[str, Any], parts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a policy: of what describes it, and of its files or weights by name."""
    sha = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(parts):
        sha.update(name.encode())
        sha.update(parts[name])
    return sha.hexdigest()


def request_shape(policy: ServedPolicy) -> list[int]:
    """Return the shape of a client's observation: `[O]`, or `[h, O]` with a history."""
    history, size = policy.observation_shape
    return [size] if history == 1 else [history, size]


def served_contract(policy: ServedPolicy, low: list[float], high: list[float]) -> dict[str, Any]:
    """Return what every served policy tells its clients: its identity, and arrays by their names in messages."""
    past: dict[str, Any] = {}
    if policy.past_steps:
        past = {PAST_ACTIONS: {"shape": ["t", policy.action_shape[1]]}, PAST_REWARDS: {"shape": ["t"]}}
    return {
        "identity": policy.identity,
        "observation": {"shape": request_shape(policy), "dtype": "float32"},
        **past,
        "actions": {"shape": list(policy.action_shape), "dtype": "float32", "low": low, "high": high},
    }


def checked(policy: ServedPolicy, connected: ServedPolicy | None, largest_batch: int) -> ServedPolicy:
    """Return the policy after it has run once at batch 1 and at the largest batch, so that no client waits for that.

    `connected` is the policy whose clients are connected, None where there are none yet.

    Raises:
        RactdError: It fails or returns something else than finite [B, c, A]; or its observations or actions have other
            shapes than those of `connected`, or it needs another past.
    """
    if connected is not None:
        _check_same(policy, connected)
    for batch in (1, largest_batch):
        noise = np.random.default_rng(0).standard_normal((batch, *policy.noise_shape), np.float32)
        past, A = None, policy.action_shape[1]
        if policy.past_steps:
            past = Past.of(np.zeros((batch, 1, A)), np.zeros((batch, 1)), policy.past_steps, A, batch)
        try:
            actions = policy.sample(np.zeros((batch, *policy.observation_shape), np.float32), noise, past)
        except Exception as error:
            raise RactdError(f"the policy failed on a batch of {batch}: {type(error).__name__}: {error}") from error
        if actions.shape != (batch, *policy.action_shape) or not np.isfinite(actions).all():
            raise RactdError(f"the policy gave no finite actions for a batch of {batch} (shape {list(actions.shape)})")
    return policy


def _check_same(policy: ServedPolicy, connected: ServedPolicy) -> None:
    """Raise `RactdError` where clients of one policy can't go on with another."""
    takes = {
        "observation shape": (list(policy.observation_shape), list(connected.observation_shape)),
        "action shape": (list(policy.action_shape), list(connected.action_shape)),
        "number of past steps": (policy.past_steps, connected.past_steps),
    }
    for what, (new, old) in takes.items():
        if new != old:
            raise RactdError(
                f"the new policy's {what} is {new}, the connected clients' is {old}; start another server for it"
            )
