"""Results as tables for people."""

from __future__ import annotations

import math
from typing import Any

from rich.markup import escape
from rich.table import Table

from ractd.errors import RactdError
from ractd.training.latency import busy_sentence
from ractd.training.results import VARIANTS, Result


def result_table(result: Result) -> Table:
    """Return the result as a table for people."""
    content = result.content
    if "rows" not in content:
        raise RactdError(f"{result.directory}: has no result yet")
    rows = [(label, content["rows"][label]) for label in VARIANTS if label in content["rows"]]
    simulated = any("evaluation" in row for _, row in rows)
    dataset, behavior = content["dataset"], content["behavior"]
    # Data without rewards have no returns, and their policies no return model that could estimate any.
    paid = "mean_return" in behavior
    estimated = any("estimated_return" in row["offline"] for _, row in rows)
    scored = simulated and any(row["evaluation"]["mean_score"] is not None for _, row in rows if "evaluation" in row)
    table = Table(
        title=escape(dataset["name"]),
        title_justify="left",
        caption=_caption(content, simulated),
        caption_justify="left",
    )
    table.add_column("policy")
    if scored:
        table.add_column("score ± s.e.", justify="right")
    if simulated:
        table.add_column("return ± s.e.", justify="right")
    else:
        if estimated:
            table.add_column("estimated return", justify="right")
        table.add_column("distance to data", justify="right")
    plans = any("success_rate" in row for _, row in rows)
    if plans:
        table.add_column("reached", justify="right")
    table.add_column("NFE", justify="right")
    table.add_column("ms/plan" if plans else "ms/action", justify="right")
    data_cells = [f"{behavior['mean_score']:.1f}" if paid else ""] if scored else []
    if simulated:
        of_data = [behavior["mean_return"]] if paid else []
        digits = _digits([*of_data, *(row["evaluation"]["mean_return"] for _, row in rows)])
        data_cells.append(f"{behavior['mean_return']:,.{digits}f}" if paid else "")
    elif rows:
        if estimated:
            of_data = rows[0][1]["offline"]["estimated_return_of_data"]
            digits = _digits([of_data, *(row["offline"]["estimated_return"] for _, row in rows)])
            data_cells.append(f"{of_data:,.{digits}f}")
        data_cells.append("0")
    table.add_row("behaviour data", *data_cells, *[""] * (3 if plans else 2))
    for label, row in rows:
        cells = []
        if simulated:
            e = row["evaluation"]
            if scored:
                cells.append(_with_error(e["mean_score"], e["score_se"], 1))
            cells.append(_with_error(e["mean_return"], e["return_se"], digits))
        else:
            offline = row["offline"]
            cells += [f"{offline['estimated_return']:,.{digits}f}"] if estimated else []
            cells.append(f"{offline['distance_to_data']:.2f}")
        if plans:
            cells.append(f"{row['success_rate']:.0%}")
        style = "bold" if label == "RACTD" else None
        table.add_row(
            label, *cells, str(row["nfe"]), f"{row['ms_per_action']:.2f}" if "ms_per_action" in row else "", style=style
        )
    return table


def _milliseconds(row: dict[str, Any]) -> str:
    """Return the median time and between which times 80% of the calls were; nothing of a run that ended before."""
    if "ms_per_action" not in row:
        return ""
    spread = f" [{row['ms_low']:.2f}, {row['ms_high']:.2f}]" if "ms_low" in row else ""
    return escape(f"{row['ms_per_action']:.2f}{spread}")


def _spread_of_times(rows: list[dict[str, Any]]) -> str:
    """Return between what multiples of their medians 80% of the calls are, of the policy with the widest spread."""
    low = [row["ms_low"] / row["ms_per_action"] for row in rows if "ms_low" in row]
    high = [row["ms_high"] / row["ms_per_action"] for row in rows if "ms_high" in row]
    return f", 80% of calls within {min(low):.2g} to {max(high):.2g} times these" if low else ""


def _digits(values: list[float]) -> int:
    """Return the decimals that show three digits of the largest of some numbers, whatever their unit."""
    largest = max(map(abs, values))
    return min(max(0, 2 - math.floor(math.log10(largest))), 6) if largest else 1


def _with_error(mean: float, error: float | None, digits: int) -> str:
    """Return mean ± standard error; one episode has none."""
    return f"{mean:,.{digits}f}" + ("" if error is None else f" ± {error:,.{digits}f}")


def _caption(content: dict[str, Any], simulated: bool) -> str:
    row: dict[str, Any] = next(iter(content["rows"].values()), {})
    if not row:
        return ""
    times = f"times: batch 1, {row['threads']} thread{'s' if row['threads'] > 1 else ''}, medians, policies in turns"
    times += _spread_of_times(list(content["rows"].values()))
    busy = busy_sentence(content.get("load"))
    busy = f" {busy}" if busy else ""
    if not simulated:
        told = "returns are the return model's estimates of the discounted return-to-go"
        if "estimated_return" not in row["offline"]:
            told = "there is no return model either, so nothing says which policy is better"
        return f"No environment was given: {told}; {times}.{busy}"
    e = row["evaluation"]
    selected = {r["selection"] for r in content["rows"].values()}
    protocol = "best checkpoint by evaluations during training" if "online" in selected else "last checkpoint"
    what = "closed loop" if e["execute"] == 1 else f"{e['execute']} actions of each sequence"
    if "success_rate" in row:
        what += " before the next plan; reached: came to the goal at all"
    reference = "; score: D4RL's normalisation" if e["mean_score"] is not None else ""
    return f"{e['episodes']} episodes in {e['env_id']} ({e['backend']}), {what}; students: {protocol}{reference}; {times}.{busy}"


def evaluation_table(row: dict[str, Any]) -> Table:
    """Return one evaluation as a table for people."""
    e = row["evaluation"]
    table = Table(show_header=False, title=f"{row['label']} in {e['env_id']}", title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    if e["mean_score"] is not None:
        table.add_row("normalised score", _with_error(e["mean_score"], e["score_se"], 1))
    table.add_row("return", _with_error(e["mean_return"], e["return_se"], max(1, _digits([e["mean_return"]]))))
    if "success_rate" in row:
        table.add_row("reached the goal", f"{row['success_rate']:.0%} of the episodes")
        table.add_row("time to plan", f"{row['plan_ms_per_episode']:,.1f} ms an episode, at batch 1")
    limit = f" of at most {e['max_episode_steps']:,}" if e["max_episode_steps"] else ""
    table.add_row(
        "episodes",
        f"{e['episodes']} ({e['backend']}, seeds from {e['seed']}), {e['mean_length']:,.0f} steps on average" + limit,
    )
    table.add_row(
        "executed",
        "first action of each sequence" if e["execute"] == 1 else f"first {e['execute']} actions of each sequence",
    )
    table.add_row(
        "sampling",
        f"{row['sampler']}, {row['steps']} steps, {row['candidates']} candidates, {row['nfe']} network evaluations",
    )
    unit = "plan" if "success_rate" in row else "action"
    beside = row.get("student_ms_per_action")
    threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
    table.add_row(f"time per {unit}", f"{_milliseconds(row)} ms (median, 80% of calls) at batch 1 on {threads}")
    if beside:
        table.add_row("", f"{row['ms_per_action'] / beside:.3g} times the student's, timed in turns with it")
    if busy := busy_sentence(row.get("load")):
        table.add_row("", busy)
    table.add_row(
        "checkpoint", f"{row['selection']}" + (f" (step {row['selected_step']:,})" if row["selected_step"] else "")
    )
    return table
