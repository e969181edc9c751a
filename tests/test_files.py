"""Directories: those that hold something else are left alone, those of ours appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ractd.errors import RactdError
from ractd.files import refuse_foreign, replacing_directory


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


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fill(text: str, fail: bool = False) -> None:
        with replacing_directory(tmp_path / "out", last="b") as partial:
            (partial / "b").write_text(text)
            assert not (tmp_path / "out" / "a").exists() or (tmp_path / "out" / "a").read_text() != text
            if fail:
                raise OSError(28, "No space left on device")
            (partial / "a").write_text(text)

    with pytest.raises(RactdError, match=r"out: could not be written \(No space left on device\); nothing was changed"):
        fill("0", fail=True)
    assert list(tmp_path.iterdir()) == []
    fill("1")
    with pytest.raises(RactdError):
        fill("2", fail=True)
    assert [(tmp_path / "out" / name).read_text() for name in ("a", "b")] == ["1", "1"]
    (tmp_path / "out" / "notes").write_text("mine")
    fill("3")
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "a": "3",
        "b": "3",
        "notes": "mine",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
