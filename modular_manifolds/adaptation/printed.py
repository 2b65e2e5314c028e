"""The printed table of a plan: one line for each logical matrix, or for all that differ only in layer numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from modular_manifolds.adaptation.row import Row

Cells: TypeAlias = list[float | int | str | None]

LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)")


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
    """The rows and the fallbacks as texts and numbers.

    A line for several layers shows the smallest and the largest number if they differ.
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
        key = name if full else LAYER_NUMBER.sub("{}", name)
        groups.setdefault((key, texts), []).append((name, numbers))
    cells: list[Cells] = []
    for (_, texts), members in groups.items():
        columns = zip(*(numbers for _, numbers in members), strict=True)
        name = _merged_name([each for each, _ in members])
        cells.append([name, *texts[:-1], *map(_range, columns), texts[-1]])
    return cells


def _merged_name(names: Sequence[str]) -> str:
    """One name for several that differ in layer numbers: `h.{0..11}.attn.weight`."""
    if len(names) == 1:
        return names[0]
    columns = zip(*(LAYER_NUMBER.findall(name) for name in names), strict=True)
    words = iter([_number_range([int(each) for each in column]) for column in columns])
    return LAYER_NUMBER.sub(lambda _: next(words), names[0])


def _number_range(values: Sequence[int]) -> str:
    unique = sorted(set(values))
    if len(unique) == 1:
        return str(unique[0])
    if unique == list(range(unique[0], unique[-1] + 1)):
        return f"{{{unique[0]}..{unique[-1]}}}"
    return f"{{{','.join(map(str, unique))}}}"


def _range(values: Sequence[float | int | str | None]) -> float | int | str | None:
    numbers = [each for each in values if isinstance(each, float)]
    if not numbers:
        return None
    low, high = min(numbers), max(numbers)
    return low if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g}..{high:.3g}"
