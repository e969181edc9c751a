"""What README.md and docs/ say works: every command, every Python block, every option, every quoted error."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import re
import runpy
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import Answer, Trained
from docs_commands import (
    FOLLOWING,
    FOREIGN,
    LONG,
    PAGES,
    PARSED,
    PRELUDES,
    ROOT,
    SMALLEST,
    TINY,
    UNRUN_PYTHON,
    Command,
    commands,
    steps,
)

from ractd.cli import parse
from ractd.commands import COMMANDS
from ractd.commands.data import SUBCOMMANDS
from ractd.commands.train import Train
from ractd.critics.critic import CRITICS
from ractd.data import load_dataset
from ractd.data.formats import FILES
from ractd.methods import METHODS
from ractd.methods.ractd_settings import PRESETS
from ractd.networks import NETWORKS
from ractd.report.figures import training_plots

RUN = re.compile(r"\bruns/[\w-]+")
OWN_MAZE = "#####\n#S.G#\n#####\n"
LONG_PAGES = {f"docs/{name}.md" for name in ("report", "api", "choosing", "evaluation", "data", "mazes")}
"""Whose commands train, play and film longest; README, the quickstart and the others stay quick."""
OTHER_OPTIONS = {"--no-deps", "--multi_gpu", "--nproc_per_node", "--help-all", "--tyro-write-completion"}
"""Of other programs, and of no command."""


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of datasets made here, with the one that pages take for made."""
    from ractd.recipes import make_dataset

    folder = tmp_path_factory.mktemp("datasets")
    make_dataset("hopper-mixed", transitions=1500, directory=folder)
    return folder


