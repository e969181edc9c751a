"""Environments: vectorised stepping, evaluation, D4RL scores. Importing it imports no simulator and no torch."""

from __future__ import annotations

from ractd.data.scores import family, normalized_score, reference
from ractd.envs.backends import envpool_vector, gymnasium_vector
from ractd.envs.context import ActionSequencePolicy, Context, EpisodePolicy, Past
from ractd.envs.environments import environments_of, make_vector
from ractd.envs.evaluate import EvaluationResult, evaluate
from ractd.envs.vector import VectorEnv

__all__ = [
    "ActionSequencePolicy",
    "Context",
    "EpisodePolicy",
    "EvaluationResult",
    "Past",
    "VectorEnv",
    "environments_of",
    "envpool_vector",
    "evaluate",
    "family",
    "gymnasium_vector",
    "make_vector",
    "normalized_score",
    "reference",
]
