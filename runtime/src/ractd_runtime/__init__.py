"""Runs an exported ractd policy: numpy and ONNX Runtime, no PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = [
    "Contract",
    "History",
    "ObservationWarning",
    "Past",
    "Policy",
    "RactdError",
    "RecedingHorizon",
    "__version__",
]

_HOMES = {
    "Contract": "ractd_runtime.contract",
    "History": "ractd_runtime.horizon",
    "ObservationWarning": "ractd_runtime.observation",
    "Past": "ractd_runtime.past",
    "Policy": "ractd_runtime.policy",
    "RactdError": "ractd_runtime.errors",
    "RecedingHorizon": "ractd_runtime.horizon",
}


def __getattr__(name: str) -> Any:
    # numpy takes longer to import than everything here; who only wants the error class doesn't pay for it.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ractd_runtime' has no attribute {name!r}")
