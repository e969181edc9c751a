"""Metrics of a run: JSON lines, TensorBoard, and the progress that a person sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ractd.errors import RactdError
from ractd.files import replacing
from ractd.training.tracking import Tracking


class Metrics:
    """Writes `metrics.jsonl` and TensorBoard files of a run directory, and shows progress on the console.

    `tracking` shows the same metrics elsewhere.
    """

    def __init__(
        self, directory: Path | None, console: Console | None = None, tracking: Tracking | None = None
    ) -> None:
        self.directory, self.console, self.tracking = directory, console, tracking
        self.path = directory / "metrics.jsonl" if directory else None
        self.pending: list[str] = []
        self.board: Any = None
        self.progress: Progress | None = None
        self.task = TaskID(0)
        self.steps = 0

    def begin(self, stage: str, step: int, steps: int) -> None:
        """Start or continue a stage at `step`; lines of later steps, of a run that was killed, are dropped."""
        self.steps, self.announced = steps, step * 10 // max(steps, 1)
        if self.path and self.path.exists():
            lines = self.path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and not _is_later(json.loads(line), stage, step)]
            if len(kept) < len(lines):
                with replacing(self.path) as partial:
                    partial.write_text("".join(kept))
        self.close()
        if self.directory and step < steps:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.directory / "tensorboard" / stage), purge_step=step or None)
        if self.console and self.console.is_terminal and step < steps:
            self.progress = Progress(
                TextColumn("{task.description:>8}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", style="dim"),
                console=self.console,
            )
            self.progress.start()
            self.task = self.progress.add_task(stage, total=steps, completed=step, rate="", note="")

    def tick(self, step: int) -> None:
        """Show that a step is done."""
        if self.progress:
            self.progress.update(self.task, completed=step)

    def log(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Record the metrics of a step."""
        if self.path:
            self.pending.append(json.dumps({"stage": stage, "step": step, **values}) + "\n")
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(f"{stage}/{name}", value, step)
        if self.tracking:
            self.tracking.log(stage, step, values)
        losses = {name.removesuffix("/loss"): value for name, value in values.items() if name.split("/")[-1] == "loss"}
        note = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        rate = f"{values.get('samples_per_second', 0):,.0f} samples/s"
        if self.progress:
            self.progress.update(self.task, completed=step, rate=rate, note=note)
        elif self.console and step * 10 // self.steps > self.announced:
            self.announced = step * 10 // self.steps
            self.console.print(f"{stage}: step {step:,} of {self.steps:,}, {note}, {rate}", highlight=False)

    def flush(self) -> None:
        """Put everything on disk; raises `RactdError` where it can't be written."""
        lines, board = self.pending, self.board
        # Cleared first: closing after a failure must not fail again, nor append to a torn line.
        self.pending, self.board = [], None
        try:
            if self.path and lines:
                with open(self.path, "a") as file:
                    file.writelines(lines)
            if board:
                board.flush()
        except OSError as error:
            raise RactdError(
                f"{self.path}: could not be written ({error}); the run goes on from its last checkpoint when it can be"
            ) from error
        self.board = board

    def close(self) -> None:
        """Flush and let go of files and the terminal."""
        self.flush()
        if self.board:
            self.board.close()
            self.board = None
        if self.progress:
            self.progress.stop()
            self.progress = None


def _is_later(line: dict[str, Any], stage: str, step: int) -> bool:
    return bool(line["stage"] == stage and line["step"] > step)
