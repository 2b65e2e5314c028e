"""The printed table of a plan: a line a logical matrix, or a line for all that differ in the number of their layer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from modular_manifolds.adapt.row import Row

Cells: TypeAlias = list[float | int | str | None]

NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)")


def plan_header() -> list[str]:
    """The names of the columns of `plan_cells`."""
    return [
        *("name", "shape", "orientation", "manifold", "norm", "radius"),
        *("mass", "response", "step", "rule"),
    ]


def plan_cells(
    rows: Sequence[Row],
    shares: Sequence[float],
    fallbacks: Mapping[str, Mapping[str, Any]],
    *,
    full: bool,
) -> list[Cells]:
    """The rows and the fallbacks as text and numbers.

    A line for several layers shows a number if it is the same for all of them, and else the smallest and the largest.
    """
    lines: list[tuple[str, tuple[str, ...], Cells]] = []
    for row, share in zip(rows, shares, strict=True):
        texts = (
            "×".join(map(str, row.shape)) or "scalar",
            row.orientation,
            type(row.geometry.manifold).__name__,
            str(row.geometry.norm),
        )
        numbers: Cells = [row.radius, row.mass, row.response, share]
        lines.append((row.name, (*texts, row.rule), numbers))
    for name, values in fallbacks.items():
        texts = ("-", "-", str(values["optimizer"]), "-", "fallback")
        lines.append((name, texts, [None, None, None, None]))
    groups: dict[tuple[Any, ...], list[tuple[str, Cells]]] = {}
    for name, texts, numbers in lines:
        key = name if full else NUMBER.sub("{}", name)
        groups.setdefault((key, texts), []).append((name, numbers))
    found: list[Cells] = []
    for (_, texts), members in groups.items():
        columns = zip(*(numbers for _, numbers in members), strict=True)
        name = _joined([each for each, _ in members])
        found.append([name, *texts[:-1], *map(_range, columns), texts[-1]])
    return found


def _joined(names: Sequence[str]) -> str:
    """One name for several that differ in numbers: `h.{0..11}.attn.weight`."""
    if len(names) == 1:
        return names[0]
    columns = zip(*(NUMBER.findall(name) for name in names), strict=True)
    words = iter([_numbers([int(each) for each in column]) for column in columns])
    return NUMBER.sub(lambda _: next(words), names[0])


def _numbers(values: Sequence[int]) -> str:
    found = sorted(set(values))
    if len(found) == 1:
        return str(found[0])
    if found == list(range(found[0], found[-1] + 1)):
        return f"{{{found[0]}..{found[-1]}}}"
    return f"{{{','.join(map(str, found))}}}"


def _range(values: Sequence[float | int | str | None]) -> float | int | str | None:
    numbers = [each for each in values if isinstance(each, float)]
    if not numbers:
        return None
    low, high = min(numbers), max(numbers)
    return low if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g}..{high:.3g}"
