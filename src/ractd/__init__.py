"""ractd: from a logged dataset to a policy that acts in one network evaluation (RACTD)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ractd.data import OfflineDataset, load_dataset
    from ractd.envs.validation import validate
    from ractd.errors import RactdError
    from ractd.policies import Policy
    from ractd.runs.train import train

__version__ = "0.1.0"
__all__ = ["OfflineDataset", "Policy", "RactdError", "__version__", "load_dataset", "train", "validate"]

_HOMES = {
    "OfflineDataset": "ractd.data",
    "Policy": "ractd.policies",
    "RactdError": "ractd.errors",
    "load_dataset": "ractd.data",
    "train": "ractd.runs.train",
    "validate": "ractd.envs.validation",
}


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import; `import ractd` must not.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ractd' has no attribute {name!r}")
