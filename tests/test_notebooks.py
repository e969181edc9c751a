"""The notebooks of examples/ run from their first cell to their last: `make proofs` runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples").glob("*.ipynb"))
SHOWN = {
    "compare_on_your_data": ["behaviour: mean return", "worst_seed", "bc:share=0.1,optimization.steps=1000"],
    "from_logs_to_a_policy": ["RACTD -", "best tenth cloned -", "bc: step 1,000 of 1,000", "<table><caption>cart"],
    "own_method": ["weighted cloning</th>", "own: step 1,000 of 1,000", "did you mean 'beta'?"],
}
"""What is to be read in what a notebook's cells put out."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_what_it_put_out(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert path.stem in SHOWN


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    client.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "\n".join(_text(output) for output in outputs)
    for expected in SHOWN[path.stem]:
        assert expected in text


def _text(output: Any) -> str:
    data = output.get("data", {})
    return str(output.get("text", "")) + "".join(
        str(data[kind]) for kind in ("text/html", "text/plain") if kind in data
    )
