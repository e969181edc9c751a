"""Results of runs as tables, for terminals and notebooks."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape as html
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ractd.runs.latency import busy_sentence

if TYPE_CHECKING:
    from ractd.runs.rows import Result, Row


@dataclass(frozen=True)
class Cells:
    """The text of a table; the first cell names the row."""

    title: str
    columns: list[str]
    """Empty for a table that needs no headings."""
    rows: list[list[str]]
    strong: Collection[int] = ()
    """Numbers of the rows that stand out."""
    sortable: bool = False
    """Whether a page lets people sort it by the numbers that its cells begin with."""
    caption: str = ""


def cells_of(result: Result) -> Cells:
    """Return what there is to show of a result."""
    if not result.content:
        return Cells(f"{result.directory}: no result yet", [], [])
    return _of_run(result) if "behavior" in result.content else _of_evaluation(result)


def table_of(result: Result) -> Table:
    """Return a result as a table for people."""
    cells = cells_of(result)
    table = Table(
        title=escape(cells.title),
        title_justify="left",
        caption=escape(cells.caption) or None,
        caption_justify="left",
        show_header=bool(cells.columns),
    )
    for index, heading in enumerate(cells.columns):
        table.add_column(escape(heading), justify="left" if index == 0 or heading == "checkpoint" else "right")
    if not cells.columns:
        table.add_column(style="bold")
        table.add_column()
    for index, line in enumerate(cells.rows):
        table.add_row(*map(escape, line), style="bold" if index in cells.strong else None)
    return table


def as_text(result: Result) -> str:
    """Return a result as a table of text, as wide as the terminal."""
    if not result.content:
        return cells_of(result).title
    text = io.StringIO()
    width = shutil.get_terminal_size((100, 24)).columns
    Console(file=text, width=width, force_jupyter=False, force_terminal=False).print(table_of(result))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def as_html(result: Result) -> str:
    """Return a result as an HTML table."""
    cells = cells_of(result)
    head = "".join(f"<th>{html(heading)}</th>" for heading in cells.columns)
    parts = [f"<table><caption>{html(cells.title)}</caption>", f"<thead><tr>{head}</tr></thead><tbody>"]
    for index, (first, *others) in enumerate(cells.rows):
        style = ' style="font-weight: bold"' if index in cells.strong else ""
        line = "".join(f"<td>{html(cell)}</td>" for cell in others)
        parts.append(f"<tr{style}><th>{html(first)}</th>{line}</tr>")
    return "".join([*parts, f"</tbody></table><p>{html(cells.caption)}</p>"])


def with_error(mean: float | None, error: float | None, digits: int = 1) -> str:
    """Return mean ± standard error, the mean alone where there is no error (None or NaN), and nothing where there is no mean."""
    if mean is None or math.isnan(mean):
        return ""
    # z: what rounds to zero is not shown as -0.
    return f"{mean:z,.{digits}f}" + ("" if error is None or math.isnan(error) else f" ± {error:,.{digits}f}")


def with_interval(mean: float, low: float, high: float) -> str:
    """Return mean [low, high], the mean alone where the bounds are NaN, and nothing where the mean is."""
    return with_error(mean, None) + ("" if math.isnan(low) else f" [{low:,.1f}, {high:,.1f}]")


def measured_columns(rows: Sequence[Row], behavior: Mapping[str, Any], timed: str) -> dict[str, list[str]]:
    """Return what a run's rows say by heading, the data's cell first; a cell is empty where there is nothing to say.

    `behavior` is what the run's result says of its data, and `timed` what milliseconds are for.
    """
    simulated = not rows or any(row.protocol for row in rows)
    offline = [{} if simulated else row.offline for row in rows]
    of_data = {} if simulated else {"distance_to_data": 0.0}
    estimates = [each.get("estimated_return_of_data") for each in offline[:1]]
    estimates += [each.get("estimated_return") for each in offline]
    returns = [behavior.get("mean_return") if simulated else None, *(row.mean_return for row in rows)]
    unknown = [None] * (len(rows) + 1)
    return {
        "score ± s.e.": _texts(
            [behavior.get("mean_score"), *(row.mean_score for row in rows)], [None, *(row.score_se for row in rows)], 1
        ),
        "return ± s.e.": _texts(returns, [None, *(row.return_se for row in rows)], _digits(returns)),
        "estimated return": _texts(estimates or unknown, unknown, _digits(estimates)),
        "distance to data": _texts([each.get("distance_to_data") for each in (of_data, *offline)], unknown, 2),
        "reached": ["", *("" if row.success_rate is None else f"{row.success_rate:.0%}" for row in rows)],
        "NFE": ["", *(str(row.nfe) for row in rows)],
        f"ms/{timed}": _texts([None, *(row.ms_per_action for row in rows)], unknown, 2),
    }


def _texts(means: Sequence[float | None], errors: Sequence[float | None], digits: int) -> list[str]:
    return [with_error(mean, error, digits) for mean, error in zip(means, errors, strict=True)]


def _of_run(result: Result) -> Cells:
    """Return the rows of a run; the variant that the run is about stands out."""
    rows = result.rows
    timed = "plan" if any(row.plans for row in rows) else "action"
    columns = {"policy": ["behaviour data", *(row.variant for row in rows)]}
    if len({row.variant for row in rows}) < len(rows):
        columns["checkpoint"] = ["", *(row.checkpoint for row in rows)]
    measured = measured_columns(rows, result.content["behavior"], timed)
    columns |= {heading: cells for heading, cells in measured.items() if any(cells)}
    lines = [list(line) for line in zip(*columns.values(), strict=True)]
    strong = tuple(i for i, row in enumerate(rows, 1) if (row.variant, row.policy) == (rows[0].variant, rows[0].policy))
    return Cells(result.content["dataset"]["name"], list(columns), lines, strong, caption=_caption(result))


def _of_evaluation(result: Result) -> Cells:
    """Return what was measured of one policy."""
    (row,) = result.rows
    e = row.protocol
    assert e is not None  # an evaluation plays episodes
    lines: list[list[str]] = []
    if row.mean_score is not None:
        lines.append(["normalised score", with_error(row.mean_score, row.score_se)])
    lines.append(["return", with_error(row.mean_return, row.return_se, max(1, _digits([row.mean_return])))])
    if row.plans:
        lines.append(["reached the goal", f"{row.success_rate:.0%} of the episodes"])
        lines.append(["time to plan", f"{row.plan_ms_per_episode:,.1f} ms an episode, at batch 1"])
    limit = f" of at most {e.max_episode_steps:,}" if e.max_episode_steps else ""
    lines.append(
        [
            "episodes",
            f"{e.episodes} ({e.backend}, seeds from {e.seed}), {row.mean_length:,.0f} steps on average" + limit,
        ]
    )
    lines.append(
        [
            "executed",
            "first action of each sequence" if e.execute == 1 else f"first {e.execute} actions of each sequence",
        ]
    )
    lines.append(
        ["sampling", f"{row.sampler}, {row.steps} steps, {row.candidates} candidates, {row.nfe} network evaluations"]
    )
    unit = "plan" if row.plans else "action"
    lines.append([f"time per {unit}", f"{_milliseconds(row)} ms (median, 80% of calls) at batch 1 on {_threads(row)}"])
    if row.ms_per_action and (beside := result.content.get("beside")):
        times = row.ms_per_action / beside["ms_per_action"]
        lines.append(["", f"{times:.3g} times that of {beside['policy']}, timed in turns with it"])
    if busy := busy_sentence(result.content.get("load")):
        lines.append(["", busy])
    lines.append(["checkpoint", row.selection + (f" (step {row.step:,})" if row.step else "")])
    return Cells(f"{row.variant} in {e.env_id}", [], lines)


def _milliseconds(row: Row) -> str:
    """Return the median time and between which times 80% of the calls were."""
    spread = "" if row.ms_low is None else f" [{row.ms_low:.2f}, {row.ms_high:.2f}]"
    return with_error(row.ms_per_action, None, 2) + spread


def _spread_of_times(rows: Sequence[Row]) -> str:
    """Return between what multiples of their medians 80% of the calls are, of the policy with the widest spread."""
    timed = [(row.ms_low, row.ms_per_action, row.ms_high) for row in rows]
    low = [low / median for low, median, _ in timed if low and median]
    high = [high / median for _, median, high in timed if high and median]
    return f", 80% of calls within {min(low):.2g} to {max(high):.2g} times these" if low and high else ""


def _digits(values: Iterable[float | None]) -> int:
    """Return the decimals that show three digits of the largest of some numbers, whatever their unit."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    return min(max(0, 2 - math.floor(math.log10(largest))), 6) if largest else 1


