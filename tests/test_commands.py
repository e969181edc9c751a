"""The commands' assembly: what is imported for which, and words that name none."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, environment
from dataset_factory import make
from rich.console import Console

import ractd
from ractd.commands import COMMANDS
from ractd.commands.train import settings_of
from ractd.commands.train_options import dataset_in, spelt
from ractd.data import write_hdf5
from ractd.methods import METHODS, Method, method_named
from ractd.methods.places import places
from ractd.methods.ractd_settings import PRESETS
from ractd.settings import Settings
from ractd.stopping import stop_requests

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
    ("words", "begin", "end"),
    [
        (["trian", "x.hdf5"], "unknown command 'trian', expected one of train, eval", "data; did you mean 'train'?"),
        (["fly"], "unknown command 'fly', expected one of train, eval", "sweep, reproduce, data"),
        (["--versoin"], "unknown option '--versoin', expected one of --help, --version", "did you mean '--version'?"),
        (["data", "lst"], "unknown command 'lst', expected one of list, inspect", "did you mean 'list'?"),
        (
            ["train", "x.hdf5", "--method", "bc", "--student.optimization.steps", "5"],
            "--student.optimization.steps is no option of method 'bc', but of ractd",
            "; did you mean --bc.optimization.steps?",
        ),
        (
            ["train", "x.hdf5", "--method", "iql", "--preset", "demo"],
            "unknown preset of iql 'demo', expected one of cpu",
            "; it is one of ractd",
        ),
        (
            ["train", "x.hdf5", "--preset", "dmeo"],
            "unknown preset of ractd 'dmeo', expected one of following, cpu, demo",
            "; did you mean 'demo'?",
        ),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    words: list[str], begin: str, end: str, cli: Callable[..., Answer]
) -> None:
    answer = cli(*words)
    assert answer.code == 2
    assert answer.out == ""
    (line,) = answer.err.splitlines()
    assert line.startswith(f"error: {begin}")
    assert line.endswith(end)


def test_a_mistyped_option_is_answered_with_the_nearest_of_its_command(cli: Callable[..., Answer]) -> None:
    answer = cli("train", "x.hdf5", "--sed", "3")
    assert answer.code == 2
    assert "--seed" in answer.err
    assert "--seeds" not in answer.err, "an option of 'ractd sweep'"


@pytest.mark.parametrize("words", [["--help"], ["data", "list"], ["train", "--help-all"]])
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


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", b"'+-e?'"), ("cp1252", b"'\xb1\xe9?'")])
def test_a_terminal_without_a_character_shows_another(encoding: str, shown: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ractd.cli", "±é語"],
        capture_output=True,
        env=environment() | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: unknown command " + shown + b", expected one of train")


def test_help_shows_what_people_use_and_help_all_the_rest(cli: Callable[..., Answer], monkeypatch: Any) -> None:
    monkeypatch.setattr("conftest.WIDTH", "80")
    for name in METHODS:
        method = method_named(name)
        known = {place for preset in method.presets.values() for place in places(preset)}
        assert set(method.main_settings) <= known, f"{name} has no such settings"
        few, all_ = (cli("train", "--method", name, option).out for option in ("--help", "--help-all"))
        shown, everything = (set(re.findall(r"^│ (--[\w.-]+)", text, re.MULTILINE)) for text in (few, all_))
        assert 15 < len(shown) < 26
        assert shown < everything
        assert f"--help-all' shows {len(everything) - len(shown)} more" in few
        assert {spelt(place) for place in places(method.presets["cpu"]) if not place.endswith(".kind")} <= everything
        assert ("--teacher" in few, "--student-network" in all_) == (method.reuses_teacher, method.reuses_teacher)
        if name == "ractd":
            refused = " ".join(all_.split()).partition("Refused here: ")[2]
            assert "--teacher.optimization (no teacher is trained; name a preset" in refused
        assert "default: None" not in all_
        assert "{None" not in all_
        assert max(map(len, all_.splitlines())) <= 80


def test_completion_of_command_lines(cli: Callable[..., Answer], tmp_path: Path) -> None:
    script = tmp_path / "ractd.bash"
    assert cli("--tyro-write-completion", "bash", script).code == 0
    typed = {"tr": "train", "data ins": "inspect", "sweep x --va": "--vary", "train x --preset de": "demo"}
    for words, expected in typed.items():
        count = words.count(" ") + 1
        lines = f"source {script}; COMP_WORDS=(ractd {words}); COMP_CWORD={count}; _tyro_ractd; echo ${{COMPREPLY[*]}}"
        done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [expected], words
    assert all(name in script.read_text() for name in COMMANDS)


def test_the_first_ctrl_c_asks_and_the_second_stops() -> None:
    said = io.StringIO()
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_requests(Console(file=said), "stopping") as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGTERM)
        assert should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert said.getvalue() == "stopping\n"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@dataclass(frozen=True)
class ToySettings(Settings):
    """What `TOY` can be told."""

    toil: float = 0.5
    """How much."""


def nothing(*_: object) -> Any:
    """What it trains, and has to show for it."""
    return ()


TOY = Method(
    "toy", "does nothing", "nobody", {"cpu": ToySettings(), "all": ToySettings(toil=1)}, nothing, nothing, nothing
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second method."""
    monkeypatch.setitem(METHODS, "toy", "test_commands:TOY")


@pytest.mark.usefixtures("toy")
def test_the_options_are_those_of_the_method_and_its_preset(cli: Callable[..., Answer]) -> None:
    def settings(*words: str) -> object:
        return settings_of(["train", *words])

    assert settings("x.hdf5", "--method", "toy") == ToySettings()
    assert settings("--method=toy", "--seed", "3", "x.hdf5") == ToySettings(seed=3)
    assert settings("--preset", "all", "--method", "toy", "x.hdf5", "--horizon=2") == ToySettings(toil=1, horizon=2)
    assert settings("x.hdf5", "--method", "ractd") == settings("x.hdf5") == PRESETS["following"]
    shown = cli("train", "--method", "toy", "--help").out
    assert "Train toy: does nothing. Source: nobody." in shown
    assert "--toil" in shown
    assert "--teacher.network.width" not in shown
    assert "--preset {cpu,all}" in shown
    assert "--reward-weight" not in shown, "it has no student"


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--method tyo", "iql, toy; did you mean 'toy'?"),
        ("--method toy --preset demo", "unknown preset of toy 'demo', expected one of cpu, all"),
        (
            "--method toy --diffusion.bins 3",
            "--diffusion.bins is no option of method 'toy', but of ractd; leave it out",
        ),
        ("--toil 0.5", "--toil is no option of method 'ractd', but of toy; leave it out"),
        ("--method toy --reward-weight 1", "--reward-weight: method 'toy' distils no student; leave it out"),
        (
            "--method toy --env ractd/maze2d-umaze",
            "and method 'toy' can't plan in one: use --method ractd, or name a preset",
        ),
    ],
)
def test_what_a_method_has_not(words: str, said: str, tmp_path: Path, cli: Callable[..., Answer]) -> None:
    path = tmp_path / "log.hdf5"
    write_hdf5(path, make(lengths=(9, 9), obs=4))
    answer = cli("train", path, "--out", tmp_path / "run", *words.split())
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert said in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("before", [[], ["--student.distilled"], ["--no-report"], ["--seed", "1"], ["--preset=cpu"]])
def test_the_dataset_is_found_behind_any_option(before: list[str]) -> None:
    assert dataset_in([*before, "logs.hdf5", "--horizon", "4"], method_named("ractd")) == "logs.hdf5"
