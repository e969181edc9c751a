"""What an export says when it is done."""

from __future__ import annotations

from ractd.envs.evaluate import EvaluationResult
from ractd.export.exporter import Exported
from ractd.export.verify import BATCHES


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
        torch, graph_score = exported.scores
        unit = "return" if torch.scores is None else "score"
        values = [_value(evaluation) for evaluation in exported.scores]
        lines.append(
            f"{unit} in {torch.env_id}, {torch.episodes} episodes: PyTorch {_text(torch)}, graph {_text(graph_score)}, "
            f"difference {values[1] - values[0]:+.1f}"
        )
    elif precision != "fp32" and exported.contract["environment"] is not None:
        lines.append(f"what {precision} does to the score is not measured: --check-episodes 50 does it")
    lines.append(f"contract: {exported.directory / 'policy.json'}")
    return "\n".join(lines)


def _value(evaluation: EvaluationResult) -> float:
    return evaluation.mean_return if evaluation.mean_score is None else evaluation.mean_score


def _text(evaluation: EvaluationResult) -> str:
    error = evaluation.return_se if evaluation.score_se is None else evaluation.score_se
    return f"{_value(evaluation):.1f} ± {0 if error != error else error:.1f}"
