"""`ractd report`. Heavy imports wait until it runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ractd.commands.consoles import out, say
from ractd.commands.parsing import read


@dataclass
class Report:
    """Show a run, or several side by side, as one HTML file that works offline; the plots also become PNG files.

    An unfinished or broken run is shown as far as it goes. Needs the extra 'report': pip install "ractd[report]".
    """

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN...")]
    """Run directories."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE.html")] = None
    """The page; by default RUN/report.html, for several runs report.html. The PNG files go to the folder of that name."""
    video: bool = True
    """Play a few episodes and film the best and the worst."""

    def run(self) -> None:
        from ractd.report import write_report

        written = write_report(self.runs, self.out, video=self.video, console=out)
        for what in written.missing:
            say(f"not shown: {what}")
        say(f"wrote {written.page} and {len(written.pictures)} pictures in {written.page.with_suffix('')}")


parse = partial(read, Report, "report")
