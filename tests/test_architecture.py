"""Every import of the source, held against the table of docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "ractd"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
GROUND = {"errors", "registry", "settings", "files", "processors", "stopping"}

SHARED_NAMES: set[str] = set()
"""Names that still mean two classes. To be emptied."""


def table() -> dict[str, set[str]]:
    """Each room of the page's table, top to bottom, and what it may import."""
    rows = re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", PAGE, re.MULTILINE)
    return {room: set(re.findall(r"`(\w+)`", imports)) for room, imports in rows}


ROOMS = table()


def name_of(path: Path) -> str:
    """The module of a source file."""
    return ".".join(("ractd", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def room_of(module: str) -> str:
    """The folder, or the file of `src/ractd` itself, that a module is in."""
    return module.split(".")[1] if "." in module else "ractd"


def imported(module: str, for_types: bool = True) -> Iterator[str]:
    """Modules of ractd that a module imports, wherever in its file; those for the type checker alone only if asked for."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    unread = {inner for node in ast.walk(tree) if _for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if node in unread and not for_types:
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: imports are written out"
            parent = node.module or ""
            names = [f"{parent}.{n.name}" if f"{parent}.{n.name}" in MODULES else parent for n in node.names]
        yield from (name for name in names if name.partition(".")[0] == "ractd")


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def imports(for_types: bool) -> Mapping[str, frozenset[str]]:
    """What every module imports."""
    return {module: frozenset(imported(module, for_types)) for module in MODULES}


def circles(arrows: Mapping[str, frozenset[str]]) -> set[frozenset[str]]:
    """The largest sets of modules that reach each other."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        to_follow = [start]
        while to_follow:
            new = arrows.get(to_follow.pop(), frozenset()) - found
            found |= new
            to_follow += new
        return found

    reach = {module: reached(module) for module in arrows}
    return {frozenset(each for each in reach[m] if m in reach.get(each, ())) for m in arrows if m in reach[m]}


def test_the_table_has_every_room_once_and_only_imports_what_is_below() -> None:
    order = list(ROOMS)
    assert {room_of(module) for module in MODULES} <= set(order)
    for room, below in ROOMS.items():
        assert below <= set(order[order.index(room) + 1 :]), room
        assert not below & GROUND, f"{room}: the ground is everyone's"


def test_the_picture_has_the_table_s_rooms() -> None:
    (picture,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    drawn = [word for line in picture.splitlines() for word in re.findall(r"\w+", line[25:].partition("(")[0])]
    assert sorted(drawn) == sorted(set(ROOMS) - {"runtime"})


def allowed(room: str) -> set[str]:
    """What a room may import: itself, what the table says, and of the ground what is below it."""
    order = list(ROOMS)
    ground = {each for each in GROUND if room not in GROUND or order.index(each) > order.index(room)}
    return {room} | ROOMS[room] | ground


def test_rooms_import_what_the_table_says() -> None:
    found: dict[tuple[str, str], str] = {}
    for module, targets in imports(for_types=True).items():
        for target in targets:
            found.setdefault((room_of(module), room_of(target)), f"{module} imports {target}")
    wrong = [text for (here, there), text in found.items() if there not in allowed(here)]
    assert not wrong, "docs/architecture.md doesn't allow it"
    unused = [(here, there) for here, below in ROOMS.items() for there in below if (here, there) not in found]
    assert not unused, "docs/architecture.md allows what nobody does"


def test_no_modules_of_a_room_import_each_other() -> None:
    within = {m: frozenset(t for t in ts if room_of(t) == room_of(m)) for m, ts in imports(for_types=False).items()}
    assert not circles(within), "these import each other"


def test_no_two_classes_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module)
    shared = {name: modules for name, modules in homes.items() if len(modules) > 1}
    assert not shared.keys() - SHARED_NAMES, {name: shared[name] for name in shared.keys() - SHARED_NAMES}
    assert not SHARED_NAMES - shared.keys(), "names that are unique by now are to be taken out"


@pytest.mark.parametrize(
    ("arrows", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, set()),
        ({"a": {"b"}, "b": {"a", "c"}, "c": set(), "d": {"d"}}, {frozenset("ab"), frozenset("d")}),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, {frozenset("abc")}),
    ],
)
def test_circles_are_found(arrows: dict[str, set[str]], found: set[frozenset[str]]) -> None:
    assert circles({module: frozenset(targets) for module, targets in arrows.items()}) == found