def _threads(row: Row) -> str:
    return f"{row.threads} thread{'s' if row.threads != 1 else ''}"


def _caption(result: Result) -> str:
    if not result.rows:
        return ""
    times = f"times: batch 1, {_threads(result.rows[0])}, medians, policies in turns{_spread_of_times(result.rows)}"
    return f"{protocol_sentence(result.rows)}; {times}. {busy_sentence(result.content.get('load'))}".rstrip()


def protocol_sentence(rows: Sequence[Row]) -> str:
    """Say how the episodes of a result were played, or what its numbers are where none were; without a full stop."""
    row = rows[0]
    e = row.protocol
    if e is None and all(each.estimated_return is None for each in rows):
        return "No environment was given: there is no return model either, so nothing says which policy is better"
    if e is None:
        return "No environment was given: returns are the return model's estimates of the discounted return-to-go"
    best = any(each.selection == "online" for each in rows)
    checkpoint = "best checkpoint by evaluations during training" if best else "last checkpoint"
    if best and any(each.checkpoint == "last" and each.variant == row.variant for each in rows):
        checkpoint = "best: the best checkpoint by evaluations during training"
    what = "closed loop" if e.execute == 1 else f"{e.execute} actions of each sequence"
    if row.plans:
        what += " before the next plan; reached: came to the goal at all"
    reference = "; score: D4RL's normalisation" if row.scores is not None else ""
    return f"{e.episodes} episodes in {e.env_id} ({e.backend}), {what}; {checkpoint}{reference}"
