"""What the server needs of a policy, and the policies that fulfil it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ractd.errors import RactdError

if TYPE_CHECKING:
    from ractd.policy import Policy

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
    noise_shape: tuple[int, int, int, int]
    """Standard normal draws of one request: `(draws, N, c, A)`."""

    def check(self, observation: FloatArray) -> str | None:
        """Return a warning about a finite observation `[h, O]`, or `None`; raises `RactdError` to refuse it."""
        ...

    def sample(self, observations: FloatArray, noise: FloatArray) -> FloatArray:
        """Return `[B, c, A]` for observations `[B, h, O]` and noise `[B, draws, N, c, A]`; called from one thread."""
        ...


Load = Callable[[], ServedPolicy]
"""Opens the policy anew; raises `RactdError` where it can't be."""


class TorchPolicy:
    """A PyTorch policy as the server takes it."""

    def __init__(self, policy: Policy) -> None:
        from ractd.settings import to_json

        spec = policy.spec
        self.policy = policy
        self.observation_shape = (spec.history, spec.observation_dim)
        self.action_shape = (spec.horizon, spec.action_dim)
        self.noise_shape = (spec.sampling.draws(spec.steps), spec.candidates, *spec.sequence_shape)
        sha = hashlib.sha256(json.dumps(to_json(spec), sort_keys=True).encode())
        for name, tensor in sorted(policy._tensors().items()):
            sha.update(name.encode())
            sha.update(tensor.cpu().contiguous().numpy().data)
        self.identity = sha.hexdigest()
        low, high = policy.normalizer.action_low, policy.normalizer.action_high
        self.contract = served_contract(self, low.tolist(), high.tolist()) | {
            "environment": spec.env_id,
            "environment_settings": to_json(spec.env_settings),
            "sampling": {
                "steps": spec.steps,
                "candidates": spec.candidates,
                "network_evaluations": policy.evaluations,
            },
        }

    def check(self, observation: FloatArray) -> None:
        """See `ServedPolicy.check`; a PyTorch policy doesn't know its data's range."""

    def sample(self, observations: FloatArray, noise: FloatArray) -> FloatArray:
        """See `ServedPolicy.sample`."""
        import torch

        device = self.policy.normalizer.action_low.device
        with torch.inference_mode():
            draws = torch.from_numpy(noise).to(device).transpose(0, 1).flatten(1, 2)
            return self.policy.sample(torch.from_numpy(observations).to(device), draws).cpu().numpy()  # type: ignore[no-any-return]


def torch_policy(path: Path, device: str) -> ServedPolicy:
    """Open a run's student, or a policy directory, with PyTorch.

    Raises `RactdError` as `Policy.load` does, and for a device that isn't there.
    """
    import torch

    from ractd.policy import Policy

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RactdError(f"--device {device} can't be used: {str(error).splitlines()[0]}") from None
    return TorchPolicy(Policy.load(path, device))


def request_shape(policy: ServedPolicy) -> list[int]:
    """Return the shape of a client's observation: `[O]`, or `[h, O]` with a history."""
    history, size = policy.observation_shape
    return [size] if history == 1 else [history, size]


def served_contract(policy: ServedPolicy, low: list[float], high: list[float]) -> dict[str, Any]:
    """Return what every served policy tells its clients: its identity, and arrays by their names in messages."""
    return {
        "identity": policy.identity,
        "observation": {"shape": request_shape(policy), "dtype": "float32"},
        "actions": {"shape": list(policy.action_shape), "dtype": "float32", "low": low, "high": high},
    }


def checked(policy: ServedPolicy, like: ServedPolicy | None, largest_batch: int) -> ServedPolicy:
    """Return the policy after it has run once at batch 1 and at the largest batch, so that no client waits for that.

    Raises `RactdError` if it fails or returns something else than finite `[B, c, A]`, or if its observations or actions
    have other shapes than those of `like`, whose clients are connected.
    """
    for name in ("observation_shape", "action_shape"):
        if like is not None and getattr(policy, name) != getattr(like, name):
            raise RactdError(
                f"the new policy's {name.replace('_', ' ')} is {list(getattr(policy, name))}, "
                f"the connected clients' is {list(getattr(like, name))}; start another server for it"
            )
    for batch in (1, largest_batch):
        noise = np.random.default_rng(0).standard_normal((batch, *policy.noise_shape), np.float32)
        try:
            actions = policy.sample(np.zeros((batch, *policy.observation_shape), np.float32), noise)
        except Exception as error:
            raise RactdError(f"the policy failed on a batch of {batch}: {type(error).__name__}: {error}") from error
        if actions.shape != (batch, *policy.action_shape) or not np.isfinite(actions).all():
            raise RactdError(f"the policy gave no finite actions for a batch of {batch} (shape {list(actions.shape)})")
    return policy
