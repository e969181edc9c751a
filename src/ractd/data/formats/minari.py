"""Minari datasets by id: the local ones, and remote ones that Minari downloads."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ractd.data.end_fields import SUCCESSES
from ractd.data.environment import REGISTERED, EnvironmentSettings, WrapperSettings, gymnasium_with_robotics
from ractd.data.fields import NEXT, Array, Source, field_of
from ractd.data.findings import warning
from ractd.data.formats import DatasetInfo
from ractd.data.formats.network import unreachable
from ractd.errors import RactdError

ONLOOKERS = (
    "OrderEnforcing",
    "PassiveEnvChecker",
    "RecordEpisodeStatistics",
    "RecordVideo",
    "RenderCollection",
    "HumanRendering",
)
"""Wrappers of Gymnasium's that change nothing about an episode."""

ID = re.compile(r"(?:[\w-]+/)*[\w-]+-v\d+")
PATIENCE = 5.0
"""Seconds within which the server of remote datasets has to answer."""


def local_ids() -> list[str]:
    """Return the ids of the local Minari datasets, sorted; none where Minari is not installed."""
    if importlib.util.find_spec("minari") is None:
        return []
    found = []
    for folder, below, _ in os.walk(root()):
        if "data" in below:
            found.append(Path(folder).relative_to(root()).as_posix())
            # One folder per episode may lie below.
            below.clear()
    return sorted(found)


def root() -> Path:
    """Return Minari's own folder: `$MINARI_DATASETS_PATH`, else `~/.minari/datasets`."""
    # As Minari says it; asking Minari would import Gymnasium and create the folder.
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


CALLED = "a Minari id"


def find(name: str, download: bool) -> Source | None:
    """Open a dataset by its Minari id; without `download` a source of a local dataset's environment, of none for another."""
    if not ID.fullmatch(name) or ("/" not in name and name not in local_ids()):
        return None
    if download:
        return open_minari(name)
    env_id = None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # opening it says what is wrong with it
        env_id = json.loads(_metadata(name)["env_spec"])["id"]
    return Source(where=f"Minari {name}", name=name, fields={}, env_id=env_id)


def datasets() -> Iterator[DatasetInfo]:
    """Yield the local datasets."""
    for name in local_ids():
        yield DatasetInfo(name, "minari", str(root() / name), True, "local Minari dataset")


def open_minari(dataset_id: str) -> Source:
    """Read a Minari dataset's episodes as D4RL's fields.

    Dict and tuple observations are flattened in the order of `gymnasium.spaces.flatten` (keys sorted). The observation
    after an episode's last action is its final one. Terminations become terminals, truncations timeouts, and an episode that
    has neither on its last step a timeout there. Gymnasium's `is_success` (or `success`) in the infos becomes success flags.
    """
    data = _open(dataset_id)
    where = f"Minari {dataset_id}"
    observation_space, action_space = data.observation_space, data.action_space
    if type(action_space).__name__ != "Box":
        raise RactdError(f"{where}: the action space is {action_space}, expected a Box (continuous actions)")
    try:
        fields = _fields(data, where)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RactdError(f"{where}: its episodes can't be read ({reason}); {_advice(dataset_id)}") from error
    env_id, env_settings = environment_of(getattr(data.spec, "env_spec", None))
    flattened = type(observation_space).__name__ != "Box"
    note = warning(f"observations are flattened in gymnasium's order, from {observation_space}")
    return Source(
        where=where,
        name=dataset_id,
        fields={name: field_of(array) for name, array in fields.items()},
        env_id=env_id,
        env_settings=env_settings,
        recipe=f"Minari {dataset_id}",
        notes=(note,) if flattened else (),
    )


def _fields(data: Any, where: str) -> dict[str, Array]:
    """Return the arrays of D4RL's fields from a Minari dataset's episodes."""
    steps = int(data.total_steps)
    fields: dict[str, Array] = {
        "rewards": np.empty(steps, np.float32),
        "terminals": np.zeros(steps, np.bool_),
        "timeouts": np.zeros(steps, np.bool_),
    }
    at = 0
    for episode in data.iterate_episodes():
        length = len(episode.rewards)
        if length == 0:
            continue
        observed = flatten(data.observation_space, episode.observations, where)
        following = observed[1:] if len(observed) > length else np.full_like(observed, np.nan, dtype=np.float32)
        rows = {
            "observations": observed[:length],
            NEXT: following,
            "actions": np.asarray(episode.actions).reshape(length, -1),
            "rewards": episode.rewards,
            "terminals": episode.terminations,
            "timeouts": episode.truncations,
        }
        if at + length > steps:
            raise RactdError(
                f"{where}: its episodes have more steps than the {steps:,} of its metadata; download it again"
            )
        for name, values in rows.items():
            if name not in fields:
                # Of integers the layout says that they are no actions.
                dtype = values.dtype if name == "actions" and values.dtype.kind in "iub" else np.float32
                fields[name] = np.empty((steps, values.shape[1]), dtype)
            fields[name][at : at + length] = values
        flags = _successes(episode.infos, length)
        if flags is not None:
            fields.setdefault(SUCCESSES, np.zeros(steps, np.bool_))[at : at + length] = flags
        at += length
        fields["timeouts"][at - 1] |= not fields["terminals"][at - 1]
    if at != steps:
        raise RactdError(f"{where}: its episodes have {at:,} of the {steps:,} steps of its metadata; download it again")
    return fields


