"""From a trained policy to files that run without PyTorch, verified before they appear."""

from __future__ import annotations

from ractd.export.exporter import Exported, export_graph, export_policy

__all__ = ["Exported", "export_graph", "export_policy"]
