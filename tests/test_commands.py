"""The commands' assembly: what is imported for which, and words that name none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from conftest import Answer, environment

import ractd
from ractd.commands import COMMANDS

WITHOUT_TORCH = """
import sys
from contextlib import suppress
from ractd.cli import main

for line in ("--help", "--version", "data --help", "data list"):
    sys.argv = ["ractd", *line.split()]
    with suppress(SystemExit):
        main()
    assert "torch" not in sys.modules, line
print(*sorted(name for name in sys.modules if name.startswith("ractd.commands.")))
"""


def test_only_what_the_named_command_needs_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"ractd {ractd.__version__}\n" in done.stdout
    assert "hopper-mixed" in done.stdout
    imported = {name.removeprefix("ractd.commands.") for name in done.stdout.splitlines()[-1].split()}
    assert imported & COMMANDS.keys() == {"data"}


def test_help_names_every_command_in_a_line(cli: Callable[..., Answer]) -> None:
    lines = cli("--help").out.splitlines()
    for name, summary in COMMANDS.items():
        assert sum(line.split() == [name, *summary.split()] for line in lines) == 1, name
    assert max(map(len, lines)) < 80, "a terminal of 80 columns breaks no line"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian", "x.hdf5"], "there is no command 'trian'; did you mean 'train'? There are: train, eval, report"),
        (["fly"], "there is no command 'fly'. There are: train"),
        (["train", "x.hdf5", "--preset", "dmeo"], "there is no preset 'dmeo'; did you mean 'demo'? There are: cpu"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(words: list[str], said: str, cli: Callable[..., Answer]) -> None:
    answer = cli(*words)
    assert answer.code == 2
    assert answer.out == ""
    (line,) = answer.err.splitlines()
    assert line.startswith(f"error: {said}")


def test_a_mistyped_option_is_answered_with_the_nearest_of_its_command(cli: Callable[..., Answer]) -> None:
    answer = cli("train", "x.hdf5", "--sed", "3")
    assert answer.code == 2
    assert "--seed" in answer.err
    assert "--seeds" not in answer.err, "an option of 'ractd sweep'"


@pytest.mark.parametrize("words", [["--help"], ["data", "list"]])
def test_output_that_nobody_reads_ends_quietly(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ractd.cli", *words],
            stdout=write,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    finally:
        os.close(write)
    assert done.returncode in (1, 141), "as others that are stopped by a closed pipe"
    assert done.stderr == b""