class Robot:
    """Sensors of the pendulum, for three ticks."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def read(self) -> Any:
        if len(self.sent) == 3:
            raise EndOfEpisode
        return np.zeros(4, np.float32)

    def send(self, action: Any) -> None:
        assert action.shape == (1,)
        self.sent.append(action)


class EndOfEpisode(Exception):
    """Stops the endless loop of a page."""


@pytest.fixture
def folder(tmp_path: Path, datasets: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader works: logs, a maze, the examples; datasets and results are as small as the commands."""

    shutil.copytree(datasets, tmp_path / "datasets")
    shutil.copy(trained.dataset, tmp_path / "logs.hdf5")
    data = load_dataset(trained.dataset)
    fields = ("observations", "actions", "rewards", "terminals", "timeouts")
    np.savez(tmp_path / "logs.npz", **{name: getattr(data, name) for name in fields})
    (tmp_path / "mine.txt").write_text(OWN_MAZE)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setenv("RACTD_DATA", str(tmp_path / "datasets"))
    small = {}
    for preset, options in {"cpu": TINY, "demo": TINY, "following": FOLLOWING}.items():
        command = parse(["train", "x", "--preset", preset, *(word for pair in options.items() for word in pair)])
        assert isinstance(command, Train)
        small[preset] = command.config
        monkeypatch.setitem(PRESETS, preset, command.config)  # type: ignore[arg-type]
    monkeypatch.setattr("ractd.runs.train.preset_named", lambda _, name: small[name])
    # tests/test_report.py draws all of them.
    monkeypatch.setattr("ractd.report.build.training_plots", lambda runs: dict([*training_plots(runs).items()][:1]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (page in LONG_PAGES)) for page in PAGES]
)
def test_what_a_page_says_runs_in_its_order(
    page: str, folder: Path, trained: Trained, cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = steps(page)
    text = "\n".join(step if isinstance(step, str) else step.text for step in found)
    produced = {step.out for step in found if isinstance(step, Command)} | set(re.findall(r'out="([^"]+)"', text))
    for run in set(RUN.findall(text)) - produced:
        shutil.copytree(trained.directory, folder / run)
    names: dict[str, Any] = {"np": np, "Robot": Robot}
    preludes = list(PRELUDES.get(page, []))
    for step in found:
        if isinstance(step, str):
            code = compile(step, page, "exec")
            if page not in UNRUN_PYTHON:
                assert preludes, f"{page}: a Python block more than docs_commands.PRELUDES has\n{step}"
                exec(preludes.pop(0), names)
                with contextlib.suppress(EndOfEpisode):
                    exec(code, names)
        elif step.text not in (*PARSED, *LONG) and step.words[0] not in FOREIGN:
            _run(step, cli, monkeypatch)
    assert not preludes, f"{page}: fewer Python blocks than docs_commands.PRELUDES has"


def _run(command: Command, cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.kind, f"{command.text}: is neither run nor listed in tests/docs_commands.py"
    words = command.smallest()
    if words[0] == "ractd":
        answer = cli(*words[1:])
        # A warning is fine; an error has code 2.
        assert answer.code == 0, f"{command.text}\n{answer.out}\n{answer.err}"
        return
    monkeypatch.setattr(sys, "argv", words[1:])
    with contextlib.ExitStack() as stack:
        for registry in (METHODS, NETWORKS, CRITICS, FILES):
            stack.enter_context(mock.patch.dict(registry))  # what an example registers is gone with it
        runpy.run_path(words[1], run_name="__main__")


@pytest.mark.parametrize("command", [c for c in commands() if c.text in (*PARSED, *LONG)], ids=lambda c: c.text)
def test_what_is_not_run_here_is_at_least_parsed(command: Command) -> None:
    assert command.ours is not None
    parse(command.ours)


def test_every_command_is_run_or_listed() -> None:
    found = commands()
    unknown = [c.text for c in found if not (c.kind or c.text in (*PARSED, *LONG) or c.words[0] in FOREIGN)]
    assert unknown == [], "add them to tests/docs_commands.py"
    stale = {*PARSED, *LONG} - {c.text for c in found} | set(FOREIGN) - {c.words[0] for c in found}
    assert stale == set(), "no page has these any more"
    assert {c.kind for c in found} >= set(SMALLEST), "no page has these kinds any more"


def test_make_targets_and_extras_are_there() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [c for c in commands() if c.words[0] in ("make", "pip")]
    assert {c.words[0] for c in found} == {"make", "pip"}
    for command in found:
        if command.words[0] == "make":
            assert command.words[1] in targets
        for extras in re.findall(r"\[(.*)\]", command.text):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), command.text


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    """docs/site.py, which MkDocs runs."""
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_option_that_a_page_names_exists(hook: ModuleType) -> None:
    others = ["train --preset maze2d-umaze", *(f"train --method {name}" for name in METHODS)]
    helps = [hook.command_help(command) for command in (*hook.COMMANDS, *others)]
    known = set(re.findall(r"--[a-z][\w.-]*\w", "\n".join(helps))) | OTHER_OPTIONS
    known |= {
        option for path in (ROOT / "examples").glob("*.py") for option in re.findall(r'"(--[\w-]+)"', path.read_text())
    }
    assert {"--teacher.network.width", "--sequence.points", "--check-episodes"} <= known
    unknown = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
        for span in re.findall(r"`([^`]+)`", text):
            options_ = re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", span)
            unknown += [f"{page}: {option}" for option in options_ if option not in known]
    assert unknown == []


def test_the_reference_has_every_command(hook: ModuleType) -> None:
    assert {*COMMANDS.keys() - {"data"}, *(f"data {name}" for name in SUBCOMMANDS)} == {*hook.COMMANDS}
    for command in hook.COMMANDS:
        assert f"usage: ractd {command}" in hook.command_help(command)


def _literal(node: ast.expr) -> str:
    """A string of the source with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
    return ""


def test_every_quoted_error_is_in_the_source() -> None:
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "runtime" / "src").rglob("*.py")]
    said = [
        _literal(node)
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.expr)
    ]
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^> (.+)$", page, re.MULTILINE)
    assert len(quoted) > 25
    everything = "\n".join(said)
    for message in quoted:
        for part in re.split(r"\s*…\s*", message):
            if len(part.split()) >= 2:
                assert part.strip(" .:;()") in everything, f"{message}: {part!r} is said nowhere"
