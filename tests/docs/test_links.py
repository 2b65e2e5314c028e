"""Links, headings and the menu lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pages import DOCS, FENCE, PAGES, ROOT, name_of, prose

LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page.read_text())):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name_of(page)}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{name_of(page)}: {target}"


def anchors(page: Path) -> set[str]:
    """The headings of a page as mkdocs names them, and the entries of the reference."""
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    entries = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    return {*entries, *(re.sub(r"[-\s]+", "-", heading) for heading in plain)}


def test_every_page_is_in_the_menu_and_every_entry_is_a_page() -> None:
    def entries(part: object) -> Iterator[str]:
        match part:
            case str():
                yield part
            case list():
                for each in part:
                    yield from entries(each)
            case dict():
                for each in part.values():
                    yield from entries(each)

    menu = set(entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert menu == pages


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_has_two_headings_alike(page: Path) -> None:
    headings = re.findall(r"^(#+ .+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    assert len(set(headings)) == len(headings)
