"""The committed report: read, written, compared with what is compiled now."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from modular_manifolds_kernels.shipped import Configuration
from modular_manifolds_kernels.static.checks import hard, soft, why_not_compared
from modular_manifolds_kernels.static.row import Row, key

FILE: Final = Path(__file__).parent / "report.json"


def stored(file: Path = FILE) -> list[Row]:
    """The rows of the committed report."""
    return [Row.read(each) for each in json.loads(file.read_text())["rows"]]


def store(rows: Iterable[Row], file: Path = FILE) -> None:
    """Write a report, a row on a line, so that a difference reads well."""
    lines = ",\n".join(json.dumps(each.plain(), sort_keys=True) for each in rows)
    file.write_text(f'{{"rows": [\n{lines}\n]}}\n')


def by_identity(rows: Iterable[Row]) -> dict[tuple[object, ...], Row]:
    """Rows by kernel, dtype, target and choices."""
    return {each.identity: each for each in rows}


def distinct(configurations: Iterable[Configuration]) -> list[Configuration]:
    """Every configuration once: two size classes may share one compilation."""
    return list({key(each): each for each in configurations}.values())


def complaints(rows: Sequence[Row], before: Sequence[Row]) -> tuple[list[str], list[str]]:
    """What is wrong with rows, and why some were not compared with those before, each in a sentence.

    The hard checks are made of every row. The comparison is made where the row before is of the same Triton.
    """
    known = by_identity(before)
    wrong: list[str] = []
    skipped: dict[str, int] = {}
    for each in rows:
        old = known.get(each.identity)
        found = hard(each)
        reason = why_not_compared(each, old)
        if reason is None and old is not None:
            found += soft(each, old)
        elif reason is not None and each.failure is None:
            skipped[reason] = skipped.get(reason, 0) + 1
        wrong += [f"{name(each)}: {sentence}" for sentence in found]
    return wrong, [f"{n} of {len(rows)} not compared: {reason}" for reason, n in skipped.items()]


def name(row: Row) -> str:
    """A row in a few words."""
    return f"{row.kernel} {row.dtype} {row.target} ({choices(row)}, {row.warps} warps, {row.stages} stages)"


def choices(row: Row) -> str:
    """The sizes and switches of a row: `BLOCK 64, STEP 32`."""
    return ", ".join(f"{what} {value}" for what, value in row.constexprs.items())
