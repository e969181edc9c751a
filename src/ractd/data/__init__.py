"""Datasets: a string in, contiguous arrays and episode ends out. Importing this imports neither torch nor h5py."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ractd.data.dataset import OfflineDataset
    from ractd.data.inspect import summarize
    from ractd.data.ranges import Statistics
    from ractd.data.registry import list_datasets, load_dataset
    from ractd.data.returns import return_to_go
    from ractd.data.validation import validate

__all__ = ["OfflineDataset", "Statistics", "list_datasets", "load_dataset", "return_to_go", "summarize", "validate"]

_HOMES = {
    "OfflineDataset": "dataset",
    "Statistics": "ranges",
    "list_datasets": "registry",
    "load_dataset": "registry",
    "return_to_go": "returns",
    "summarize": "inspect",
    "validate": "validation",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"ractd.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ractd.data' has no attribute {name!r}")
