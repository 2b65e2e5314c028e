"""Plain English: docstrings say what a thing is or does, and conditions are written with if and when."""

from __future__ import annotations

import ast
import io
import re
import tokenize
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

Texts = dict[str, list[tuple[int, str]]]


@cache
def read() -> tuple[Texts, dict[str, list[str]]]:
    """The docstrings and the faults of each file, which is parsed once. The trees are large, so they are not kept."""
    texts: Texts = {}
    faults: dict[str, list[str]] = {}
    for path in _files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts[_name(path)] = list(_docstrings(tree))
        faults[_name(path)] = _faults(tree)
    return texts, faults


def docstrings() -> Texts:
    """Every docstring, and every string that stands alone under a constant or a field, by file."""
    return read()[0]


@cache
def comments() -> Texts:
    """Every comment, by file."""
    return {_name(path): list(_comments(path)) for path in _files()}


def _files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            value = node.value.value
            if isinstance(value, str):
                yield node.lineno, value.strip()


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


def _comments(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_docstrings_open_with_what_the_thing_is_or_does() -> None:
    found = [
        f"{name}:{line}: {text.splitlines()[0]}"
        for name, texts in docstrings().items()
        for line, text in texts
        if OPENINGS.match(text)
    ]
    assert not found, "\n".join(found)


def test_conditions_are_written_with_if_and_when() -> None:
    words = [
        word.lower()
        for texts in (docstrings(), comments())
        for found in texts.values()
        for _, text in found
        for word in re.findall(r"[A-Za-z']+", text)
    ]
    assert len(words) > 50_000
    assert 1000 * words.count("where") / len(words) <= MAX_WHERE_PER_1000_WORDS


def test_thresholds_have_a_telling_name_and_a_docstring() -> None:
    found = [
        f"{name}:{fault}"
        for name, faults in read()[1].items()
        if name.startswith(("modular_manifolds/", "kernels/modular_manifolds_kernels/"))
        for fault in faults
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
