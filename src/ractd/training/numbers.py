"""What the numbers of a training depend on besides its settings: the processor, PyTorch, and the precision of products."""

from __future__ import annotations

import torch

from ractd.processors import processor_name
from ractd.settings import Precision


def in_bf16(precision: Precision, device: torch.device) -> bool:
    """Return whether losses are computed in bf16 on a device."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bf16"


def computed_by(precision: Precision, device: torch.device) -> dict[str, str]:
    """Return what has to stay the same for two runs of one seed to be alike bit for bit."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return {
        "processor": f"{name} ({torch.backends.cpu.get_cpu_capability()})",
        "torch": torch.__version__,
        "precision": "bf16" if in_bf16(precision, device) else "fp32",
    }
