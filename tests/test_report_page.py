"""The report's page in a real browser: plots, tables, keyboard, themes, accessibility."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imsave
from report_factory import MEANS, make_run

from ractd.report import write_report

axe = pytest.importorskip("axe_playwright_python.sync_playwright")

FOCUSABLE = "a[href], button, summary, video, [tabindex='0']"
WIDE, PHONE = (1400, 900), (390, 844)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one run, with its maze plans."""
    run = make_run(tmp_path_factory.mktemp("single") / "run")
    imsave(run / "plans.png", np.random.default_rng(0).random((150, 200)))
    return write_report([run], video=False).page


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of four runs of three kinds, one of them broken."""
    folder = tmp_path_factory.mktemp("several")
    runs = [
        make_run(folder / "hopper"),
        make_run(folder / "walker", "walker2d-mixed", "Walker2d-v5"),
        make_run(folder / "logs", "logs", None),
        make_run(folder / "broken", "broken"),
    ]
    (runs[-1] / "result.json").write_text("{")
    with open(runs[-1] / "metrics.jsonl", "a") as file:
        file.write('{"stage": "stud')
    return write_report(runs, folder / "page.html", video=False).page


class Opened:
    """A page, what its console said and what it asked the network for."""

    def __init__(self, browser: Any, path: Path, size: tuple[int, int], theme: str) -> None:
        phone = size == PHONE
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=theme, is_mobile=phone, has_touch=phone
        )
        self.page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def undrawn(self) -> list[str]:
        """The plots that show nothing, or that nobody can see."""
        return self.page.evaluate(  # type: ignore[no-any-return]
            """() => [...document.querySelectorAll(".plot")]
              .filter((plot) => !plot.querySelector('svg [id*="-run"] path, svg [id*="-run"] use')
                || plot.querySelector("svg").getBoundingClientRect().height < 100)
              .map((plot) => plot.getAttribute("aria-label"))"""
        )

    def unfold(self) -> None:
        """Open everything that is folded."""
        self.page.evaluate("() => { for (const details of document.querySelectorAll('details')) details.open = true; }")

    def violations(self) -> str:
        results = axe.Axe().run(self.page)
        return results.generate_report() if results.violations_count else ""

    def column(self, table: str, number: int) -> list[str]:
        return self.page.locator(f"#{table} tbody tr > :nth-child({number})").all_inner_texts()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def light(chromium: Any, single: Path) -> Opened:
    opened = Opened(chromium, single, WIDE, "light")
    opened.unfold()
    return opened


def test_every_plot_is_drawn_without_a_word_on_the_console(light: Opened) -> None:
    assert light.undrawn() == []
    # Three of scores; 14 terms of losses; of how each of four stages ran three, and of two students the watch.
    assert light.page.locator(".plot").count() == 3 + 14 + 4 * 3 + 2
    assert {*light.page.locator("nav a").all_inner_texts()} >= {"Latency", "Training", "Returns", "Maze plans"}
    assert "Video" not in light.page.locator("nav").inner_text()
    assert light.said == []


def test_nothing_is_fetched(light: Opened, single: Path) -> None:
    assert [url for url in light.requests if not url.startswith(("data:", "blob:"))] == [single.as_uri()]


def test_plans_are_shown(light: Opened) -> None:
    assert light.page.locator("#plans img").evaluate("(image) => image.complete && image.naturalWidth") > 100


def test_table_sorts_by_click_and_by_keyboard(light: Opened) -> None:
    heading = light.page.locator("#result thead th").nth(1)
    heading.locator("button").click()
    best_first = sorted(MEANS, key=lambda label: -MEANS[label])
    assert light.column("result", 1) == [*best_first, "behaviour data"]
    assert heading.get_attribute("aria-sort") == "descending"
    heading.locator("button").focus()
    light.page.keyboard.press("Enter")
    assert light.column("result", 1) == ["behaviour data", *best_first[::-1]]
    assert heading.get_attribute("aria-sort") == "ascending"
    light.page.keyboard.press("Tab")
    light.page.keyboard.press("Tab")
    light.page.keyboard.press("Space")
    evaluations = light.column("result", 4)
    assert evaluations[:3] == ["157", "4", "2"]
    assert evaluations[-1] == "\u2013", "what has no number stays at the end"
    assert heading.get_attribute("aria-sort") == "none"


def test_a_mark_says_what_it_is(light: Opened) -> None:
    told = light.page.locator("[id^='score-latency-run0-'] title").all_text_contents()
    assert "teacher: 9.8, 77.5 ms, NFE 157" in told


def test_keyboard_reaches_everything(light: Opened) -> None:
    page = light.page
    page.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0); window.reached = new Set(); }")
    wanted = page.evaluate(
        f'() => [...document.querySelectorAll("{FOCUSABLE}")].filter((e) => e.checkVisibility()).length'
    )
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        page.evaluate("() => window.reached.add(document.activeElement)")
    missed = page.evaluate(
        f"""() => [...document.querySelectorAll("{FOCUSABLE}")]
          .filter((e) => e.checkVisibility() && !window.reached.has(e)).map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert missed == []
    assert wanted > 25


