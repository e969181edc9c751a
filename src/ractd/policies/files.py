"""Policies on disk: a description of their parts as JSON, and their tensors; opening one runs no code of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ractd.critics import CriticPart, critic_class
from ractd.envs.environments import Environment
from ractd.errors import RactdError
from ractd.files import read_json, write_json
from ractd.networks import Network
from ractd.networks.tensors import read_tensors, write_tensors
from ractd.policies.sampling import Sampling
from ractd.sequences import SequencePart, sequence_class
from ractd.settings import from_json, to_json

if TYPE_CHECKING:
    from ractd.policies.policy import Policy

FORMAT, FORMAT_VERSION = "ractd-policy", 2
WEIGHTS, DESCRIPTION = "policy.safetensors", "config.json"


@dataclass(frozen=True)
class PolicyFile:
    """What `config.json` says of a policy: all of it that is no tensor."""

    method: str
    sequence: SequencePart
    network: Network
    sampling: Sampling
    critic: CriticPart | None
    environment: Environment | None
    provenance: dict[str, Any]


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Return all of a policy that is no tensor, as JSON types."""
    critic = None if policy.critic is None else policy.critic.part
    parts = policy.sequence.part, policy.network_settings, policy.sampling, critic
    description: dict[str, Any] = to_json(PolicyFile(policy.method, *parts, policy.environment, policy.provenance))
    return description


def main_policy(run: Path) -> str:
    """Return the name of the policy of a run that is meant where none is named: its `config.json` says."""
    path = run / "config.json"
    content = read_json(path) if path.exists() else None
    return str(content.get("policy", "student")) if isinstance(content, dict) else "student"


def save_policy(policy: Policy, directory: Path) -> Path:
    """Write a policy into a directory: its tensors first, then its description, each by atomic rename."""
    write_tensors(directory / WEIGHTS, policy.state_dict(), {"format_version": FORMAT_VERSION})
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **describe_policy(policy)}
    write_json(directory / DESCRIPTION, content)
    return directory


def read_policy(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """Read a policy directory, or a run directory (its main policy); see `Policy.load`.

    Returns:
        The parts that `Policy` is made of, the tensors that belong to them, and the file of those.
    """
    directory = path
    if not (directory / DESCRIPTION).exists() or (directory / "policy").is_dir():
        directory = directory / "policy" / main_policy(path)
    if not directory.is_dir():
        raise RactdError(
            f"{path}: no policy here (expected {DESCRIPTION} and {WEIGHTS}, or a run with policy/{directory.name})"
        )
    where = directory / DESCRIPTION
    file = _read_file(where)
    sequence = sequence_class(file.sequence.kind)(file.sequence)
    critic = None if file.critic is None else critic_class(file.critic.kind, where).build(file.critic, sequence)
    parts = {
        "sequence": sequence,
        "network": file.network.build(sequence.shape, sequence.condition_dim, file.sampling.jumps),
        "sampling": file.sampling,
        "network_settings": file.network,
        "critic": critic,
        "environment": file.environment,
        "method": file.method,
        "provenance": file.provenance,
    }
    tensors, _ = read_tensors(directory / WEIGHTS)
    if "sequence.normalizer.observation_low" in tensors:  # only where the data had outliers
        sequence.normalizer.limit(*torch.zeros(2, sequence.observation_dim))
    return parts, tensors, directory / WEIGHTS


def _read_file(where: Path) -> PolicyFile:
    """Read a policy's description; raises `RactdError` for one that isn't a policy's, or of another version, or damaged."""
    content = read_json(where)
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise RactdError(f"{where}: not a ractd policy")
    version = content.pop("format_version", None)
    if version == 1:
        raise RactdError(f"{where}: a policy of ractd's first edition, which this one can't open; train it anew")
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        hint = "install a newer ractd" if newer else "the file is damaged"
        raise RactdError(f"{where}: format version {version!r}, this ractd reads {FORMAT_VERSION}; {hint}")
    file = from_json(PolicyFile, content, where)
    try:
        file.sampling.check()
    except RactdError as error:
        raise RactdError(f"{where}: {error}") from None
    return file
