"""How many threads a CPU's networks are worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ractd.networks import Network


@contextmanager
def threads_for(*networks: Network | None) -> Iterator[None]:
    """Compute with one thread where no network is worth a second, else with as many as PyTorch was given.

    A second thread gains a narrow MLP little on an idle machine. On a busy one it costs up to fifty times: threads wait for
    each other at the end of every small matrix, and one of them waits for its core.
    """
    before = torch.get_num_threads()
    if not any(network is not None and network.many_threads for network in networks):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
