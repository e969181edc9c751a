"""Directories that hold something else are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ractd.errors import RactdError
from ractd.files import refuse_foreign


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    refuse_foreign(tmp_path / "new", "run", "config.json")
    refuse_foreign(tmp_path, "run", "config.json")
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.json.7.partial").touch()
    refuse_foreign(tmp_path, "run", "config.json")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RactdError, match=r"is not empty and no run \(it holds 'thesis.tex'\); use another --out"):
        refuse_foreign(tmp_path, "run", "config.json")
    with pytest.raises(RactdError, match="is a file, expected a directory; use another -o"):
        refuse_foreign(tmp_path / "thesis.tex", "run", "config.json", "-o")


def test_a_marker_of_another_format_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('{"format": "theirs"}')
    refuse_foreign(tmp_path, "exported policy", "policy.json", format="theirs")
    with pytest.raises(RactdError, match="no exported policy"):
        refuse_foreign(tmp_path, "exported policy", "policy.json", format="ours")
    (tmp_path / "policy.json").write_text("[]")
    with pytest.raises(RactdError, match="no exported policy"):
        refuse_foreign(tmp_path, "exported policy", "policy.json", format="ours")
