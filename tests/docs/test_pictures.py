"""The pictures of the pages are drawn by the library, again at every run of the tests."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SCRIPTS = DOCS / "pictures"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem not in ("__main__", "look"))
MAX_WIDTH_POINTS = 390
"""A picture of this width, in points, shows its letters of 10 points and more at full size on a phone."""


def description(picture: ElementTree.Element) -> str:
    """The content in words, as the script wrote it."""
    found = picture.find(".//{http://purl.org/dc/elements/1.1/}description")
    assert found is not None
    assert found.text
    return found.text


@pytest.mark.long
def test_every_picture_can_be_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pictures", str(tmp_path)])
    runpy.run_path(str(SCRIPTS), run_name="__main__")
    assert sorted(path.stem for path in tmp_path.glob("*.svg")) == NAMES
    for name in NAMES:
        drawn, kept = (
            ElementTree.parse(folder / f"{name}.svg").getroot()
            for folder in (tmp_path, DOCS / "figures")
        )
        assert len(list(drawn.iter())) > 50, name
        assert description(drawn) == description(kept), "run `python docs/pictures`"


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_kept_shown_and_small_enough_for_a_phone(name: str) -> None:
    kept = ElementTree.parse(DOCS / "figures" / f"{name}.svg").getroot()
    assert float(kept.attrib["width"].removesuffix("pt")) <= MAX_WIDTH_POINTS
    # The ground is white, so that dark letters are readable on a dark page too.
    assert "fill: #ffffff" in ElementTree.tostring(kept, encoding="unicode")
    shown = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    assert f"figures/{name}.svg)" in shown
