"""What a kernel's source asks for: its matrix products, read from Triton's own intermediate text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
class Loop:
    """A loop of the source, or the whole kernel: its own products, without those of loops inside it."""

    always: list[Dot] = field(default_factory=list)
    perhaps: list[Dot] = field(default_factory=list)
    """Those under a condition."""
    inner: list[Loop] = field(default_factory=list)

    def holding(self) -> Iterator[Loop]:
        """This loop and all in it that have products of their own."""
        for each in self.inner:
            yield from each.holding()
        if self.always or self.perhaps:
            yield self

    def hot(self) -> list[Loop]:
        """The innermost loops that have products."""
        found = [one for each in self.inner for one in each.hot()]
        return found or list(self.holding())

    def dots(self) -> list[Dot]:
        """Its own products."""
        return [*self.always, *self.perhaps]


def read(ttir: str) -> Loop:
    """The loops of a kernel."""
    kernel = Loop()
    regions: list[tuple[Loop, bool, bool]] = [(kernel, False, False)]
    for line in ttir.splitlines():
        stripped = line.split(" loc(")[0].strip()
        loop, conditional, _ = regions[-1]
        found = DOT.search(line)
        if found:
            (loop.perhaps if conditional else loop.always).append(_dot(found))
        if stripped.startswith("}") and len(regions) > 1:
            regions.pop()
            loop, conditional, _ = regions[-1]
        if stripped.endswith("{"):
            # The body of a while loop opens on the line that closes its condition.
            if "scf.for" in stripped or "scf.while" in stripped or stripped == "} do {":
                within = Loop()
                loop.inner.append(within)
                regions.append((within, False, True))
            else:
                branch = "scf.if" in stripped or stripped == "} else {"
                regions.append((loop, conditional or branch, False))
    return kernel


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


def asked_for(kernel: Loop, done: Sequence[int]) -> int:
    """The operations that the source asks for in the loops that a compiler made of its loops.

    A compiler may make two loops of one, for a condition that does not change in it: with the products
    under the condition and without, or with an inner loop and without. Where every loop of the code is such
    a version of a loop of the source and none of the hot ones is missing, that is `sum(done)`; otherwise
    what the hot loops of the source hold.

    Args:
        done: operations of each hot loop of the code.
    """
    versions = {flops(part) for each in kernel.holding() for part in (each.always, each.dots())}
    wanted = Counter(flops(each.dots()) for each in kernel.hot())
    if set(done) <= versions and wanted <= Counter(done):
        return sum(done)
    return sum(size * times for size, times in wanted.items())
