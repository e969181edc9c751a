"""`ractd export`: trace, write beside, verify, and only then put in place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from ractd.envs.environments import environments_of
from ractd.envs.evaluate import EvaluationResult
from ractd.errors import RactdError
from ractd.export import verify
from ractd.export.contract import contract, open_source
from ractd.export.formats import WRITERS, Format, Precision, trace
from ractd.export.graph import batch_first, graph_of
from ractd.files import refuse_foreign, replacing_directory, write_json
from ractd.policies import Policy
from ractd_runtime.contract import CONTRACT, FORMAT
from ractd_runtime.policy import Policy as Deployed

MAX_EVALUATIONS = 32
"""Network evaluations that a graph may hold: it is a straight line of them."""


@dataclass(frozen=True)
class Exported:
    """What `export_policy` wrote."""

    directory: Path
    contract: dict[str, Any]
    """The whole `policy.json`."""
    difference: verify.Difference
    scores: tuple[EvaluationResult, EvaluationResult] | None
    """PyTorch's and the graph's evaluation, where asked for."""


def export_policy(
    path: str | Path,
    out: str | Path,
    *,
    policy: str | None = None,
    format: Format = "onnx",
    precision: Precision = "fp32",
    sampler: str | None = None,
    steps: int | None = None,
    candidates: int | None = None,
    dataset: str | Path | None = None,
    check_episodes: int = 0,
    console: Console | None = None,
) -> Exported:
    """Export a policy of a run (by default its main one), or a policy directory, to `out`: a graph and `policy.json`.

    `sampler`, `steps` and `candidates` are fixed in the graph. `dataset` is the data it was trained on, where it has moved. Before
    anything appears in `out`, the written graph is compared with PyTorch, and scored with it where `check_episodes` is
    positive. Raises `RactdError` for bad input and where the two differ.
    """
    out, console = Path(out), console or Console(quiet=True)
    if check_episodes < 0:
        raise RactdError(f"--check-episodes is {check_episodes}, expected 0 or more")
    source = open_source(Path(path), policy, dataset, sampler=sampler, steps=steps, candidates=candidates)
    chosen = source.policy
    if chosen.sampling.kind == "DDPM teacher":
        raise RactdError(
            f"{path}: a DDPM teacher can't be exported; export the student, or an EDM teacher in a few steps"
        )
    if chosen.evaluations > MAX_EVALUATIONS:
        raise RactdError(
            f"{path}: {chosen.evaluations} network evaluations are too many for one graph (at most {MAX_EVALUATIONS}); "
            "choose fewer with --steps, or export the student"
        )
    environment = chosen.environment
    if check_episodes and environment is None:
        raise RactdError(f"{path}: its data names no environment to score in; leave out --check-episodes")
    if source.dataset is None:
        console.print(
            "the data that it was trained on is not there (give it with --dataset): verified on random observations only",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    found: dict[str, Any] = {}

    def check(sample: verify.Sample, content: dict[str, Any]) -> dict[str, Any]:
        found["difference"] = verify.compare(chosen, sample, source.dataset, precision)
        report = asdict(found["difference"]) | {"unit": "half of the actions' range"}
        if check_episodes and environment is not None:
            execute = content["execution"]["execute"]
            with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
                task = bars.add_task("scoring PyTorch, then the graph", total=check_episodes)
                found["scores"] = verify.evaluate_both(
                    chosen,
                    sample,
                    environment.env_id,
                    check_episodes,
                    execute,
                    lambda done, total, step: bars.update(task, completed=done),
                    environments_of(environment, path),
                )
            names = ("pytorch", "exported")
            report["scores"] = {name: _brief(e) for name, e in zip(names, found["scores"], strict=True)}
        return report

    with torch.no_grad():
        graph = graph_of(chosen)
    content = export_graph(graph, _examples(chosen), contract(source), check, out, format, precision, console)
    return Exported(out, content, found["difference"], found.get("scores"))


def _examples(policy: Policy) -> dict[str, Tensor]:
    sequence = policy.sequence
    observation = torch.zeros(2, sequence.history, sequence.observation_dim)
    noise = batch_first(policy.draw_noise(2), policy.sampling.candidates).contiguous()
    return {"observation": observation, "noise": noise} if noise.numel() else {"observation": observation}


def export_graph(
    graph: nn.Module,
    examples: Mapping[str, Tensor],
    content: dict[str, Any],
    check: Callable[[verify.Sample, dict[str, Any]], dict[str, Any]],
    out: Path,
    format: Format,
    precision: Precision,
    console: Console,
) -> dict[str, Any]:
    """Write any graph with its contract: inputs by the names of `examples`, outputs by those of the contract.

    `check(sample, contract)` gets the written graph, opened the way a user opens it, and returns what it measured or raises.
    Everything is written into a directory beside `out` and put in place in the end; over an older one the contract comes last, so
    that whoever opens it between two files finds a SHA-256 that doesn't fit, never a mixture. Returns the whole contract.
    """
    refuse_foreign(out, "exported policy", CONTRACT, "-o", FORMAT)
    embedded = json.dumps(content)
    with replacing_directory(out, last=CONTRACT) as partial:
        with console.status("tracing and writing the graph ..."):
            program = trace(graph, examples)
            files = WRITERS[format](program, (list(examples), list(content["outputs"])), embedded, precision, partial)
        hashes = {p.name: {"sha256": _sha256(p), "bytes": p.stat().st_size} for p in files}
        content = content | {"graph": {"format": format, "precision": precision, "files": hashes}}
        write_json(partial / CONTRACT, content)
        with console.status("verifying ..."):
            opened: verify.Sample = _open_pt2(partial) if format == "pt2" else Deployed.load(partial).sample
            content["graph"]["verification"] = check(opened, content)
        write_json(partial / CONTRACT, content)
    for name in {"policy.onnx", "policy.xml", "policy.bin", "policy.pt2"} - hashes.keys():
        (out / name).unlink(missing_ok=True)
    return content


def _open_pt2(directory: Path) -> verify.Sample:
    module = torch.export.load(directory / "policy.pt2").module()

    def sample(observations: verify.Floats, noise: verify.Floats) -> verify.Floats:
        inputs = (observations, noise) if noise.size else (observations,)  # none where a policy draws nothing
        found = module(*map(torch.from_numpy, inputs))
        actions: torch.Tensor = found[0] if isinstance(found, tuple) else found  # a planner's states come after
        return actions.numpy()

    return sample


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest


def _brief(evaluation: EvaluationResult) -> dict[str, Any]:
    names = ("env_id", "backend", "episodes", "execute", "seed", "max_episode_steps", "mean_return", "mean_score")
    errors = {
        name: getattr(evaluation, name) if evaluation.episodes > 1 else None for name in ("return_se", "score_se")
    }
    return {name: getattr(evaluation, name) for name in names} | errors
