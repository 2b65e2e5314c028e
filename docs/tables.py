"""Write the tables of manifolds, norms and methods into the pages, from the rows in `solvers/table.py`.

    python docs/tables.py

A generated part stands between `<!-- table: NAME -->` and `<!-- end of table -->` (`# table: NAME` in mkdocs.yml). A
test says if a page is behind the rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import modular_manifolds as mm
from modular_manifolds.specs.table import MANIFOLDS, NORMS

ROOT = Path(__file__).parents[1]
PART = re.compile(
    r"(?P<start>^ *(?:<!--|#) table: (?P<name>[\w ]+?)(?: -->)?\n)"
    r".*?"
    r"(?P<end>^ *(?:<!--|#) end of table)",
    re.MULTILINE | re.DOTALL,
)


def methods() -> Iterator[str]:
    """A row a method: its manifold, and the norms in which it is steepest descent."""
    norms: dict[tuple[str, str], list[str]] = {}
    for pair in mm.solvers.pairs():
        norms.setdefault((pair.manifold.__name__, pair.method), []).append(pair.norm.__name__)
    yield "| manifold | norm | method |"
    yield "|---|---|---|"
    for (manifold, method), listed in norms.items():
        yield f"| `{manifold}` | {code(listed)} | {method} |"


def pairs() -> Iterator[str]:
    """A row a pair, with its solvers."""
    yield "| manifold | norm | solvers | method |"
    yield "|---|---|---|---|"
    for pair in mm.solvers.pairs():
        solvers = code(each.name for each in pair.solvers)
        yield f"| `{pair.manifold.__name__}` | `{pair.norm.__name__}` | {solvers} | {pair.method} |"


def types() -> Iterator[str]:
    """A row a class that specifications name, with its page."""
    yield "| key `type` | stands for |"
    yield "|---|---|"
    for folder, kinds in (("manifolds", MANIFOLDS), ("norms", NORMS)):
        for name, kind in kinds.items():
            yield f"| `{name}` | the {folder[:-1]} [`{kind.__name__}`]({folder}/{name}.md) |"


def reference(kinds: Iterable[str]) -> Callable[[], Iterator[str]]:
    """The directives of the reference, a blank line between two."""

    def directives() -> Iterator[str]:
        for number, kind in enumerate(kinds):
            yield from [""] if number else []
            yield f"::: modular_manifolds.{kind}"

    return directives


def menu(folder: str, names: Iterable[str]) -> Callable[[], Iterator[str]]:
    """The entries of the menu; each page's heading is its title."""
    return lambda: (f"          - {folder}/{name}.md" for name in ("index", *names))


def code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


TABLES: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "methods": methods,
    "pairs": pairs,
    "types": types,
    "reference of manifolds": reference(
        ["Manifold", *(each.__name__ for each in MANIFOLDS.values()), "Product"]
    ),
    "reference of norms": reference(
        ["Norm", *(each.__name__ for each in NORMS.values()), "ModularNorm"]
    ),
    "menu of manifolds": menu("manifolds", (*MANIFOLDS, "product")),
    "menu of norms": menu("norms", (*NORMS, "modular")),
}

PAGES: Final = (
    "docs/ideas/methods.md",
    "docs/solvers.md",
    "docs/specs.md",
    "docs/api.md",
    "mkdocs.yml",
)


def refreshed(text: str) -> str:
    """The page with every generated part written anew."""

    def part(found: re.Match[str]) -> str:
        lines = "".join(f"{line}\n" for line in TABLES[found["name"]]())
        # Markdown reads a table only between blank lines.
        apart = "\n" if "<!--" in found["start"] else ""
        return f"{found['start']}{apart}{lines}{apart}{found['end']}"

    return PART.sub(part, text)


if __name__ == "__main__":
    for name in PAGES:
        page = ROOT / name
        page.write_text(refreshed(page.read_text()))
