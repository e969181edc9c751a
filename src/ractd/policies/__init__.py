"""The product: observation in, actions out; made of parts, and saved as safetensors and JSON that can run no code when opened."""

from __future__ import annotations

from ractd.policies.planner import Planner
from ractd.policies.policy import Policy
from ractd.policies.sampling import Sampling

__all__ = ["Planner", "Policy", "Sampling"]
