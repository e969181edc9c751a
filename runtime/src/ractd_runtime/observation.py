"""Is this an observation the policy was trained for? Checked on every call, in the time of four small array operations."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd_runtime.contract import Contract
from ractd_runtime.errors import RactdError

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class ObservationWarning(UserWarning):
    """An observation that the policy answers, but was not trained for."""


class ObservationCheck:
    """Checks and copies observations; warns once for each dimension until `reset` and counts every one."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._low, self._high = contract.observation_low, contract.observation_high
        self._one, self._full = contract.observation_shape, (contract.history, contract.observation_dim)
        self.count = 0
        """Calls since `reset` whose observations were far outside the data's range or not finite."""
        self._said: set[int] = set()

    def reset(self) -> None:
        """Forget what was counted and said."""
        self.count = 0
        self._said.clear()

    def array(self, observation: Any) -> tuple[NDArray[Any], bool]:
        """Return an observation as an array `[B, h, O]` and whether it was a single one.

        Raises `RactdError` for another shape, or another dtype than float32 and float64.
        """
        try:
            array = np.asarray(observation)
        except (TypeError, ValueError, RuntimeError):
            what = type(observation).__name__
            raise RactdError(f"observation is no array of numbers but {what}, expected float32 or float64") from None
        if array.dtype not in _DTYPES:
            raise RactdError(f"observation has dtype {array.dtype}, expected float32 or float64")
        if array.shape == self._one:
            return array.reshape(1, *self._full), True
        if array.ndim and len(array) and array.shape[1:] in (self._one, self._full):
            return array.reshape(-1, *self._full), False
        raise RactdError(
            f"observation has shape {list(array.shape)}, expected {list(self._one)} or a batch {['B', *self._one]}"
        )

    def __call__(self, observation: NDArray[np.float32]) -> None:
        """Check values `[B, h, O]`; raises `RactdError` or warns, as the contract says."""
        # NaN fails every comparison: two of them find all that can be wrong.
        if not ((observation >= self._low) & (observation <= self._high)).all():
            self._answer(observation)

    def _answer(self, observation: NDArray[np.float32]) -> None:
        before, finite = self.count, np.isfinite(observation)
        if not finite.all():
            self._tell(
                "not_finite", np.flatnonzero(~finite.all(axis=(0, 1))), "observation holds NaN or infinite values"
            )
        outside = finite & ((observation < self._low) | (observation > self._high))
        columns = np.flatnonzero(outside.any(axis=(0, 1)))
        if len(columns):
            i = int(columns[0])
            value = float(observation[..., i][outside[..., i]][0])
            self._tell(
                "out_of_range",
                columns,
                f"observation[{i}] is {value:g}, far outside the training data (limits {self._low[i]:g} to {self._high[i]:g})",
            )
        self.count = min(self.count, before + 1)

    def _tell(self, check: str, columns: NDArray[Any], message: str) -> None:
        answer = self._contract.checks[check]
        if answer == "error":
            raise RactdError(message)
        if answer == "warning":
            self.count += 1
            new = set(columns.tolist()) - self._said
            if new:
                self._said |= new
                warnings.warn(f"{message}; its actions are a guess", ObservationWarning, stacklevel=_outside())


def _outside() -> int:
    """Return the stack level, seen from the caller, of who called this package, in whichever way."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        frame, level = frame.f_back, level + 1
    return level
