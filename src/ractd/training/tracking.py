"""Metrics where a team looks at them: Weights & Biases or trackio, through accelerate, where one of them is installed."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ractd.errors import RactdError

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

TrackerName = Literal["trackio", "wandb"]
PROJECT = "ractd"
"""Of both services: where runs are seen side by side."""


class Tracking:
    """A run as a service shows it, under the name of its directory; the same run again when it goes on.

    Each stage counts its own steps, so they are a metric of their own, `STAGE/step`, to be put on the horizontal axis.
    """

    def __init__(self, tracker: GeneralTracker) -> None:
        self._tracker = tracker
        self._stages: set[str] = set()

    def log(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Record the metrics of a step."""
        if stage not in self._stages:
            self._stages.add(stage)
            if self._tracker.name == "wandb":
                self._tracker.tracker.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._tracker.log({f"{stage}/{name}": value for name, value in {"step": step, **values}.items()})

    def scores(self, scores: dict[str, float]) -> None:
        """Record what a run's policies are worth, by name."""
        self._tracker.log(scores)


def require(name: TrackerName) -> None:
    """Raise `RactdError` where a service's package is not installed."""
    try:
        importlib.import_module(name)
    except ImportError:
        raise RactdError(f"--track {name}: {name} is not installed: pip install 'ractd[track]'") from None


@contextmanager
def tracking(name: TrackerName, directory: Path, run: Mapping[str, Any]) -> Iterator[Tracking]:
    """Begin or continue to show the run of a directory, as its file describes it, and send everything at the end.

    Raises `RactdError` where the service refuses.
    """
    identity = hashlib.sha256(json.dumps([directory.name, run["invocations"][0]]).encode()).hexdigest()[:8]
    try:
        tracker = _started(name, directory, f"{directory.name}-{identity}")
        tracker.store_init_configuration({key: run[key] for key in ("config", "dataset", "teacher_from", "plain")})
    except Exception as error:  # each service has its own
        raise RactdError(f"--track {name}: can't begin ({str(error).strip() or type(error).__name__})") from error
    try:
        yield Tracking(tracker)
    finally:
        tracker.finish()


def _started(name: TrackerName, directory: Path, run: str) -> Any:
    from accelerate.tracking import TrackioTracker, WandBTracker

    if name == "wandb":
        tracker: Any = WandBTracker(PROJECT, id=run, name=directory.name, dir=str(directory), resume="allow")
    else:
        tracker = TrackioTracker(PROJECT, name=run, resume="allow", embed=False)
    tracker.start()
    return tracker
