"""ractd: from a logged dataset to a policy that acts in one network evaluation (RACTD).

import ractd

result = ractd.train("hopper-mixed")  # trains, or goes on, or shows what is there
policy = ractd.Policy.load("runs/hopper-mixed-s0")
action = policy.act(observation)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ractd.commands.compare import compare
    from ractd.data import OfflineDataset, load_dataset
    from ractd.envs.validation import validate
    from ractd.errors import RactdError
    from ractd.methods.presets import settings_of
    from ractd.policies import Policy
    from ractd.runs.rows import Result
    from ractd.runs.train import train

__version__ = "0.2.0.dev0"
_HOMES = {
    "OfflineDataset": "ractd.data",
    "Policy": "ractd.policies",
    "RactdError": "ractd.errors",
    "Result": "ractd.runs.rows",
    "compare": "ractd.commands.compare",
    "load_dataset": "ractd.data",
    "settings_of": "ractd.methods.presets",
    "train": "ractd.runs.train",
    "validate": "ractd.envs.validation",
}
__all__ = [
    "OfflineDataset",
    "Policy",
    "RactdError",
    "Result",
    "__version__",
    "compare",
    "load_dataset",
    "settings_of",
    "train",
    "validate",
]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import; `import ractd` must not.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ractd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