def _advice(dataset_id: str) -> str:
    return f"download it again with `minari download --force {dataset_id}`"


def environment_of(spec: Any) -> tuple[str | None, EnvironmentSettings]:
    """Return the id and the settings of a Gymnasium `EnvSpec` of a file, whose own entry points are never used.

    Left out are arguments that the environment is registered with here, and wrappers that change nothing about an
    episode. What can't be made of this machine's registry and `gymnasium.wrappers` is the settings' fault.
    """
    if spec is None:
        return None, REGISTERED
    known = gymnasium_with_robotics().registry.get(spec.id)
    same = known.kwargs if known is not None else {}
    try:
        arguments = {
            name: value
            for name, value in spec.kwargs.items()
            if name != "render_mode" and not (name in same and same[name] == value)
        }
        wrappers = tuple(filter(None, map(_wrapper, spec.additional_wrappers)))
        return spec.id, EnvironmentSettings(arguments, spec.max_episode_steps, wrappers)
    except RactdError as error:
        fault = str(error)
    except (AttributeError, TypeError, ValueError) as error:
        fault = f"its specification is damaged ({error})"
    advice = f"--env {spec.id} scores in {spec.id} as it is registered here"
    return spec.id, EnvironmentSettings(fault=f"{fault}, so it is another environment; {advice}")


def _wrapper(spec: Any) -> WrapperSettings | None:
    """Return a wrapper of the file, None for one that only looks on; raises `RactdError` where it is none of Gymnasium's."""
    module, _, name = spec.entry_point.partition(":")
    if module.split(".")[:2] != ["gymnasium", "wrappers"]:
        raise RactdError(f"wrapper {spec.entry_point!r} is none of gymnasium.wrappers")
    return None if name in ONLOOKERS else WrapperSettings(name, spec.kwargs or {})


def _metadata(dataset_id: str) -> Any:
    return json.loads((root() / dataset_id / "data" / "metadata.json").read_text(encoding="utf-8"))


def _refuse_without_spaces(dataset_id: str) -> None:
    """Raise `RactdError` where Minari would make an environment of the metadata, entry point and all, to ask it for spaces."""
    try:
        metadata = _metadata(dataset_id)
    except (OSError, ValueError):
        return  # Minari says what is wrong with them
    for name in ("observation_space", "action_space"):
        if not isinstance(metadata, dict) or name not in metadata:
            raise RactdError(
                f"Minari {dataset_id}: its metadata have no {name!r}, for which Minari would run the code that they name as "
                "the environment; write the dataset again with a newer Minari"
            )


def _successes(infos: Any, length: int) -> Array | None:
    """Return an episode's success flags [length] from its infos, None where these have none."""
    for name in ("is_success", "success"):
        values = infos.get(name) if isinstance(infos, dict) else None
        if values is not None and np.asarray(values).size >= length:
            # The infos of the reset come before those of the steps.
            return np.asarray(values).reshape(-1)[-length:].astype(np.bool_)
    return None


def _open(dataset_id: str) -> Any:
    try:
        import minari
    except ImportError as error:
        message = (
            f"{dataset_id!r} looks like a Minari id, but Minari is not installed: run `pip install 'ractd[minari]'`"
        )
        raise RactdError(message) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dataset_id not in local_ids():
            close = difflib.get_close_matches(dataset_id, local_ids(), n=3, cutoff=0.6)
            meant = f"; did you mean {' or '.join(close)}?" if close else ""
            gcp = os.environ.get("MINARI_REMOTE", "").startswith("gcp://")
            hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
            server = "https://storage.googleapis.com" if gcp else hub
            silent = unreachable(server, PATIENCE)
            if silent:
                raise RactdError(
                    f"Minari dataset {dataset_id!r} is not local, and {server} can't be reached to download it ({silent})"
                    f"{meant or '; `ractd data list` shows the local ones'}"
                )
            try:
                minari.download_dataset(dataset_id)
            except ValueError as error:
                message = f"Minari has no dataset {dataset_id!r}: {error} (`minari list remote` shows all){meant}"
                raise RactdError(message) from error
            except Exception as error:
                # Minari's storage backends raise whatever their HTTP client does.
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                what = f"Minari could not download {dataset_id!r} ({type(error).__name__}: {reason})"
                raise RactdError(f"{what}; it is not local and needs the network") from error
        _refuse_without_spaces(dataset_id)
        try:
            return minari.load_dataset(dataset_id)
        except Exception as error:
            raise RactdError(f"Minari {dataset_id}: can't be opened ({error}); {_advice(dataset_id)}") from error


def flatten(space: Any, values: Any, where: str = "observation") -> Array:
    """Flatten T observations of a Gymnasium space to [T, dimensions], as `gymnasium.spaces.flatten` does one."""
    kind = type(space).__name__
    if kind == "Dict":
        parts = [flatten(part, values[key], where) for key, part in space.spaces.items()]
    elif kind == "Tuple":
        parts = [flatten(part, values[position], where) for position, part in enumerate(space.spaces)]
    elif kind == "Box" or kind == "MultiBinary":
        return np.asarray(values).reshape(len(values), -1)
    elif kind == "Discrete":
        one_hot: Array = np.eye(int(space.n), dtype=np.float32)[np.asarray(values).reshape(-1) - int(space.start)]
        return one_hot
    else:
        raise RactdError(
            f"{where}: observations of {space} can't be flattened to numbers, expected Box, Discrete, Dict or Tuple"
        )
    return np.concatenate(parts, axis=1)
