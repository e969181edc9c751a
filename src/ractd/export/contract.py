"""What `policy.json` says: inputs, outputs, execution, where the policy comes from and how good it was."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ractd.data import OfflineDataset, load_dataset
from ractd.data.environment import REGISTERED
from ractd.data.formats.made import dataset_dir
from ractd.envs.backends import make_gymnasium
from ractd.envs.environments import Environment
from ractd.errors import RactdError
from ractd.policies import Policy
from ractd.policies.files import main_policy
from ractd.runs.directory import read_run, versions
from ractd.runs.evaluation import policy_directory
from ractd.runs.rows import DERIVED, read_evaluations, read_result, select
from ractd.settings import to_json
from ractd_runtime.contract import FORMAT, FORMAT_VERSION

MARGIN = 0.5
"""An observation is far outside the data where it leaves its range by this share of the range."""
STANDARD_DEVIATIONS = 5.0
"""Around the mean, where the data is not there to be asked for its range."""
PACKAGES = ("onnx", "onnxruntime", "onnxscript", "openvino", "ractd-runtime")


@dataclass(frozen=True)
class ExportSource:
    """What is exported and what is known about it."""

    policy: Policy
    name: str
    """The policy's name in its run, `policy` for a bare policy directory."""
    run: Path | None
    dataset: OfflineDataset | None
    """The data it was trained on, None where it isn't there any more."""


def open_source(path: Path, name: str | None, dataset: str | Path | None, **sampling: Any) -> ExportSource:
    """Open a run's policy (by default its main one) or a policy directory, and the data it was trained on.

    `sampling` is passed to `Policy.configured`. Raises `RactdError` for an unknown policy, an impossible setting, or a
    `dataset` that is another one.
    """
    run = path if (path / "policy").is_dir() else None
    if run is None and name is not None:
        raise RactdError(f"{path}: is no run directory, so it has no policy {name!r} to choose; leave out --policy")
    name = name or main_policy(path)
    policy = Policy.load(path if run is None else policy_directory(run, name))
    policy = policy.configured(**sampling)
    return ExportSource(policy, "policy" if run is None else name, run, _dataset(policy, dataset))


def _dataset(policy: Policy, given: str | Path | None) -> OfflineDataset | None:
    trained_on = policy.provenance.get("dataset", {})
    if given is None:
        built = dataset_dir() / f"{trained_on.get('name')}.hdf5"
        there = [path for path in (trained_on.get("source"), built) if path and Path(path).is_file()]
        if not there:
            return None
        given = there[0]
    found = load_dataset(given, ends=trained_on.get("terminals_mean"))
    if trained_on.get("fingerprint") not in (None, found.fingerprint):
        raise RactdError(
            f"{given}: is not the data that the policy was trained on (fingerprint {found.fingerprint[:12]}, "
            f"expected {trained_on['fingerprint'][:12]}); give the right one with --dataset"
        )
    return found


def contract(source: ExportSource) -> dict[str, Any]:
    """Return the contract of a policy, all but what only the written graph knows."""
    policy = source.policy
    sequence, sampling, normalizer = policy.sequence, policy.sampling, policy.sequence.normalizer
    provenance, environment = policy.provenance, policy.environment
    execute = _execute(source)
    seen = "the last observations, oldest first"
    if sequence.open_loop:
        seen = "a state and after it the goal, which is a state too: where to be, and zero for its velocities"
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "policy": source.name,
        "inputs": {
            "observation": {
                "shape": ["batch", sequence.history, sequence.observation_dim],
                "dtype": "float32",
                "meaning": f"{seen}, in the environment's units; normalised inside the graph",
                **_observation_range(source),
            },
            **_noise(policy),
        },
        "outputs": {
            "actions": {
                "shape": ["batch", sequence.horizon, sequence.action_dim],
                "dtype": "float32",
                "meaning": "the next actions in the order of execution, in the environment's units, clipped to low and high",
                "low": normalizer.action_low.tolist(),
                "high": normalizer.action_high.tolist(),
                "low_and_high_are": _bounds_are(provenance.get("scaling") or {}),
            },
            **sequence.describe_outputs(),
        },
        "sampling": {
            "sampler": sampling.sampler,
            "steps": sampling.steps,
            "candidates": sampling.candidates,
            "network_evaluations": policy.evaluations,
        },
        "execution": {
            "execute": execute,
            "control_hz": control_hz(environment),
            "advice": f"execute the first {execute} of {sequence.horizon} actions, then ask again with a new observation",
        },
        "checks": {"not_finite": "error", "out_of_range": "warning"},
        "environment": None if environment is None else environment.env_id,
        "environment_settings": to_json(REGISTERED if environment is None else environment.env_settings),
        "dataset": provenance.get("dataset"),
        "training": {key: value for key, value in provenance.items() if key not in ("dataset", "versions")},
        "score": score(source),
        "versions": {"export": versions(*PACKAGES), "training": provenance.get("versions")},
    }


