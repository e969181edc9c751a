"""The site: it builds without a broken link, and works from disk in a real browser that reaches no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from docs_commands import ROOT

config = pytest.importorskip("mkdocs.config")
build = pytest.importorskip("mkdocs.commands.build")
pytest.importorskip("mkdocstrings")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

WIDE, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; `strict` in mkdocs.yml makes a broken link an error."""
    folder = tmp_path_factory.mktemp("site")
    build.build(config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return folder


class Opened:
    """A page of the site from disk, what its console said and what it asked for elsewhere."""

    def __init__(self, browser: Any, path: Path, size: tuple[int, int], theme: str) -> None:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
        self.page = context.new_page()
        self.said: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", lambda m: self.said.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda r: self.outside.append(r.url) if r.url.startswith("http") else None)
        self.page.goto(path.as_uri())
        self.page.wait_for_load_state("load")


def test_every_page_is_there(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {path.stem for path in site.glob("*.html")} == pages | {"404"}
    assert not list(site.rglob("*.py"))


def test_equations_are_mathml_and_commands_are_the_programs_own(site: Path) -> None:
    method = (site / "method.html").read_text(encoding="utf-8")
    assert method.count("<math") > 40
    assert "arithmatex" not in method
    assert "\\frac" not in method
    commands = (site / "commands.html").read_text(encoding="utf-8")
    for option in ("--teacher.network.width", "--tls-cert", "--overwrite"):
        assert option in commands
    api = (site / "api.html").read_text(encoding="utf-8")
    for name in ("load_dataset", "act_chunk", "estimate_return", "termination_penalty"):
        assert name in api
    assert "RACTD, a critic follows it" in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "size", "theme"), [("index", WIDE, "light"), ("method", PHONE, "dark"), ("choosing", PHONE, "light")]
)
def test_a_page_from_disk_needs_no_network_and_passes_axe(
    site: Path, chromium: Any, page: str, size: tuple[int, int], theme: str
) -> None:
    opened = Opened(chromium, site / f"{page}.html", size, theme)
    assert opened.page.evaluate("() => document.documentElement.scrollWidth") <= size[0], "the page scrolls sideways"
    assert opened.outside == []
    assert opened.said == [], "before axe, which reads style sheets in a way that files don't allow"
    # The theme's own copy buttons are each in a landmark of the same name.
    results = axe.Axe().run(opened.page, context={"include": ["article"], "exclude": [".md-code__nav"]})
    assert results.violations_count == 0, results.generate_report()


def test_search_finds_a_page_from_disk(site: Path, chromium: Any) -> None:
    opened = Opened(chromium, site / "index.html", WIDE, "light")
    opened.page.locator(".md-search__input").click()
    opened.page.keyboard.type("inverse dynamics", delay=20)
    opened.page.wait_for_selector(".md-search-result__item a", timeout=20_000)
    links = opened.page.locator(".md-search-result__item a").evaluate_all("(all) => all.map((a) => a.href)")
    assert any("mazes.html" in link or "method.html" in link for link in links)
    assert opened.outside == []
