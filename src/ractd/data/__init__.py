"""Datasets: a string in, contiguous arrays and episode ends out. Importing this imports neither torch nor h5py."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ractd.data.dataset import OfflineDataset
    from ractd.data.formats.hdf5 import write_hdf5
    from ractd.data.inspect import summarize
    from ractd.data.ranges import Statistics
    from ractd.data.registry import list_datasets, load_dataset
    from ractd.data.returns import return_to_go

__all__ = ["OfflineDataset", "Statistics", "list_datasets", "load_dataset", "return_to_go", "summarize", "write_hdf5"]

_HOMES = {
    "OfflineDataset": "dataset",
    "Statistics": "ranges",
    "list_datasets": "registry",
    "load_dataset": "registry",
    "return_to_go": "returns",
    "summarize": "inspect",
    "write_hdf5": "formats.hdf5",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"ractd.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ractd.data' has no attribute {name!r}")
