"""Docstrings as Markdown: the sections `Args`, `Returns` and `Raises` become headed lists.

The docstrings of this package join several names in one entry (`point, gradient: …`) and several errors
in one paragraph, which griffe's own parser drops. Nothing is dropped here.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any

import griffe

HEADING = re.compile(r"^(Args|Returns|Raises):$")
ENTRY = re.compile(r"^    (?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*): (?P<text>.*)$")
ERROR = re.compile(r"(?:^|(?<=[.;] ))(?P<name>[A-Z]\w*Error): ")


def as_markdown(docstring: str) -> str:
    """The docstring with its sections written as Markdown lists."""
    lines: list[str] = []
    section: str | None = None
    for line in docstring.splitlines():
        heading = HEADING.match(line)
        if heading:
            section = heading[1]
            lines += ["", f"**{section}**", ""]
        elif section is None or (line and not line.startswith("    ")):
            section = None
            lines.append(line)
        elif section == "Args" and (entry := ENTRY.match(line)):
            names = ", ".join(f"`{name}`" for name in entry["names"].split(", "))
            lines.append(f"- {names}: {entry['text']}")
        else:
            lines.append(line.strip() if section != "Args" else line)
    return "\n".join(_errors_apart(lines))


def _errors_apart(lines: list[str]) -> list[str]:
    """One list entry an error in the paragraph that follows `**Raises**`."""
    apart: list[str] = []
    raises = False
    for blank, group in groupby(lines, key=lambda line: not line.strip()):
        paragraph = list(group)
        if raises and not blank:
            text = ERROR.sub(r"\n- `\g<name>`: ", " ".join(paragraph))
            paragraph, raises = text.strip("\n").split("\n"), False
        raises = raises or paragraph == ["**Raises**"]
        apart += paragraph
    return apart


class DocstringSections(griffe.Extension):
    """Rewrites every docstring as it is read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        del kwargs
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
