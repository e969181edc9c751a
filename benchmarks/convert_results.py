"""Results of the first edition as rows: a run's `result.json`, and the collections of this folder.

    python benchmarks/convert_results.py benchmarks/results/*.json

Each file, or each run of a collection, is marked `"converted_from": 1`; what is marked stays as it is. What the first edition did
not note (how episodes ended, processor seconds, in collections also their lengths and the spread of times) is empty. Means and
errors that it wrote without the episodes are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import Positional

from ractd.envs.evaluate import Protocol
from ractd.files import read_json, write_json
from ractd.runs.rows import DERIVED, FORMAT, FORMAT_VERSION, Row

VARIANTS: dict[str, tuple[str, int, int]] = {
    "RACTD": ("student", 1, 1),
    "RACTD, 32 candidates": ("student", 1, 32),
    "RACTD, 2 steps": ("student", 2, 1),
    "RACTD, 4 steps": ("student", 4, 1),
    "plain student": ("plain", 1, 1),
    "plain student, 32 candidates": ("plain", 1, 32),
    "teacher": ("teacher", 80, 1),
}
"""The rows of the first edition in the order of this one: policy, sampling steps, candidates."""
RENAMED = {"selected_step": "step"}


def row(old: dict[str, Any], label: str, **known: Any) -> dict[str, Any]:
    """Return a row as it is written now; `known` is what the file says elsewhere."""
    flat = known | old | old.get("evaluation", {}) | {"seed": known.get("seed")}
    flat = {RENAMED.get(name, name): value for name, value in flat.items()}
    policy, steps, candidates = VARIANTS.get(label, (label, None, None))
    flat = {
        "steps": steps,
        "candidates": candidates,
        "sampler": "heun" if policy == "teacher" else "consistency",
    } | flat
    flat |= {"method": "ractd", "variant": label, "policy": known.get("policy", policy)}
    flat |= {"checkpoint": "best" if flat["selection"] == "online" else "last", "plans": "success_rate" in flat}
    played = {name: flat.get(name) for name in ("episodes", "max_episode_steps")} | {"env_id": flat.get("env_id") or ""}
    played |= {"backend": flat.get("backend", ""), "execute": flat.get("execute", 1), "history": flat.get("history", 1)}
    protocol = played | {"seed": old.get("evaluation", old).get("seed", 1_000 * (flat["seed"] or 0))}
    flat["protocol"] = protocol if flat.get("episodes") else None
    assert set(protocol) == {field.name for field in fields(Protocol)}
    empty: dict[str, Any] = {"returns": [], "lengths": [], "terminated": [], "offline": {}}
    return {name: flat.get(name, empty.get(name)) for name in (*(field.name for field in fields(Row)), *DERIVED)}


def rows_of(old: dict[str, Any], **known: Any) -> list[dict[str, Any]]:
    """Return the rows of a result by their labels, the one that it is about first."""
    return [row(old[label], label, **known) for label in VARIANTS if old.get(label)]


def result(content: dict[str, Any]) -> dict[str, Any]:
    """Convert a `result.json`."""
    seed = next(iter(content["rows"].values())).get("evaluation", {}).get("seed", 0) // 1_000
    rows = rows_of(content["rows"], dataset=content["dataset"]["name"], seed=seed)
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "converted_from": 1, "method": "ractd"}
    return head | {k: v for k, v in content.items() if k not in (*head, "rows")} | {"rows": rows}


def scores(content: dict[str, Any]) -> dict[str, Any]:
    """Convert `scores.json`: runs by name, students with other settings among them."""
    entries = {name: entry for name, entry in content.items() if name not in ("benchmark", "machine")}
    datasets = {name: {key: entry[key] for key in ("dataset", "behavior")} for name, entry in entries.items()}
    return {"datasets": datasets, "runs": dict(_scores(entries))}


def _scores(datasets: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, entry in datasets.items():
        known = {"dataset": name, "env_id": entry["dataset"]["env_id"]}
        for seed, run in entry["runs"].items():
            head = {key: run[key] for key in ("commit", "stages") if key in run}
            yield (
                f"{name}-s{seed}",
                {"converted_from": 1, **head, "rows": rows_of(run["rows"], seed=int(seed), **known)},
            )
        others = {f"{name}-s0-w{weight}": (0, old) for weight, old in entry["weights"].items()}
        for pessimism, by_seed in entry["pessimism"].items():
            others |= {f"{name}-s{seed}-k{pessimism}": (int(seed), old) for seed, old in by_seed.items()}
        for run, (seed, old) in others.items():
            student = row(old, "student", **known, seed=seed, steps=1, candidates=1, sampler="consistency")
            yield run, {"converted_from": 1, "commit": old["commit"], "rows": [student]}


def mazes(content: dict[str, Any]) -> dict[str, Any]:
    """Convert `mazes.json`: rows of the result, then those of `ractd eval`, closed loop."""
    runs = {}
    for name, entry in content.items():
        if name in ("benchmark", "machine"):
            continue
        known = {"dataset": name, "env_id": entry["dataset"]["env_id"], "seed": 0}
        closed = [
            row(old, VARIANTS[label][0], **known, sampler="heun" if label == "teacher" else "consistency")
            | {"steps": VARIANTS[label][1], "candidates": 1}
            for label, old in entry["closed"].items()
        ]
        kept = {key: entry[key] for key in ("complete", "dataset", "stages", "compared")}
        runs[f"{name}-s0"] = {"converted_from": 1, **kept, "rows": rows_of(entry["open"], **known) + closed}
    return {"runs": runs}


def samplers(content: dict[str, Any]) -> dict[str, Any]:
    """Convert `samplers.json`."""
    runs = {}
    for name, rows in content["runs"].items():
        dataset = re.sub(r"-s\d+.*", "", name)
        runs[name] = [
            row(old, label, dataset=dataset, seed=None)
            | {"policy": label.split(",")[0], "variant": old["policy"], "sha256": old["sha256"], "converted_from": 1}
            for label, old in rows.items()
        ]
    return {"runs": runs}


COLLECTIONS = {"scores": scores, "mazes": mazes, "samplers": samplers}


def convert(path: Path) -> bool:
    """Convert a file in its place; False where there is nothing to convert."""
    content = read_json(path)
    if "converted_from" in path.read_text() or not isinstance(content, dict):
        return False
    if content.get("format") == FORMAT and content.get("format_version") == 1:
        write_json(path, result(content))
    elif content.get("benchmark") in COLLECTIONS:
        head = {"benchmark": content["benchmark"], "machine": content["machine"]}
        write_json(path, head | COLLECTIONS[content["benchmark"]](content))
    else:
        return False
    return True


def main(files: Positional[tuple[Path, ...]]) -> None:
    """Convert results of the first edition.

    Args:
        files: `result.json` of a run, or collections of benchmarks/results.
    """
    for path in files:
        print(f"{path}: {'converted' if convert(path) else 'nothing to convert'}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
