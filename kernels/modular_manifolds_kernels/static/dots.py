"""What a kernel's source asks for: its matrix products, read from Triton's own intermediate text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PRODUCTS: Final = {"tf32x3": 3, "bf16x3": 3, "bf16x6": 6}
"""How many products of the machine one product of the source becomes; one for every other precision."""

DOT = re.compile(
    r"tt\.dot\b.*?(?:inputPrecision = (?P<precision>\w+))?\s*:\s*"
    r"tensor<(?P<a>[\dx]+)x(?P<kind>b?f\d+)>\s*\*\s*tensor<(?P<b>[\dx]+)x\w+>"
)


@dataclass(frozen=True)
class Dot:
    """A product (batch, m, k) × (batch, k, n) and the precision of its operands: bf16, fp16, tf32, ieee, …"""

    batch: int
    m: int
    n: int
    k: int
    precision: str

    @property
    def flops(self) -> int:
        """Operations that the machine has to do for it: exact, whatever the machine."""
        return 2 * self.batch * self.m * self.n * self.k * PRODUCTS.get(self.precision, 1)

    @property
    def operands(self) -> str:
        """The precision by which the matrix instruction is chosen."""
        if self.precision in PRODUCTS:
            return self.precision.partition("x")[0]
        return self.precision


@dataclass
class _Region:
    loop: bool
    dots: list[Dot]
    nested: bool = False


def hot_dots(ttir: str) -> list[Dot]:
    """The products in the innermost loops that hold any; all of them where no loop does."""
    everything: list[Dot] = []
    hot: list[Dot] = []
    regions: list[_Region] = []
    for line in ttir.splitlines():
        stripped = line.split(" loc(")[0].strip()
        found = DOT.search(line)
        if found:
            dot = _dot(found)
            everything.append(dot)
            holding = next((each for each in reversed(regions) if each.loop), None)
            if holding is not None:
                holding.dots.append(dot)
        if stripped.startswith("}") and regions:
            closed = regions.pop()
            if closed.loop and (closed.dots or closed.nested):
                if not closed.nested:
                    hot += closed.dots
                for outer in regions:
                    outer.nested = outer.nested or outer.loop
        if stripped.endswith("{"):
            # The second half of a while loop, its body, opens on the line that closes the first.
            loop = "scf.for" in stripped or "scf.while" in stripped or stripped == "} do {"
            regions.append(_Region(loop, []))
    return hot or everything


def _dot(found: re.Match[str]) -> Dot:
    a = [int(size) for size in found["a"].split("x")]
    b = [int(size) for size in found["b"].split("x")]
    kind = {"f16": "fp16", "f32": "fp32"}.get(found["kind"], found["kind"])
    precision = (found["precision"] or "ieee") if kind == "fp32" else kind
    batch = a[0] if len(a) == 3 else 1
    return Dot(batch, a[-2], b[-1], a[-1], precision)


def flops(dots: Sequence[Dot]) -> int:
    """Operations of several products together."""
    return sum(each.flops for each in dots)
