"""Environments: vectorised stepping, evaluation, D4RL scores. Importing it imports no simulator and no torch."""

from __future__ import annotations

from ractd.envs.backends import EnvPoolVector, GymnasiumVector
from ractd.envs.context import ActionSequencePolicy, Context, EpisodePolicy, Past
from ractd.envs.environments import environments_of, make_vector
from ractd.envs.evaluate import EvaluationResult, evaluate
from ractd.envs.vector import VectorEnv

__all__ = [
    "ActionSequencePolicy",
    "Context",
    "EnvPoolVector",
    "EpisodePolicy",
    "EvaluationResult",
    "GymnasiumVector",
    "Past",
    "VectorEnv",
    "environments_of",
    "evaluate",
    "make_vector",
]
