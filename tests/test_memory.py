"""Memory that a training step frees is there for the next one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from conftest import environment

MEASURE = """
import resource
import torch
from ractd.commands.memory import keep_freed_memory
from ractd.sequences.dynamics import InverseDynamics

def cleared():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize() / 2**20

keep_freed_memory()
network, states = InverseDynamics(4, 2, (64, 64)), torch.randn(65_536, 4, requires_grad=True)
for step in range(20):
    if step == 10:
        before = cleared()
    network(states, states + 1).sum().backward()
    states.grad = None
print(cleared() - before)
"""
"""Prints the megabytes that the system clears for ten steps, each of which makes tensors of 16 MB."""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to")
def test_a_step_finds_the_memory_of_the_last_one() -> None:
    words = [sys.executable, "-c", MEASURE]
    answer = subprocess.run(words, capture_output=True, text=True, check=True, env=environment())
    assert float(answer.stdout) < 100
