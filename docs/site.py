"""What the site has beyond Markdown: equations as MathML, the command line's own help, the README's scores.

A hook of MkDocs, see mkdocs.yml. The pages read well on a code host without it.
"""

from __future__ import annotations

import contextlib
import html
import io
import os
import re
from pathlib import Path
from typing import Any
from unittest import mock

from latex2mathml.converter import convert

from ractd import cli

ROOT = Path(__file__).parent.parent
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")
"""A link to a file of the repository that is no page."""
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
SCORES = re.compile(r"<!-- scores -->.*?<!-- /scores -->", re.DOTALL)
COMMANDS = (
    "train",
    "eval",
    "report",
    "compare",
    "methods",
    "sweep",
    "reproduce",
    "export",
    "serve",
    "data list",
    "data inspect",
    "data validate",
    "data make",
    "data collect",
)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in what is generated, and make what only the repository has plain text."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = SCORES.search(readme)
    if found is None:
        raise ValueError("README.md has no table between <!-- scores --> and <!-- /scores -->")
    markdown = markdown.replace("<!-- scores -->", found.group())
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", "\n".join(map(command_help, COMMANDS)))
    return OUTSIDE.sub(r"\1", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Make each equation MathML, which browsers draw themselves, and empty headings of tables no headings."""

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match.group(1) == "div" else "inline"
        return convert(html.unescape(match.group(2)), display=display)

    # A table without headings has none for screen readers either.
    return EQUATION.sub(mathml, content).replace("<th></th>", "<td></td>")


def command_help(command: str) -> str:
    """Return a section with what `ractd COMMAND --help-all` prints."""
    printed = io.StringIO()
    narrow = mock.patch.dict(os.environ, {"COLUMNS": "80", "NO_COLOR": "1"})
    with narrow, contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.parse([*command.split(), "--help-all"])
    text = "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())
    return f"## ractd {command}\n\n```text\n{text}\n```\n"
