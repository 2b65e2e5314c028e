"""The menu is a path: every page is one or two clicks away, in the order in which it is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
MAX_CLICKS = 2


def clicks(entry: object, before: int) -> Iterator[tuple[str, int]]:
    """Every page below an entry, and the clicks to it: one opens a group, one the page."""
    match entry:
        case str():
            yield entry, before + 1
        case list():
            for each in entry:
                yield from clicks(each, before)
        case dict():
            for each in entry.values():
                yield from clicks(each, before + isinstance(each, list))


def clicks_by_page() -> dict[str, int]:
    # A group of the first level is a section, which stands open.
    assert "navigation.sections" in SETTINGS["theme"]["features"]
    sections = [value for entry in SETTINGS["nav"] for value in entry.values()]
    return dict(clicks(sections, 0))


def test_every_page_is_within_two_clicks() -> None:
    found = clicks_by_page()
    assert set(found) == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert not {page: count for page, count in found.items() if count > MAX_CLICKS}


def test_clicks_are_counted_through_groups() -> None:
    nested = [{"Manifolds": ["index.md", {"More": ["deep.md"]}]}, {"Solvers": "solvers.md"}]
    assert dict(clicks(nested, 0)) == {"index.md": 2, "deep.md": 3, "solvers.md": 1}


def test_the_sections_follow_the_reader() -> None:
    assert [next(iter(entry)) for entry in SETTINGS["nav"]] == [
        "Home",
        "Start",
        "Ideas with pictures",
        "How to",
        "Reference",
        "Mathematics",
        "Results",
        "Project",
    ]
