"""How many threads a CPU's networks are worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ractd.networks import Network
from ractd.networks.mlp import MLP

WIDE = 1024
"""Units of a layer from which its matrices are worth dividing."""


@contextmanager
def threads_for(*networks: Network | None) -> Iterator[None]:
    """Compute with one thread where every network is a narrow MLP, else with as many as PyTorch was given.

    A second thread gains a narrow MLP little on an idle machine. On a busy one it costs up to fifty times: threads wait for
    each other at the end of every small matrix, and one of them waits for its core.
    """
    before = torch.get_num_threads()
    if all(network is None or (isinstance(network, MLP) and network.width < WIDE) for network in networks):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
