"""The launches of our own kernels, counted from the code that launches them, on tensors without storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from modular_manifolds_kernels.coefficients import POLAR_EXPRESS
from modular_manifolds_kernels.launches import Step, pre_step_
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.matrix_sign import msign_and_scale as msign
from modular_manifolds_kernels.model.launch import Launch
from modular_manifolds_kernels.retraction import stiefel_retract
from modular_manifolds_kernels.shipped import SHIPPED, Precision

READS: Final[Mapping[str, tuple[str, ...]]] = {
    "gram": ("x", "largest"),
    "polynomial": ("left", "right", "squares"),
    "apply": ("p", "x", "largest", "squares"),
    "small_msign": ("x", "coefficients"),
    "narrow_msign": ("x", "coefficients"),
    "tiled_msign": ("x", "coefficients"),
    "stiefel_retract": ("w", "a"),
    "tiled_retract": ("w", "a"),
    "pre_step": ("momentum", "gradient"),
}
WRITES: Final[Mapping[str, tuple[str, ...]]] = {
    "gram": ("r", "squares"),
    "polynomial": ("out",),
    "apply": ("out",),
    "small_msign": ("out",),
    "narrow_msign": ("out",),
    "tiled_msign": ("out",),
    "stiefel_retract": ("out", "residual"),
    "tiled_retract": ("out", "residual"),
    "pre_step": ("momentum", "out", "largest", "squares"),
}
"""The tensors that a kernel reads and writes, by its arguments' names. What a kernel writes and reads again
in one launch, strip by strip, is counted once: it stays in the cache where it is as small as the kernel is for."""


class _Recorder(Mapping[str, Any]):
    """Stands for the Triton functions, and writes down what is launched."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self._arguments = {row.kernel: list(row.signature) for row in SHIPPED}

    def __getitem__(self, name: str) -> Any:
        recorder = self

        class _Launcher:
            def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
                def launch(*arguments: object, **options: Any) -> None:
                    named = dict(zip(recorder._arguments[name], arguments, strict=False))
                    recorder.launches.append(_counted(name, grid, {**named, **options}))

                return launch

        return _Launcher()

    def __iter__(self) -> Iterator[str]:
        return iter(self._arguments)

    def __len__(self) -> int:
        return len(self._arguments)


def _counted(name: str, grid: tuple[int, ...], given: Mapping[str, Any]) -> Launch:
    blocks = 1
    for length in grid:
        blocks *= length
    # What a switch turns off is passed and not touched.
    unused: tuple[str, ...] = ()
    if not given.get("SCALED", True):
        unused = ("largest", "squares")
    if not given.get("MOMENTUM", True):
        unused = ("momentum", "out")
    touched = {what: each for what, each in given.items() if what not in unused}
    read, written = (
        {id(touched[what]): touched[what] for what in names[name] if what in touched}
        for names in (READS, WRITES)
    )
    return Launch(
        name,
        blocks * _tile_flops(name, given),
        sum(map(size_of, read.values())),
        sum(map(size_of, written.values())),
        blocks,
    )


def _tile_flops(name: str, given: Mapping[str, Any]) -> int:
    """Operations of matrix products in one block, with what a tile adds past the edge."""
    block, strip = given["BLOCK"], given["BLOCK_K"]

    def product(depth: int) -> int:
        return 2 * block * block * (-(-depth // strip) * strip)

    if name == "pre_step":
        return 0
    n, k = given["n"], given.get("k", 0)
    if name == "gram":
        return product(k)
    if name in ("polynomial", "apply"):
        return product(n)
    if "TILE" in given:
        return _tiled_flops(name, given)
    square, strips = 2 * block**3, product(k)
    if name == "stiefel_retract":
        return strips + given["corrections"] * 2 * strips
    steps = given["steps"]
    if name == "small_msign":
        # The Gram matrix that the size is taken from, then three products a step.
        return 2 * block * block * strip + steps * (2 * 2 * block * block * strip + square)
    together = given["TOGETHER"]
    groups = -(-steps // together)
    # Each step on a Gram matrix makes T, Q T, S T and (S T) T; a lone step makes T only.
    inside = groups * square if together == 1 else steps * 4 * square
    return strips + groups * strips + (groups - 1) * strips + inside


def _tiled_flops(name: str, given: Mapping[str, Any]) -> int:
    """The same of a kernel that goes through its matrix in tiles."""
    n, k, tile, strip = given["n"], given["k"], given["TILE"], given["BLOCK_K"]
    height = -(-n // tile)

    def symmetric(depth: int) -> int:
        return height * (height + 1) // 2 * 2 * tile * tile * (-(-depth // strip) * strip)

    across = tile // 2
    apply = 2 * given["BLOCK"] * (-(-k // across) * across) * (-(-n // strip) * strip)
    if name == "tiled_retract":
        return given["corrections"] * (symmetric(k) + apply) + symmetric(k)
    steps, together = given["steps"], given["together"]
    groups = -(-steps // together)
    # The first step on a Gram matrix makes T; each further one U, S, T and Q T.
    inside = groups * symmetric(n) + (steps - groups) * 4 * symmetric(n)
    return groups * (symmetric(k) + apply) + inside


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor's entries."""
    return tensor.numel() * tensor.element_size()


def machine(target: str) -> tuple[Machine, list[Launch]]:
    """A machine that computes nothing, and the list that its launches are written to."""
    recorder = _Recorder()
    return Machine(target, recorder), recorder.launches


def msign_launches(
    *shape: int,
    steps: int,
    target: str = "sm_90",
    dtype: torch.dtype = torch.float32,
    precision: Precision = "bf16",
) -> list[Launch]:
    """The launches of one matrix sign, of a stack (*batch, m, n).

    Args:
        dtype: of the input and the result.
        precision: of the operands of the products.
    """
    held, launches = machine(target)
    msign(held, torch.empty(shape, dtype=dtype, device="meta"), POLAR_EXPRESS[:steps], precision)
    return launches


def step_launches(rows: int, columns: int, *, steps: int, target: str = "sm_90") -> list[Launch]:
    """The launches of one optimiser step for a float32 weight, up to its direction in bfloat16.

    Momentum, Nesterov's combination and its size in one pass, then the matrix sign of the combination. The
    change of the weight is not in it: it is torch's, the same for everybody.
    """
    held, launches = machine(target)
    gradient = torch.empty(1, rows, columns, device="meta")
    combined = torch.empty(1, rows, columns, dtype=torch.bfloat16, device="meta")
    largest, _ = pre_step_(held, torch.empty_like(gradient), gradient, combined, 0.95)
    msign(held, combined, POLAR_EXPRESS[:steps], "bf16", largest)
    return launches


def retraction_launches(*shape: int, target: str = "sm_90") -> list[Launch]:
    """The launches of a retraction with one correction and the residual, float32."""
    held, launches = machine(target)
    point = torch.empty(shape, device="meta")
    stiefel_retract(held, point, torch.empty_like(point), Step(0.1, None, unit=True), 1)
    return launches
