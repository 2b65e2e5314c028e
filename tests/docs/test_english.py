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
MOST_WHERE = 1.5
"""The most uses of "where" in 1,000 words. Codebases that are easy to read have 0.5 to 2."""

Texts = dict[str, list[tuple[int, str]]]


@cache
def docstrings() -> Texts:
    """Every docstring, and every string that stands alone under a constant or a field, by file."""
    return {_name(path): list(_docstrings(path)) for path in _files()}


@cache
def comments() -> Texts:
    """Every comment, by file."""
    return {_name(path): list(_comments(path)) for path in _files()}


def _files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _docstrings(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            value = node.value.value
            if isinstance(value, str):
                yield node.lineno, value.strip()


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
    assert 1000 * words.count("where") / len(words) <= MOST_WHERE


@pytest.mark.parametrize("opening", ["What it is.", "Of a matrix", "Which rows", "From here on"])
def test_the_rule_sees_an_opening(opening: str) -> None:
    assert OPENINGS.match(opening)
    assert not OPENINGS.match(f"The sentence: {opening}")
