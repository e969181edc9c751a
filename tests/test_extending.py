"""The examples of docs/extending.md; tests/test_docs.py runs each of them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def test_every_example_is_on_the_page_and_under_a_hundred_lines() -> None:
    shown = set(re.findall(r"python (examples/own_\w+\.py)", PAGE))
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("own_*.py")}
    assert shown == there
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in there}
    assert max(lengths.values()) < 100, lengths
