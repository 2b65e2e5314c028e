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
REFERENCE: Final = (
    "optimizer",
    "adaptation",
    "networks",
    "atoms",
    "bonds",
    "models",
    "budget",
    "certificates",
    "manifolds",
    "norms",
    "solvers",
    "specs",
    "testing",
)
"""The pages of `docs/api`, in the order of the menu."""

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


def index() -> Iterator[str]:
    """The pages of the reference: heading, the paragraph that opens the page, and a link for each name."""
    for number, name in enumerate(REFERENCE):
        text = refreshed((ROOT / "docs" / "api" / f"{name}.md").read_text())
        title, opening, *_ = text.split("\n\n")
        yield from [""] if number else []
        yield f"## [{title.removeprefix('# ')}]({name}.md)"
        yield ""
        yield from opening.splitlines()
        yield ""
        yield ",\n".join(
            f"[`{public_name(path)}`]({name}.md#{path})"
            for path in re.findall(r"^::: (\S+)", text, re.MULTILINE)
        )


def public_name(path: str) -> str:
    """The shortest name below `mm` that stands for a path: `Stiefel`, `optim.Muon`, `solvers.select`."""
    _, *folders, name = path.split(".")
    if name in dir(mm):
        return name
    if folders and name in dir(getattr(mm, folders[0], None)):
        return f"{folders[0]}.{name}"
    return ".".join((*folders, name))


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
    "index of the reference": index,
    "menu of the reference": menu("api", REFERENCE),
    "menu of manifolds": menu("manifolds", (*MANIFOLDS, "product")),
    "menu of norms": menu("norms", (*NORMS, "modular")),
}

PAGES: Final = (
    "docs/ideas/methods.md",
    "docs/solvers.md",
    "docs/specs.md",
    "docs/api/manifolds.md",
    "docs/api/norms.md",
    "docs/api/index.md",
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
