"""An exported policy as the server takes it: ONNX Runtime or OpenVINO, no PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ractd.errors import RactdError
from ractd.serve.served import FloatArray, ServedPolicy, identity_of, served_contract
from ractd_runtime import Policy
from ractd_runtime.past import Past


class ExportedPolicy:
    """A policy of `ractd_runtime` as the server takes it."""

    def __init__(self, policy: Policy) -> None:
        c = policy.contract
        self.policy = policy
        self.observation_shape = (c.history, c.observation_dim)
        self.action_shape = (c.horizon, c.action_dim)
        self.noise_shape = c.noise_shape
        self.past_steps = c.past_steps
        self.identity = identity_of(c.content, c.graph)
        actions = c.content["outputs"]["actions"]
        self.contract = served_contract(self, actions.get("low"), actions.get("high")) | {"policy": c.content}

    def check(self, observation: FloatArray) -> str | None:
        """See `ServedPolicy.check`; whether it is an error or a warning stands in the policy's own contract."""
        c = self.policy.contract
        inside = (observation >= c.observation_low) & (observation <= c.observation_high)
        answer = c.checks["out_of_range"]
        if answer == "ignore" or inside.all():
            return None
        outside = ~inside
        i = int(np.flatnonzero(outside.any(0))[0])
        value = observation[:, i][outside[:, i]][0]
        message = f"observation[{i}] is {value:g}, far outside the training data"
        message += f" (limits {c.observation_low[i]:g} to {c.observation_high[i]:g})"
        if answer == "error":
            raise RactdError(message)
        return message

    def sample(self, observations: FloatArray, noise: FloatArray, past: Past | None) -> FloatArray:
        """See `ServedPolicy.sample`."""
        return self.policy.sample(observations, noise, past)  # type: ignore[no-any-return]


def exported_policy(path: Path) -> ServedPolicy:
    """Open what `ractd export` wrote; raises `RactdError` as `ractd_runtime.Policy.load` does."""
    return ExportedPolicy(Policy.load(path))