def _noise(policy: Policy) -> dict[str, Any]:
    """Return the noise that a policy takes, if it takes any."""
    sampling = policy.sampling
    if not sampling.draws:
        return {}
    return {
        "noise": {
            "shape": ["batch", sampling.draws, sampling.candidates, *policy.sequence.shape],
            "dtype": "float32",
            "distribution": "independent standard normal",
            "meaning": "one draw for each sampling step and candidate; the caller owns the seed",
        }
    }


def _bounds_are(scaling: dict[str, Any]) -> str:
    """Say where the bounds of the actions come from, of what a run records of its scaling."""
    if scaling.get("action_range"):
        return "given with --action-range; one value where the training data has one"
    return f"smallest and largest of the training data{_without(scaling.get('action_outliers', 0))}"


def _without(outliers: int) -> str:
    return f", its {outliers:,} outlier{'s' if outliers > 1 else ''} left out" if outliers else ""


def _observation_range(source: ExportSource) -> dict[str, Any]:
    normalizer = source.policy.sequence.normalizer
    mean, std = (x.numpy().astype(np.float64) for x in (normalizer.observation_mean, normalizer.observation_std))
    if source.dataset is not None:
        statistics = source.dataset.statistics()
        low, high = (x.astype(np.float64) for x in (statistics.observation_low, statistics.observation_high))
        of, but = "smallest and largest", _without(int(statistics.observation_outliers.sum()))
        if source.policy.sequence.open_loop:
            low, high = np.tile(low, 2), np.tile(high, 2)
    else:
        low, high = mean - STANDARD_DEVIATIONS * std, mean + STANDARD_DEVIATIONS * std
        of, but = f"mean -+ {STANDARD_DEVIATIONS:g} standard deviations", ""
    return {
        "low": low.tolist(),
        "high": high.tolist(),
        "low_and_high_are": f"{of} of the training data{but}",
        "margin": MARGIN,
        "mean": mean.tolist(),
        "std": std.tolist(),
    }


def _execute(source: ExportSource) -> int:
    """Return how many actions of each sequence the run executed: where it was not said the first, of a plan all."""
    said = None if source.run is None else read_run(source.run)["config"]["evaluation"]["execute"]
    sequence = source.policy.sequence
    return int(said or (sequence.horizon if sequence.open_loop else 1))


def control_hz(environment: Environment | None) -> float | None:
    """Return the rate of the steps of a policy's environment, None where it isn't installed or doesn't know."""
    if environment is None:
        return None
    try:
        env = make_gymnasium(environment.env_id, environment.env_settings)
    except RactdError:
        return None
    try:
        dt = getattr(env.unwrapped, "dt", None)
        return round(1 / float(dt), 6) if dt else None
    finally:
        env.close()


def score(source: ExportSource) -> dict[str, Any] | None:
    """Return what the run measured of this policy, sampled this way: the score, or the estimate without a simulator."""
    if source.run is None:
        return None
    sampling = source.policy.sampling
    results = [*filter(None, [read_result(source.run)]), *read_evaluations(source.run)]
    how = {"sampler": sampling.sampler, "steps": sampling.steps, "candidates": sampling.candidates}
    rows = select((row for each in results for row in each.rows), policy=source.name, **how)
    environment = source.policy.environment
    here = (environment and environment.env_id, _execute(source))
    rows = [row for row in rows if row.protocol is None or (row.protocol.env_id, row.protocol.execute) == here]
    if not rows:
        return None
    row = max(rows, key=lambda row: 0 if row.protocol is None else row.protocol.episodes)
    of = {"of": "the PyTorch policy in fp32", "selection": row.selection, "selected_step": row.step}
    if row.protocol is not None:
        derived = {name: getattr(row, name) for name in DERIVED}
        return of | {"kind": "measured in the environment", **asdict(row.protocol), **derived}
    if row.estimated_return is None:
        return of | {"kind": "not measured: only how far it is from the data, which had no rewards", **row.offline}
    return of | {"kind": "the return model's estimate", **row.offline}
