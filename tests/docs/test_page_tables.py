"""The tables and lists of the pages name every row of the library."""

from __future__ import annotations

import importlib.util
import re
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from modular_manifolds_bench.baselines import BASELINES
from pages import DOCS, ROOT

import modular_manifolds as mm
from modular_manifolds.specs import table


def module_of(path: Path) -> ModuleType:
    """The module that a file holds."""
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


tables = module_of(DOCS / "tables.py")


@pytest.mark.parametrize("name", tables.PAGES)
def test_generated_tables_are_those_of_the_rows(name: str) -> None:
    text = (ROOT / name).read_text()
    assert tables.refreshed(text) == text, "run `python docs/tables.py` to refresh the pages"


def test_every_generated_table_stands_on_a_page() -> None:
    text = "".join((ROOT / name).read_text() for name in tables.PAGES)
    assert {found["name"] for found in tables.PART.finditer(text)} == set(tables.TABLES)


@pytest.mark.usefixtures("table_kept")
def test_a_new_row_is_on_the_pages_when_they_are_refreshed() -> None:
    class Rotations(mm.Stiefel):
        pass

    solver = mm.solvers.TangentGradient()
    mm.solvers.register(Rotations, mm.Frobenius, solver, method="turning")
    for name, row in (
        ("docs/ideas/methods.md", "| `Rotations` | `Frobenius` | turning |"),
        ("docs/solvers.md", "| `Rotations` | `Frobenius` | `tangent-gradient` | turning |"),
    ):
        text = (ROOT / name).read_text()
        assert row not in text
        assert row in tables.refreshed(text).splitlines()


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


def test_baselines_are_on_their_page() -> None:
    rows = rows_below(DOCS / "baselines.md", "| name | class | method |")
    in_code = [[each.name, type(each).__name__] for each in BASELINES]
    assert [row[:2] for row in rows] == in_code


def test_the_table_of_types_names_every_type_that_specifications_know() -> None:
    lines = (DOCS / "specs.md").read_text().splitlines()
    listed = [line.split("|")[1] for line in lines if line.startswith("| `")]
    types = set(re.findall(r"`(\w+)`", " ".join(listed)))
    known = {*table.MANIFOLDS, *table.NORMS, *table.MODULES, *table.COMPOUNDS, "power"}
    assert known <= types


def test_the_tables_of_modules_name_every_atom_and_bond() -> None:
    for base, column in ((mm.Atom, "atom"), (mm.Bond, "bond")):
        rows = rows_below(DOCS / "modules.md", f"| {column} | computes |")
        written = {name for row in rows for name in row[0].split(", ")}
        assert written == {
            each.__name__ for each in table.MODULES.values() if issubclass(each, base)
        }


@pytest.mark.parametrize("kind", ["manifolds", "norms"])
def test_every_manifold_and_norm_has_a_page_that_the_index_links(kind: str) -> None:
    index = (DOCS / kind / "index.md").read_text()
    linked = set(re.findall(r"\((\w+)\.md\)", index))
    files = {each.stem for each in (ROOT / "modular_manifolds" / kind).glob("*.py")}
    shared = {"__init__", "base", "directions", "on_host"}
    assert linked == files - shared
    assert linked == {each.stem for each in (DOCS / kind).glob("*.md")} - {"index"}


def test_every_directive_of_the_reference_stands_apart() -> None:
    """A directive glued to the line above it is not read as one."""
    for page in (DOCS / "api").glob("*.md"):
        lines = page.read_text().splitlines()
        assert all(not before.strip() for before, line in pairwise(lines) if line.startswith(":::"))


def test_the_index_of_the_reference_links_every_entry_once() -> None:
    index = (DOCS / "api" / "index.md").read_text()
    linked = re.findall(r"^\[`\S+`\]\((\S+)\)", index, re.MULTILINE)
    entries = [
        f"{page.name}#{path}"
        for page in (DOCS / "api").glob("*.md")
        for path in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    ]
    assert sorted(linked) == sorted(entries)
    assert len(set(re.findall(r"^\[`(\S+)`\]", index, re.MULTILINE))) == len(linked)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("modular_manifolds.Stiefel", "Stiefel"),
        ("modular_manifolds.optim.Muon", "optim.Muon"),
        ("modular_manifolds.solvers.selection.select", "solvers.select"),
        ("modular_manifolds.nn.derived.Derived", "nn.derived.Derived"),
        ("modular_manifolds.errors", "errors"),
    ],
)
def test_the_index_gives_the_shortest_name_of_a_path(path: str, name: str) -> None:
    assert tables.public_name(path) == name
