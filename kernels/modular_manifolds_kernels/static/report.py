"""The committed report: read, written, compared with what is compiled now."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from modular_manifolds_kernels.configuration import Configuration
from modular_manifolds_kernels.shipped import SHIPPED
from modular_manifolds_kernels.static.checks import hard, soft, why_not_compared
from modular_manifolds_kernels.static.row import Row, key
from modular_manifolds_kernels.static.sass import family

FILE: Final = Path(__file__).parent / "report.json"


def stored(file: Path = FILE) -> list[Row]:
    """The rows of the committed report."""
    return [Row.read(each) for each in json.loads(file.read_text(encoding="utf-8"))["rows"]]


def store(rows: Iterable[Row], file: Path = FILE) -> None:
    """Write a report, a row on a line, so that a difference reads well."""
    lines = ",\n".join(json.dumps(each.plain(), sort_keys=True) for each in rows)
    file.write_text(f'{{"rows": [\n{lines}\n]}}\n', encoding="utf-8")


def by_identity(rows: Iterable[Row]) -> dict[tuple[object, ...], Row]:
    """Rows by kernel, dtype, target and choices."""
    return {each.identity: each for each in rows}


def configurations() -> list[Configuration]:
    """Every shipped configuration once: two size classes may share one compilation."""
    return list({key(each): each for each in SHIPPED}.values())


def in_order(rows: Iterable[Row]) -> list[Row]:
    """The rows that belong to shipped configurations, in their order; rows of what is no longer shipped go."""
    known = by_identity(rows)
    return [known[key(each)] for each in configurations() if key(each) in known]


Chosen = TypeVar("Chosen", Row, Configuration)


def chosen(those: Iterable[Chosen], only: Collection[str]) -> list[Chosen]:
    """Those that are named, by kernel, dtype and target: names of one kind are alternatives; all without names.

    Raises:
        ValueError: no shipped configuration has such a name.
    """
    kinds = [{getattr(each, kind) for each in SHIPPED} for kind in ("kernel", "dtype", "target")]
    unknown = sorted(set(only).difference(*kinds))
    if unknown:
        known = ", ".join(name for kind in kinds for name in sorted(kind))
        raise ValueError(f"{unknown[0]} is none of {known}")
    wanted = [kind.intersection(only) or kind for kind in kinds]
    return [
        each
        for each in those
        if each.kernel in wanted[0] and each.dtype in wanted[1] and each.target in wanted[2]
    ]


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
    return f"{row.kernel} {row.dtype} {row.target} {choices(row)} ({row.warps} warps, {row.stages} stages)"


def choices(row: Row) -> str:
    """What a row is made for: `128×64 cols scaled`: cols where the short side is contiguous."""
    chosen = row.constexprs
    said = [f"{chosen.get('BLOCK')}×{chosen.get('BLOCK_K')}"]
    if any(what.endswith("_row") for what in chosen):
        said.append("cols")
    if chosen.get("SCALED"):
        said.append("scaled²" if chosen["SCALED"] == 2 else "scaled")
    if chosen.get("NESTEROV"):
        said.append("nesterov")
    elif chosen.get("MOMENTUM"):
        said.append("momentum")
    if "TILE" in chosen:
        said.append(f"tiles {chosen['TILE']}")
    if "TOGETHER" in chosen:
        said.append(f"steps {chosen['TOGETHER']}")
    return " ".join(said)


HEADER: Final = (
    "kernel",
    "dtype",
    "tile and choices",
    "w/s",
    "regs",
    "spill",
    "KiB",
    "fit",
    "code",
    "loop",
    "matrix",
    "ratio",
)
"""Warps and stages; registers; spilled bytes; KiB of shared memory; blocks that fit on one multiprocessor;
instructions, of them in the hot loops; matrix instructions there; their operations over the source's."""


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table; sizes of memory in KiB."""
    first = (row.kernel, row.dtype, choices(row), f"{row.warps}/{row.stages}")
    if row.failure is not None:
        return (*first, *("–" for _ in HEADER[len(first) :]))
    matrix = Counter[str]()
    for what, count in row.matrix.items():
        matrix[family(what)] += count
    ratio = row.flop_ratio
    return (
        *first,
        str(row.registers),
        str(row.spill_stores),
        f"{row.shared / 1024:.0f}",
        str(row.resident_blocks),
        str(row.instructions),
        str(row.hot_loop),
        " ".join(f"{count} {what}" for what, count in matrix.items()) or "–",
        "–" if ratio is None else f"{ratio:.4g}",
    )
