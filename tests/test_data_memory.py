"""A large file loads, and gives batches, in less than twice its own size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

PEAK = """
import sys, torch, numpy as np, h5py
from ractd.data import load_dataset, return_to_go
from ractd.data.windows import Windows
def peak():
    # Not getrusage: its maximum includes the parent's memory at the time of the fork.
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))
base = peak()
data = load_dataset(sys.argv[1])
data.statistics(), data.fingerprint
returns = return_to_go(data, 0.99, -100.0)
windows = Windows(data, 16, 2)
generator = torch.Generator().manual_seed(0)
for _ in range(20):
    windows.gather(windows.draw(256, generator))
size = sum(a.nbytes for a in (data.observations, data.actions, data.rewards, data.terminals, data.timeouts))
print(size, peak() - base)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc to measure memory")
@pytest.mark.parametrize(
    ("rows", "obs", "act", "kind"),
    [
        (1_000_000, 11, 3, "float32 hdf5"),
        pytest.param(500_000, 24, 8, "float64 npz", marks=pytest.mark.slow),
        pytest.param(10_000_000, 11, 3, "float32 hdf5", marks=pytest.mark.slow),
    ],
)
def test_peak_memory_is_under_twice_the_data(tmp_path: Path, rows: int, obs: int, act: int, kind: str) -> None:
    dtype = np.dtype(kind.split()[0])
    rng = np.random.default_rng(0)
    ends = np.zeros(rows, bool)
    ends[999::1000] = True
    fields: dict[str, Any] = {
        "observations": np.broadcast_to(rng.normal(size=(1, obs)).astype(dtype), (rows, obs)),
        "actions": np.broadcast_to(rng.uniform(-1, 1, (1, act)).astype(dtype), (rows, act)),
        "rewards": rng.normal(size=rows).astype(dtype),
        "terminals": ends,
        "timeouts": ~ends & False,
    }
    path = tmp_path / ("big.hdf5" if "hdf5" in kind else "big.npz")
    if "hdf5" in kind:
        with h5py.File(path, "w") as file:
            for name, values in fields.items():
                file.create_dataset(name, data=values, chunks=(16_384, *values.shape[1:]))
    else:
        np.savez(path, **fields)
    run = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    size, peak = map(int, run.stdout.split())
    assert size == rows * (4 * (obs + act + 1) + 2)
    # 32 MiB for the libraries' own buffers, which do not grow with the data.
    assert 0.9 * size < peak < 2 * size + (32 << 20)
    print(f"{kind}: {peak / size:.2f} times the data")
