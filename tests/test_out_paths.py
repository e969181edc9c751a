"""Places that can't be written to, for every command that writes: one sentence, nothing left, nothing lost."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Answer, Trained, options

Cli = Callable[..., Answer]


def commands(trained: Trained, out: Path) -> dict[str, tuple[str | Path, ...]]:
    """Every command that writes where the user says, with that place."""
    return {
        "train": ("train", trained.dataset, "--out", out, *options()),
        "export": ("export", trained.directory, "-o", out),
        "report": ("report", trained.directory, "-o", out.with_name(out.name + ".html"), "--no-video"),
        "make": ("data", "make", "hopper-mixed", "--steps", "50", "--directory", out),
        "collect": (
            "data",
            "collect",
            "InvertedPendulum-v5",
            "--steps",
            "200",
            "--transitions",
            "50",
            "--directory",
            out,
        ),
        "sweep": ("sweep", trained.dataset, "--seeds", "1", "--out", out, "--", *options()),
        "reproduce": ("reproduce", "table1", "--datasets", trained.dataset, "--no-train", "--out", out),
        "reproduce, runs": (
            "reproduce",
            "table1",
            "--datasets",
            trained.dataset,
            "--runs",
            out,
            "--out",
            out.parent / "t",
        ),
    }


NAMES = ("train", "export", "report", "make", "collect", "sweep", "reproduce", "reproduce, runs")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "report")) for n in NAMES])
@pytest.mark.parametrize("place", ["long", "long part", "below a file", "links in a circle"])
def test_places(
    place: str, name: str, trained: Trained, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    os.symlink(tmp_path / "circle", tmp_path / "circle")
    out, said = {
        "long": (tmp_path / ("x" * 300), "too long"),
        "long part": (tmp_path / ("x" * 300) / "out", "too long"),
        "below a file": (tmp_path / "file" / "out", "is a file|Not a directory"),
        "links in a circle": (tmp_path / "circle" / "out", "lead in a circle|levels of symbolic links"),
    }[place]
    if name == "collect":
        # Its place is looked at before hours of training.
        monkeypatch.setattr("ractd.recipes.collect._sac", lambda *_: pytest.fail("the place can't be written to"))
    answer = cli(*commands(trained, out)[name])
    assert answer.code == 2, answer.out + answer.err
    lines = answer.err.splitlines()
    assert len(lines) == 1, answer.err
    assert lines[0].startswith("error: ")
    assert re.search(said, lines[0])
    assert (tmp_path / "file").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "circle"}


@pytest.mark.parametrize(
    "words", [("train",), ("data", "inspect"), ("data", "validate"), ("eval",), ("export",), ("report",)]
)
def test_names_that_are_too_long_to_be_read(words: tuple[str, ...], cli: Cli, tmp_path: Path) -> None:
    more = ("-o", tmp_path / "out") if words == ("export",) else ()
    answer = cli(*words, "x" * 300, *more)
    assert answer.code == 2
    assert len([line for line in (answer.out + answer.err).splitlines() if line.startswith("error: ")]) == 1
    assert list(tmp_path.iterdir()) == []
