"""The runtime of exported policies, `ractd_runtime`, under ractd's name; it imports neither torch nor the rest of ractd."""

from ractd_runtime.contract import Contract
from ractd_runtime.horizon import History, RecedingHorizon
from ractd_runtime.observation import ObservationWarning
from ractd_runtime.policy import Policy

__all__ = ["Contract", "History", "ObservationWarning", "Policy", "RecedingHorizon"]