def test_theme_button_recolours_page_and_plots(light: Opened) -> None:
    def colors() -> list[str]:
        return light.page.evaluate(  # type: ignore[no-any-return]
            """() => [getComputedStyle(document.body).backgroundColor,
              getComputedStyle(document.querySelector(".plot svg text")).fill]"""
        )

    before = colors()
    light.page.locator("#theme").click()
    light.page.wait_for_function(
        "(fill) => getComputedStyle(document.querySelector('.plot svg text')).fill !== fill", arg=before[1]
    )
    assert all(a != b for a, b in zip(before, colors(), strict=True))
    assert light.page.locator("#theme").get_attribute("aria-label") == "Use light colours"
    light.page.locator("#theme").click()
    light.page.wait_for_function(
        "(fill) => getComputedStyle(document.querySelector('.plot svg text')).fill === fill", arg=before[1]
    )


def test_axe_finds_nothing_in_one_run(light: Opened) -> None:
    assert light.violations() == ""


@pytest.mark.slow
def test_several_runs_on_a_phone_in_the_dark(chromium: Any, several: Path) -> None:
    opened = Opened(chromium, several, PHONE, "dark")
    opened.unfold()
    assert opened.undrawn() == []
    assert opened.said == []
    button, marks = opened.page.locator("#shown button").nth(1), opened.page.locator("[id^='score-latency-run1-']")
    assert marks.count() > 7
    for visible, display in ((False, "none"), (True, "inline")):
        button.click()
        assert button.get_attribute("aria-pressed") == str(visible).lower()
        assert {mark.evaluate("(mark) => getComputedStyle(mark).display") for mark in marks.all()} == {display}
    assert opened.page.evaluate("() => document.documentElement.scrollWidth") == PHONE[0], "the page scrolls sideways"
    assert opened.page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    broken = opened.page.evaluate(
        """() => [...document.querySelectorAll("td, th")].flatMap((cell) => {
          const words = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), range = document.createRange(), found = [];
          while (words.nextNode()) for (const word of words.currentNode.data.matchAll(/\\S+/g)) {
            range.setStart(words.currentNode, word.index);
            range.setEnd(words.currentNode, word.index + word[0].length);
            if (new Set([...range.getClientRects()].map((line) => line.top)).size > 1) found.push(word[0]);
          }
          return found;
        })"""
    )
    assert broken == [], "words are broken"
    notes = opened.page.locator("#missing").inner_text()
    assert "broken: result.json: not valid JSON" in notes
    assert "broken: metrics.jsonl: its last line is cut off" in notes
    assert opened.violations() == ""


def test_report_of_nothing_but_a_configuration_still_opens(chromium: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for name in ("result.json", "metrics.jsonl"):
        (run / name).unlink()
    opened = Opened(chromium, write_report([run], video=False).page, PHONE, "light")
    assert opened.said == []
    assert opened.page.locator(".plot").count() == 0
    assert opened.page.locator("h2").all_inner_texts() == ["Results", "Data", "Configuration and versions"]
    assert "There is no result yet." in opened.page.locator("#results").inner_text()
    assert "hopper-mixed" in opened.page.locator("#facts").inner_text()
    assert opened.violations() == ""
