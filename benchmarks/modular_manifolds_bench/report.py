"""The findings of a benchmark: frozen rows, and the JSON they are kept in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modular_manifolds.errors import DataError
from modular_manifolds.specs.whole import write_whole, writing
from modular_manifolds.training.environment import Environment


@dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        bench: the name of the benchmark for `--only`.
        what: a description of the comparison.
        unit: the unit of `ours` and `theirs`.
        ours: the number of this library; None if there is none.
        theirs: the number it is compared with; None if there is none.
        ratio: the median of the ratio over rounds; None if it was not measured.
        low: the lower quartile of the ratio.
        high: the upper quartile of the ratio.
        bar: the required condition as a text; empty if there is none.
        met: whether the condition holds; None without a bar or a measurement.
        note: a remark.
    """

    bench: str
    what: str
    unit: str = "s"
    ours: float | None = None
    theirs: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    bar: str = ""
    met: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Report:
    """All rows of a run, the data they were measured on and the environment."""

    environment: Environment
    data: str
    seconds: float
    rows: tuple[Row, ...]

    @property
    def missed(self) -> tuple[Row, ...]:
        """The rows whose bar does not hold."""
        return tuple(row for row in self.rows if row.met is False)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote.

        Raises:
            DataError: the text is no such report.
        """
        try:
            found: dict[str, Any] = json.loads(text)
            rows = tuple(Row(**row) for row in found["rows"])
            environment = Environment(**found["environment"])
            return cls(environment, found["data"], found["seconds"], rows)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                "report",
                "must be a file of `modular-manifolds bench --json`",
                f"{type(error).__name__}: {error}",
                "Run the command again.",
            ) from None

    def write(self, path: Path) -> None:
        """Write the JSON beside `path` and rename it.

        Raises:
            DataError: the file cannot be written.
        """
        with writing("--json", path):
            write_whole(path, self.to_json())


HEADER = ("what", "ours", "theirs", "ratio [quartiles]", "bar", "met")


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The rows as text, in the order of `HEADER`."""
    return [
        (
            f"{row.what} ({row.note})" if row.note else row.what,
            amount(row.ours, row.unit),
            amount(row.theirs, row.unit),
            _ratio(row),
            row.bar or "–",
            {True: "yes", False: "no", None: "–"}[row.met],
        )
        for row in rows
    ]


def amount(value: float | None, unit: str) -> str:
    """A number with its unit; seconds and bytes in the size that reads best."""
    if value is None:
        return "–"
    if unit == "s":
        for factor, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if value >= factor:
                return f"{value / factor:.3g} {name}"
    if unit == "B":
        for factor, name in ((2**20, "MiB"), (2**10, "KiB")):
            if value >= factor:
                return f"{value / factor:.4g} {name}"
    return f"{value:.3g} {unit}".rstrip()


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return "–"
    spread = "" if row.low is None or row.high is None else f" [{row.low:.3g}, {row.high:.3g}]"
    return f"{row.ratio:.3g}{spread}"
