"""Inputs that a library of matrices must survive: every rank, every layout, every size a dtype can hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

DTYPES = (torch.float32, torch.float64)

SIZES = {
    torch.float32: (1.0, 1e-3, 1e6, 1e-20, 1e20, 1e-30, 1e30, 1e-38, 1e-45, 1e38, 3.4e38),
    torch.float64: (1.0, 1e-3, 1e6, 1e-100, 1e100, 1e-200, 1e200, 1e-308, 5e-324, 1e308, 1.7e308),
}
"""Sizes from the smallest denormal number of a dtype to its largest number; the ordinary ones first."""

RADII = (1.0, 1.7, 1e-3, 1e3, 1e-30, 1e30)
STEPS = (0.1, 0.0, 1e-30, 1e-8, 1.0, 1e3, 1e20, 1e38)

KINDS = (
    "normal",
    "zero",
    "one entry",
    "zero row",
    "zero column",
    "rank one",
    "repeated singular values",
    "equal singular values",
    "constant rows",
    "constant",
    "signs",
    "uneven columns",
    "uneven entries",
)

LAYOUTS = ("contiguous", "transposed", "sliced", "expanded", "requires grad")


def matrix(kind: str, m: int, n: int, size: float, dtype: torch.dtype, seed: int) -> Tensor:
    """One m×n matrix whose largest entry is about `size`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = normal(m, n)
    match kind:
        case "zero":
            x = torch.zeros(m, n, dtype=torch.float64)
        case "one entry":
            x = torch.zeros(m, n, dtype=torch.float64)
            x[seed % m, seed % n] = 1.0
        case "zero row":
            x[seed % m] = 0.0
        case "zero column":
            x[:, seed % n] = 0.0
        case "rank one":
            x = normal(m, 1) * normal(1, n)
        case "repeated singular values" | "equal singular values":
            u, _, vh = torch.linalg.svd(x, full_matrices=False)
            sigma = torch.ones(min(m, n), dtype=torch.float64)
            if kind == "repeated singular values":
                sigma[: sigma.numel() // 2] = 3.0
            x = (u * sigma) @ vh
        case "constant rows":
            x = normal(m, 1).expand(m, n).clone()
        case "constant":
            x = torch.ones(m, n, dtype=torch.float64)
        case "signs":
            x = normal(m, n).sign()
        case "uneven columns":
            x = x * torch.logspace(0, -12, n, dtype=torch.float64)
        case "uneven entries":
            x = x * 10.0 ** (20 * torch.rand(m, n, generator=generator, dtype=torch.float64) - 20)
        case _:
            pass
    largest = x.abs().max()
    unit = x / largest if largest > 0 else x
    return (unit * size).to(dtype)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers in other memory; `expanded` repeats the first matrix, or the first row, at stride 0."""
    match layout:
        case "transposed":
            return x.mT.contiguous().mT
        case "sliced":
            wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), 7.0, dtype=x.dtype)
            wide[..., ::2] = x
            return wide[..., ::2]
        case "expanded":
            return x[:1].expand(x.shape)
        case "requires grad":
            return x.clone().requires_grad_()
        case _:
            return x


@dataclass(frozen=True)
class Room:
    """Where an example lives: shape (*batch, m, n) and dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@st.composite
def rooms(draw: st.DrawFn, *, most: int = 6) -> Room:
    """One matrix or a stack of up to three, small, of any proportion."""
    side = st.integers(1, most)
    m, n = draw(side), draw(side)
    batch = draw(st.sampled_from([(), (), (2,), (3,)]))
    return Room((*batch, m, n), draw(st.sampled_from(DTYPES)))


@st.composite
def tensors(draw: st.DrawFn, room: Room, *, sizes: tuple[float, ...] | None = None) -> Tensor:
    """A finite tensor of the room; the matrices of a stack have kinds and sizes of their own."""
    *batch, m, n = room.shape
    sizes = SIZES[room.dtype] if sizes is None else sizes
    each = [
        matrix(
            draw(st.sampled_from(KINDS)),
            m,
            n,
            draw(st.sampled_from(sizes)),
            room.dtype,
            draw(st.integers(0, 50)),
        )
        for _ in range(batch[0] if batch else 1)
    ]
    return laid_out(torch.stack(each) if batch else each[0], draw(st.sampled_from(LAYOUTS)))
