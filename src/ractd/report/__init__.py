"""A run, or several, as one HTML file that works offline, and the same plots as PNG files.

`write_report(runs)` is what `ractd report` calls. It needs the extra `report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ractd.errors import RactdError

if TYPE_CHECKING:
    from ractd.report.build import Written
    from ractd.results.comparison import MethodRows


def write_report(
    runs: Sequence[str | Path], out: str | Path | None = None, *, video: bool = True, console: Console | None = None
) -> Written:
    """Write the report of one or more run directories and return where it is.

    `out` is the HTML file, by default RUN/report.html, for several runs report.html in the working directory; the PNG files
    go into the folder of the same name without `.html`. `video` also plays and films episodes. What a run hasn't got is
    named in the report. Raises `RactdError` for a directory that is no run, a name that doesn't end in .html, and where
    the extra is not installed.
    """
    with _extra():
        from ractd.report.build import build
    if not runs:
        raise RactdError("a report needs at least one run directory")
    directories = [Path(run) for run in runs]
    path = Path(out) if out is not None else (directories[0] if len(runs) == 1 else Path()) / "report.html"
    if path.suffix != ".html" or path.is_dir():
        raise RactdError(f"{path}: can't be the report; give the name of a file that ends in .html")
    return build(directories, path, video, console or Console(quiet=True))


def report_of_run(run: Path, console: Console) -> str:
    """Write the report of a run that has just ended, and return the line that says so, or why there is none."""
    page = run / "report.html"
    if page.exists() and page.stat().st_mtime >= (run / "result.json").stat().st_mtime:
        return f"report: {page}"
    return _line(lambda: write_report([run], console=console).page)


def report_of_runs(runs: Sequence[Path], page: Path, console: Console) -> str:
    """Write one report, without videos, of those runs that were scored, and return the line that says so, or why there is none."""
    scored = [run for run in dict.fromkeys(runs) if (run / "result.json").exists()]
    if not scored:
        return "no report: no run was scored yet"
    return _line(lambda: write_report(scored, page, video=False, console=console).page)


def report_of_methods(found: MethodRows, missing: Sequence[str], page: Path) -> str:
    """Write the page of a comparison, and return the line that says so, or why there is none."""

    def write() -> Path:
        with _extra():
            from ractd.report.comparison import write_comparison
        return write_comparison(found, missing, page)

    return _line(write)


def _line(write: Callable[[], Path]) -> str:
    try:
        return f"report: {write()}"
    except Exception as error:  # no report is worth a training
        return f"no report: {error}"


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise RactdError(f'the report needs {error.name}: pip install "ractd[report]"') from None
