"""The pages, and what stands between their code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

DOCS = ROOT / "docs"

PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(text: str) -> str:
    """The page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
