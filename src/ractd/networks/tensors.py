"""Tensors on disk: safetensors with a JSON header, by atomic rename, never pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ractd.errors import RactdError
from ractd.files import replacing


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write named tensors and a JSON-able header as one safetensors file."""
    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        try:
            save_file(contiguous, partial, {"ractd": json.dumps(header)})
        except SafetensorError as error:  # a full disk, as it calls it
            raise OSError(str(error)) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise RactdError(f"{path}: not found")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise RactdError(f"{path}: not a readable ractd file ({error}); it is damaged or something else") from None


def read_header(path: Path) -> dict[str, Any]:
    """Read the header alone of what `write_tensors` wrote; raises `RactdError` as `read_tensors` does."""
    with _opened(path) as file:
        return json.loads((file.metadata() or {})["ractd"])  # type: ignore[no-any-return]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote; raises `RactdError` where the file is missing, damaged or not ours."""
    header = read_header(path)
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put `prefix.` before every name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def unprefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take those under `prefix.`, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict; raises `RactdError` naming the first tensor that is missing, unknown or of another shape."""
    own = module.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise RactdError(
                f"{path}: tensor '{name}' is missing; the file is damaged or of another version of ractd: train it anew"
            )
        if tensors[name].shape != value.shape:
            raise RactdError(
                f"{path}: tensor '{name}' has shape {list(tensors[name].shape)}, expected {list(value.shape)}"
            )
        if value.is_floating_point() and not torch.isfinite(tensors[name]).all():
            raise RactdError(f"{path}: tensor '{name}' holds NaN or infinite values")
    unknown = sorted(set(tensors) - set(own))
    if unknown:
        raise RactdError(f"{path}: unknown tensor '{unknown[0]}'")
    module.load_state_dict(tensors)
