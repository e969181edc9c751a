"""Policies on disk: a description of their parts as JSON, and their tensors; opening one runs no code of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ractd.critics import Critic, critic_class
from ractd.envs.environments import Environment
from ractd.errors import RactdError
from ractd.files import read_json, write_json
from ractd.networks import Network
from ractd.networks.tensors import read_tensors, write_tensors
from ractd.policies.sampling import SCHEDULES, Sampling
from ractd.sequences import Sequence, sequence_class
from ractd.settings import from_json, to_json

if TYPE_CHECKING:
    from ractd.policies.policy import Policy

FORMAT, FORMAT_VERSION = "ractd-policy", 2
WEIGHTS, DESCRIPTION = "policy.safetensors", "config.json"


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Return all of a policy that is no tensor, as JSON types."""
    critic = policy.critic
    return {
        "method": policy.method,
        "sequence": {"kind": policy.sequence.kind, **to_json(policy.sequence.part)},
        "network": to_json(policy.network_settings),
        "sampling": to_json(policy.sampling),
        "critic": None if critic is None else {"kind": critic.kind, **to_json(critic.part)},
        "environment": None if policy.environment is None else to_json(policy.environment),
        "provenance": policy.provenance,
    }


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
    content = _checked_content(where)
    sequence = _sequence(content["sequence"], where)
    network_settings = _network(content["network"], where)
    sampling = _sampling(content["sampling"], where)
    environment = content["environment"]
    parts = {
        "sequence": sequence,
        "network": network_settings.build(sequence.shape, sequence.condition_dim, sampling.jumps),
        "sampling": sampling,
        "network_settings": network_settings,
        "critic": _critic(content["critic"], sequence, where),
        "environment": None if environment is None else from_json(Environment, environment, where),
        "method": content["method"],
        "provenance": content["provenance"],
    }
    tensors, _ = read_tensors(directory / WEIGHTS)
    if "sequence.normalizer.observation_low" in tensors:  # only where the data had outliers
        sequence.normalizer.limit(*torch.zeros(2, sequence.observation_dim))
    return parts, tensors, directory / WEIGHTS


def _checked_content(where: Path) -> dict[str, Any]:
    """Read a policy's description; raises `RactdError` for one that isn't a policy's, of another version, or incomplete."""
    content = read_json(where)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RactdError(f"{where}: not a ractd policy")
    version = content.get("format_version")
    if version == 1:
        raise RactdError(f"{where}: a policy of ractd's first edition, which this one can't open; train it anew")
    if version != FORMAT_VERSION:
        hint = (
            "install a newer ractd" if isinstance(version, int) and version > FORMAT_VERSION else "the file is damaged"
        )
        raise RactdError(f"{where}: format version {version!r}, this ractd reads {FORMAT_VERSION}; {hint}")
    kinds = {"method": str, "sequence": dict, "network": dict, "sampling": dict, "provenance": dict}
    optional = {"critic": dict, "environment": dict}
    known = {"format", "format_version", *kinds, *optional}
    for name in sorted(known - content.keys()):
        raise RactdError(f"{where}: field '{name}' is missing")
    for name in sorted(content.keys() - known):
        raise RactdError(f"{where}: unknown field '{name}', expected {', '.join(sorted(known))}")
    for name, kind in (kinds | optional).items():
        if not isinstance(content[name], kind) and not (name in optional and content[name] is None):
            raise RactdError(f"{where}: {name} is {content[name]!r}, expected {kind.__name__}")
    return content


def _network(content: dict[str, Any], where: Path) -> Network:
    content = dict(content)
    try:
        cls = Network.of_kind(str(content.pop("kind", None)))
    except RactdError as error:
        raise RactdError(f"{where}: {error}") from None
    return from_json(cls, content, where)


def _sequence(content: dict[str, Any], where: Path) -> Sequence:
    content = dict(content)
    cls = sequence_class(str(content.pop("kind", None)), where)
    return cls(from_json(cls.Part, content, where))


def _critic(content: dict[str, Any] | None, sequence: Sequence, where: Path) -> Critic | None:
    if content is None:
        return None
    content = dict(content)
    cls = critic_class(str(content.pop("kind", None)), where)
    return cls.build(from_json(cls.Part, content, where), sequence)


def _sampling(content: dict[str, Any], where: Path) -> Sampling:
    kind = content.get("kind")
    if kind not in SCHEDULES:
        raise RactdError(
            f"{where}: unknown kind of network {kind!r} in 'sampling', expected one of {', '.join(SCHEDULES)}"
        )
    schedule_class, content = SCHEDULES[kind], dict(content)
    levels = content.pop("schedule", None)
    schedule = None if schedule_class is None else from_json(schedule_class, levels, where)
    try:
        sampling = Sampling(schedule=schedule, **content)
        sampling.check()
    except TypeError as error:
        raise RactdError(f"{where}: 'sampling': {error}") from None
    except RactdError as error:
        raise RactdError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None
    return sampling
