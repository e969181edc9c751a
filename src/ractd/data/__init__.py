"""Datasets: a string in, contiguous arrays and episode ends out. Importing this imports neither torch nor h5py."""

from __future__ import annotations

from ractd.data.dataset import OfflineDataset
from ractd.data.formats.hdf5 import write_hdf5
from ractd.data.inspect import summarize
from ractd.data.ranges import Statistics
from ractd.data.registry import list_datasets, load_dataset
from ractd.data.returns import return_to_go

__all__ = ["OfflineDataset", "Statistics", "list_datasets", "load_dataset", "return_to_go", "summarize", "write_hdf5"]
