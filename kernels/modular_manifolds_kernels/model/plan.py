"""The launches of our own matrix sign and optimiser step, counted from shapes and tiles."""

from __future__ import annotations

from dataclasses import dataclass

from modular_manifolds_kernels.model.launch import Launch


@dataclass(frozen=True)
class Tiles:
    """Sizes of a matrix with short side n and long side k, its tiles, and bytes of an entry on the way."""

    n: int
    k: int
    block: int
    block_k: int
    entry: int = 2
    given: int = 4
    """Bytes of an entry of the input."""

    @property
    def rows(self) -> int:
        """Tiles along the short side."""
        return -(-self.n // self.block)

    @property
    def triangle(self) -> int:
        """Tiles on and below the diagonal of an n×n matrix."""
        return self.rows * (self.rows + 1) // 2

    def tile_flops(self, depth: int) -> int:
        """Operations of one tile whose inner dimension is `depth`."""
        padded = -(-depth // self.block_k) * self.block_k
        return 2 * self.block * self.block * padded

    def gram(self, *, first: bool) -> Launch:
        """`R = X Xᵀ`: one triangle computed, both written."""
        entry = self.given if first else self.entry
        return Launch(
            "gram",
            self.triangle * self.tile_flops(self.k),
            self.n * self.k * entry,
            self.n * self.n * self.entry,
            self.triangle,
        )

    def polynomial(self, operands: int) -> Launch:
        """`a I + b A + c A B`: one triangle computed, both written; `operands` is 1 where A is B."""
        return Launch(
            "polynomial",
            self.triangle * self.tile_flops(self.n),
            operands * self.n * self.n * self.entry,
            self.n * self.n * self.entry,
            self.triangle,
        )

    def apply(self, *, first: bool) -> Launch:
        """`a X + c P X`."""
        entry = self.given if first else self.entry
        tiles = self.rows * -(-self.k // self.block)
        return Launch(
            "apply",
            tiles * self.tile_flops(self.n),
            self.n * self.k * entry + self.n * self.n * self.entry,
            self.n * self.k * self.entry,
            tiles,
        )


def standard_form(tiles: Tiles, steps: int) -> list[Launch]:
    """Every step on X itself: `R = X Xᵀ`, `P = b R + c R²`, `X ← a X + P X`."""
    launches = []
    for step in range(steps):
        first = step == 0
        launches += [tiles.gram(first=first), tiles.polynomial(1), tiles.apply(first=first)]
    return launches


def gram_form(tiles: Tiles, steps: int, together: int) -> list[Launch]:
    """A few steps on one Gram matrix, then `X ← Q X`, and again.

    `T = aI + bR + cR²`, `R ← T R T`, `Q ← Q T`; R is not made for a step that is the last on its Gram
    matrix, and the first Q is T.
    """
    launches = []
    for start in range(0, steps, together):
        held = min(together, steps - start)
        launches.append(tiles.gram(first=start == 0))
        for step in range(held):
            launches.append(tiles.polynomial(1))
            if step > 0:
                launches.append(tiles.polynomial(2))
            if step + 1 < held:
                launches += [tiles.polynomial(2), tiles.polynomial(2)]
        launches.append(tiles.apply(first=start == 0))
    return launches
