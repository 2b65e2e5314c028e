"""The reference is generated from docstrings in Google's form, and every public name has an entry."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import modular_manifolds as mm

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "modular_manifolds"
NAMESPACES = (mm, mm.linalg, mm.models, mm.optim, mm.solvers, mm.testing)
ENTRY = {"Args": re.compile(r"\*{0,2}\w+: \S"), "Raises": re.compile(r"\w+: \S")}
HEADING = re.compile(r"(Args|Raises):")


def exported(module: ModuleType) -> list[str]:
    """The names that a folder offers: those that its `__init__.py` imports as themselves."""
    assert module.__file__ is not None
    return [
        alias.name
        for node in ast.parse(Path(module.__file__).read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    ]


def test_every_public_name_has_an_entry() -> None:
    text = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    entries = set(re.findall(r"^::: modular_manifolds(?:\.\w+)*?\.(\w+)$", text, re.MULTILINE))
    for module in NAMESPACES:
        names = exported(module)
        assert names, module.__name__
        assert not sorted(set(names) - entries), module.__name__


def test_every_entry_has_a_docstring() -> None:
    for module in NAMESPACES:
        for name in exported(module):
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing):
                assert inspect.getdoc(thing), f"{module.__name__}.{name}"


def malformed(docstring: str) -> Iterator[str]:
    """The lines of the sections Args and Raises that are neither an entry nor the rest of one."""
    section, indent = None, 0
    for line in docstring.splitlines():
        depth = len(line) - len(line.lstrip())
        if found := HEADING.fullmatch(line.strip()):
            section, indent = found[1], depth + 4
        elif not line.strip() or depth < indent:
            section = None
        elif section and depth == indent and not ENTRY[section].match(line.strip()):
            yield line.strip()


def test_sections_of_docstrings_have_googles_form() -> None:
    found = [
        f"{path.relative_to(PACKAGE).as_posix()}, {node.name}: {line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        for line in malformed(ast.get_docstring(node) or "")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("line", ["a, b: the sizes.", "ValueError and more text."])
def test_the_form_refuses_joined_names_and_loose_lines(line: str) -> None:
    head = "Args" if line.startswith("a") else "Raises"
    assert list(malformed(f"A thing.\n\n{head}:\n    {line}\n        The rest of it.")) == [line]
