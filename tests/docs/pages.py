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


def rows_below(page: Path, header: str) -> list[list[str]]:
    """The cells of the table whose header line starts with `header`, without its code marks."""
    lines = page.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(header))
    rows: list[list[str]] = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows
