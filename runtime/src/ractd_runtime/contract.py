"""The contract of an exported policy: what `policy.json` promises, checked before anything is run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ractd_runtime.errors import RactdError

FORMAT, FORMAT_VERSION = "ractd-deployed-policy", 2
READS = (1, 2)
"""Versions that this runtime reads; in the first every graph has noise, and none knows the past."""
CONTRACT = "policy.json"
GRAPH_FORMATS = ("onnx", "openvino")
"""Graphs that this package runs."""
EDITABLE = ("graph", "checks", "execution")
"""Sections that the graph's own copy of the contract need not agree with: the user's to change, and the graph's hash."""
LARGEST = 1e30
"""Of the numbers in a contract: their sums are float32 too."""
ANSWERS = ("error", "warning", "ignore")
RANKS = {"observation": 3, "noise": 5, "past_actions": 3, "past_rewards": 2, "steps": 1, "returns": 1}
"""Inputs that a graph may have, with the dimensions of each, the batch included. Only `observation` is always there."""


@dataclass(frozen=True)
class Contract:
    """What an exported policy takes and gives; `content` is the whole `policy.json`."""

    path: Path
    content: dict[str, Any]
    graph_format: str
    graph: dict[str, bytes]
    """The graph's files by name, as they were hashed."""
    history: int
    """Observations the policy sees (h)."""
    observation_dim: int
    inputs: dict[str, tuple[int, ...]]
    """Shapes of the graph's inputs for one observation, by name."""
    horizon: int
    """Actions of a sequence (c)."""
    action_dim: int
    execute: int
    """Actions of a sequence to execute before the next is computed (m)."""
    control_hz: float | None
    """Rate that the actions are meant for, None where the environment doesn't know it."""
    observation_low: NDArray[np.float32]
    """Below is far outside the data, [O]."""
    observation_high: NDArray[np.float32]
    """Above is far outside the data, [O]."""
    checks: dict[str, str]
    """What an observation of the wrong kind is: `error`, `warning` or `ignore`, for `not_finite` and `out_of_range`."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Noise of one observation: draws (0 without noise), candidates, steps and entries of a sequence.

        The last two are those of the actions, but for planners.
        """
        return self.inputs.get("noise", (0, 1, self.horizon, self.action_dim))

    @property
    def past_steps(self) -> int:
        """Steps of its episode whose actions and rewards the policy needs to know (K), 0 where it needs none."""
        return next((self.inputs[name][0] for name in ("past_actions", "past_rewards") if name in self.inputs), 0)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation as `act` takes it: [O], or [h, O] where h > 1."""
        return (self.observation_dim,) if self.history == 1 else (self.history, self.observation_dim)

    @classmethod
    def read(cls, directory: str | Path) -> Contract:
        """Read a directory's contract and graph.

        Raises `RactdError` for a missing, damaged or newer contract and for a graph whose SHA-256 is another.
        """
        path = Path(directory) / CONTRACT
        content = _json(path)
        graph_format, graph = _graph(path, content)
        field = _Fields(path, content)
        inputs, (horizon, action_dim) = field.inputs(), field.shape("outputs.actions", 3)
        history, observation_dim = inputs["observation"]
        low, high = (field.numbers(f"inputs.observation.{name}", observation_dim) for name in ("low", "high"))
        margin = field.number("inputs.observation.margin", 0, 1e6) * (high - low)
        rate, execute = field.get("execution.control_hz"), field.number("execution.execute", 1, horizon)
        if execute % 1:
            raise RactdError(f"{path}: execution.execute is {execute:g}, expected a whole number")
        return cls(
            path=path,
            content=content,
            graph_format=graph_format,
            graph=graph,
            history=history,
            observation_dim=observation_dim,
            inputs=inputs,
            horizon=horizon,
            action_dim=action_dim,
            execute=int(execute),
            control_hz=None if rate is None else field.number("execution.control_hz", 1e-6, 1e9),
            observation_low=(low - margin).astype(np.float32),
            observation_high=(high + margin).astype(np.float32),
            checks={name: field.one_of(f"checks.{name}", ANSWERS) for name in ("not_finite", "out_of_range")},
        )

    def check_graph(self, embedded: str | None) -> None:
        """Raise `RactdError` where the graph's own copy of the contract is missing or differs from `policy.json`."""
        try:
            copy = json.loads(embedded or "")
        except (json.JSONDecodeError, RecursionError):
            copy = None
        if not isinstance(copy, dict):
            raise RactdError(f"{self.path.parent}: the graph carries no contract; it was not written by ractd")
        for name in sorted((copy.keys() | self.content.keys()) - set(EDITABLE)):
            if copy.get(name) != self.content.get(name):
                raise RactdError(
                    f"{self.path}: '{name}' differs from the contract inside the graph; undo the change or export again "
                    f"(only {', '.join(EDITABLE[1:])} may be edited)"
                )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise RactdError(
            f"{path}: not found; expected a directory that 'ractd export' wrote (policy.json and a graph)"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise RactdError(f"{path}: not a readable contract ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RactdError(f"{path}: not the contract of an exported policy (its 'format' is not {FORMAT!r})")
    version = content.get("format_version")
    if version not in READS:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        hint = "install a newer ractd-runtime" if newer else "the file is damaged, export again"
        raise RactdError(f"{path}: contract version {version!r}, this runtime reads up to {FORMAT_VERSION}; {hint}")
    return content


def _graph(path: Path, content: dict[str, Any]) -> tuple[str, dict[str, bytes]]:
    field = _Fields(path, content)
    kind, files = field.get("graph.format"), field.get("graph.files")
    if kind not in GRAPH_FORMATS:
        what = "is for torch.export.load and C++" if kind == "pt2" else "is unknown to this runtime"
        raise RactdError(
            f"{path}: a graph of format {kind!r} {what}; export with --format {' or '.join(GRAPH_FORMATS)}"
        )
    if not isinstance(files, dict) or not files or not all(isinstance(entry, dict) for entry in files.values()):
        raise RactdError(f"{path}: 'graph.files' doesn't name the graph's files; the file is damaged, export again")
    read = {}
    for name, entry in files.items():
        if Path(name).name != name or not name.isprintable():
            raise RactdError(f"{path}: graph file {name!r} is not a plain name; the file is damaged, export again")
        try:
            read[name] = (path.parent / name).read_bytes()
        except OSError as error:
            raise RactdError(f"{path.parent / name}: can't be read ({error.strerror}); export again") from None
        if hashlib.sha256(read[name]).hexdigest() != entry.get("sha256"):
            raise RactdError(
                f"{path.parent / name}: its SHA-256 is not that of {CONTRACT}; the file was changed or is damaged, export again"
            )
    return kind, read


class _Fields:
    """Typed access to nested fields, every mistake named."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content = path, content

    def get(self, where: str) -> Any:
        value: Any = self.content
        for key in where.split("."):
            if not isinstance(value, dict) or key not in value:
                raise RactdError(f"{self.path}: field '{where}' is missing; the file is damaged, export again")
            value = value[key]
        return value

    def number(self, where: str, low: float, high: float) -> float:
        value = self.get(where)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise RactdError(f"{self.path}: {where} is {value!r}, expected a number from {low:g} to {high:g}")
        return float(value)

    def one_of(self, where: str, options: tuple[str, ...]) -> str:
        value = self.get(where)
        if value not in options:
            raise RactdError(f"{self.path}: {where} is {value!r}, expected one of {', '.join(options)}")
        return str(value)

    def numbers(self, where: str, length: int) -> NDArray[np.float64]:
        value = self.get(where)
        numbers = value if isinstance(value, list) else []
        if len(numbers) != length or not all(type(x) in (int, float) and abs(x) <= LARGEST for x in numbers):
            raise RactdError(f"{self.path}: {where} is no list of {length} numbers up to {LARGEST:g}")
        return np.array(numbers, np.float64)

    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the graph's inputs after the batch, by name."""
        inputs = self.get("inputs")
        names = list(inputs) if isinstance(inputs, dict) else []
        if unknown := [name for name in names if name not in RANKS]:
            raise RactdError(
                f"{self.path}: the policy needs the input {unknown[0]!r}, which this runtime doesn't know; "
                "install a newer ractd-runtime"
            )
        shapes = {
            name: tuple(self.shape(f"inputs.{name}", RANKS[name])) for name in dict.fromkeys(["observation", *names])
        }
        past = {shapes[name][0] for name in ("past_actions", "past_rewards") if name in shapes}
        if len(past) > 1 or (not past and ("steps" in names or "returns" in names)):
            raise RactdError(
                f"{self.path}: inputs of the past are past_actions or past_rewards, of one length, and with them "
                "steps and returns; the file is damaged, export again"
            )
        return shapes

    def shape(self, where: str, rank: int) -> list[int]:
        """Return a tensor's dimensions after the batch."""
        shape, dtype = self.get(f"{where}.shape"), self.get(f"{where}.dtype")
        sizes = shape[1:] if isinstance(shape, list) else []
        if len(sizes) != rank - 1 or shape[0] != "batch" or not all(type(n) is int and n >= 1 for n in sizes):
            raise RactdError(f"{self.path}: {where}.shape is {shape!r}, expected 'batch' and {rank - 1} sizes")
        if dtype != "float32":
            raise RactdError(f"{self.path}: {where}.dtype is {dtype!r}, this runtime knows float32")
        return sizes
