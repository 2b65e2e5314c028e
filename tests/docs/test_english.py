"""Plain English: docstrings say what a thing is or does, and conditions are written with if and when."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("modular_manifolds", "kernels", "benchmarks", "examples", "tests")
OPENINGS = re.compile(r"(Of|What|Which|Who|From)\b")
BANNED = re.compile(
    r"(?:^|_)(SMALL|SMALLER|TINY|FEW|NEAR|CLOSE|MANY|LARGE|BIG|LONG|SHORT|WIDE|MODERATE|HALF|FINE|COARSE|SEVERAL|LEFT|OFF)$"
)
"""Words that a threshold's name must not end with, because they name no quantity."""
MAX_WHERE_PER_1000_WORDS = 1.5
"""The most uses of "where" in 1,000 words. Codebases that are easy to read have 0.5 to 2."""

TEXTS = re.compile(
    r"""
    (?P<comment>\#[^\n]*)
    | (?P<docstring>(?m:^)[ ]*[rR]?\"{3}(?:[^"\\]|\\.|"(?!""))*\"{3}(?=[ ]*(?:\#|\n|\Z)))
    | \"{3}(?:[^"\\]|\\.|"(?!""))*\"{3} | '{3}(?:[^'\\]|\\.|'(?!''))*'{3}
    | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'
    """,
    re.VERBOSE | re.DOTALL,
)
"""Comments, strings in three quotes that have lines of their own, and other strings: all that may hold the signs of the others.

One search of a file takes a tenth of the time of Python's own tokeniser or parser."""
BARE_NUMBER = re.compile(r"^[A-Z][A-Z0-9_]*(?:: .+?)? = [-+~(.\d]", re.MULTILINE)
"""An assignment that may be a threshold; files without one are not parsed."""
WITH_THRESHOLDS = ("modular_manifolds", "kernels/modular_manifolds_kernels")

Texts = dict[str, list[tuple[int, str]]]


@cache
def read() -> tuple[Texts, Texts]:
    """The docstrings and the comments of each file."""
    found: tuple[Texts, Texts] = {}, {}
    for path in _files(*FOLDERS):
        both = _texts(path.read_text(encoding="utf-8"))
        for texts, own in zip(found, both, strict=True):
            texts[_name(path)] = own
    return found


def _texts(code: str) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """The docstrings, and strings that stand alone under a constant or a field, and the comments, with their lines."""
    docstrings: list[tuple[int, str]] = []
    comments: list[tuple[int, str]] = []
    for match in TEXTS.finditer(code):
        kind = match.lastgroup
        if kind is not None:
            text = match[kind].strip()
            line = code.count("\n", 0, match.start()) + 1
            if kind == "comment":
                comments.append((line, text))
            else:
                docstrings.append((line, text.lstrip("rR")[3:-3].strip()))
    return docstrings, comments


def _files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _thresholds(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    """The name, line and docstring of each upper-case module constant that is a bare number."""
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        elif isinstance(node, ast.AnnAssign):
            target = node.target
        else:
            continue
        if isinstance(target, ast.Name) and target.id.isupper() and _is_number(node.value):
            yield target.id, node.lineno, _docstring_of(following)


def _is_number(value: ast.expr | None) -> bool:
    """Whether an expression is a number, or arithmetic on numbers alone."""
    if isinstance(value, ast.UnaryOp):
        return _is_number(value.operand)
    if isinstance(value, ast.BinOp):
        return _is_number(value.left) and _is_number(value.right)
    return isinstance(value, ast.Constant) and type(value.value) in (int, float)


def _docstring_of(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return str(node.value.value)
    return ""


def _faults(tree: ast.Module) -> list[str]:
    """The lines with thresholds that have no docstring or no telling name."""
    found: list[str] = []
    for name, line, text in _thresholds(tree):
        if not text:
            found.append(f"{line}: {name} needs a docstring that says its unit")
        if BANNED.search(name):
            found.append(f"{line}: {name} must name a quantity, such as {name}_MAX_COLUMNS")
    return found


def test_docstrings_open_with_what_the_thing_is_or_does() -> None:
    found = [
        f"{name}:{line}: {text.splitlines()[0]}"
        for name, texts in read()[0].items()
        for line, text in texts
        if OPENINGS.match(text)
    ]
    assert not found, "\n".join(found)


def test_conditions_are_written_with_if_and_when() -> None:
    words = [
        word.lower()
        for texts in read()
        for found in texts.values()
        for _, text in found
        for word in re.findall(r"[A-Za-z']+", text)
    ]
    assert len(words) > 50_000
    assert 1000 * words.count("where") / len(words) <= MAX_WHERE_PER_1000_WORDS


def test_thresholds_have_a_telling_name_and_a_docstring() -> None:
    found = [
        f"{_name(path)}:{fault}"
        for path in _files(*WITH_THRESHOLDS)
        if BARE_NUMBER.search(code := path.read_text(encoding="utf-8"))
        for fault in _faults(ast.parse(code))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("code", "faults"),
    [
        ("DECOMPOSE_MAX_COLUMNS = 32", 1),
        ("DECOMPOSE_MAX_COLUMNS: Final = 2**5\nx = 'text'", 1),
        ("SMALL = 128 * 128\n'Columns.'", 1),
        ("MATRIX_SMALL = -1e-3", 2),
        ("DECOMPOSE_MAX_COLUMNS = 32\n'Columns.'", 0),
        ("SMALL = compute()", 0),
    ],
)
def test_the_rule_sees_thresholds(code: str, faults: int) -> None:
    assert len(_faults(ast.parse(code))) == faults


@pytest.mark.parametrize("opening", ["What it is.", "Of a matrix", "Which rows", "From here on"])
def test_the_rule_sees_an_opening(opening: str) -> None:
    assert OPENINGS.match(opening)
    assert not OPENINGS.match(f"The sentence: {opening}")


def test_the_search_sees_docstrings_and_comments() -> None:
    code = (
        '"""A # module."""\nx = "# no" + \'"""\'  # It\'s one.\n'
        'def f():\n    r"""A "rule".\n\n    Two. """  # two\n    return """no"""\n'
    )
    docstrings, comments = _texts(code)
    assert docstrings == [(1, "A # module."), (4, 'A "rule".\n\n    Two.')]
    assert comments == [(2, "# It's one."), (6, "# two")]


def test_the_search_sees_bare_numbers() -> None:
    for code in ("A = 1", "import b\nA_1: Final = -2**3", "A: Final[int] = (1 + 2)"):
        assert BARE_NUMBER.search(code)
    assert not BARE_NUMBER.search("A = compute()\n  B = 3")
