"""What an export says when it is done."""

from __future__ import annotations

from ractd.export.exporter import Exported
from ractd.export.verify import BATCHES
from ractd.runs.tables import with_error


def summary(exported: Exported) -> str:
    """Return a few lines: the graph, how far it is from PyTorch, and the scores where they were measured."""
    graph, sampling = exported.contract["graph"], exported.contract["sampling"]
    size = sum(entry["bytes"] for entry in graph["files"].values())
    precision, difference = graph["precision"], exported.difference
    limit = f"limit {difference.limit:.2g}"
    if precision != "fp32":
        limit = f"mean {difference.mean:.2g}, {limit}"
    lines = [
        f"graph: {exported.directory / next(iter(graph['files']))}  {graph['format']}, {precision}, {size / 1e6:.2f} MB, "
        f"{sampling['network_evaluations']} network evaluations, {sampling['candidates']} candidates",
        f"largest difference from PyTorch: {difference.largest:.2g} ({limit}; actions span [-1, 1]) on "
        f"{' and '.join(sorted(difference.compared))} observations at batch {', '.join(map(str, BATCHES))}",
    ]
    if exported.scores is not None:
        unit = "return" if exported.scores[0].scores is None else "score"
        torch, graph_score = (
            (e.mean_return, e.return_se) if e.mean_score is None else (e.mean_score, e.score_se)
            for e in exported.scores
        )
        lines.append(
            f"{unit} in {exported.scores[0].env_id}, {exported.scores[0].episodes} episodes: PyTorch {with_error(*torch)}, "
            f"graph {with_error(*graph_score)}, difference {graph_score[0] - torch[0]:+.1f}"
        )
    elif precision != "fp32" and exported.contract["environment"] is not None:
        lines.append(f"what {precision} does to the score is not measured: --check-episodes 50 does it")
    lines.append(f"contract: {exported.directory / 'policy.json'}")
    return "\n".join(lines)
