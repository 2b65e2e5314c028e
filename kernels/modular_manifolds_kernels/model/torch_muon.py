"""The launches of `torch.optim.Muon`, counted from torch's own code as it runs on tensors without storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from modular_manifolds_kernels.model.launch import Launch

VIEWS: Final = ("aten::permute", "aten::t", "aten::transpose", "aten::detach", "aten::view")
"""Operators that launch nothing."""
UPDATE: Final = ("aten::mul_.Tensor", "aten::add_.Tensor")
"""What is done to the weight at the end: the same with any way to the direction."""
MOMENTUM: Final = ("aten::lerp_.Scalar", "aten::lerp.Scalar")


class _Recorder(TorchDispatchMode):
    """Writes down every operator that has to move data."""

    def __init__(self, *, copies: bool) -> None:
        super().__init__()
        self.copies = copies
        self.launches: list[Launch] = []
        # What each view looks at. Tensors are kept, so that no name of one is given to another.
        self._bases: dict[int, Tensor] = {}
        self._kept: list[Tensor] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name()
        if name.startswith("aten::") and isinstance(out, Tensor):
            self._kept.append(out)
            if name in VIEWS:
                self._bases[id(out)] = self._base(args[0])
            else:
                self._write_down(name, [each for each in args if isinstance(each, Tensor)], out)
        return out

    def _base(self, tensor: Tensor) -> Tensor:
        return self._bases.get(id(tensor), tensor)

    def _read(self, given: Sequence[Tensor]) -> int:
        """Bytes of the operands: one given twice, or with its own transpose, is read once."""
        return sum(size_of(each) for each in {id(b): b for b in map(self._base, given)}.values())

    def _write_down(self, name: str, given: list[Tensor], out: Tensor) -> None:
        read, flops = self._read(given), 0
        if name in ("aten::mm", "aten::addmm"):
            left, right = given[-2:]
            flops = 2 * left.shape[0] * left.shape[1] * right.shape[1]
        if name == "aten::addmm" and self.copies:
            # cuBLAS adds to what is there: torch copies the first operand to the result, which is then
            # read in its place.
            self.launches.append(Launch("copy for addmm", 0, size_of(given[0]), size_of(out)))
            read = self._read(given[1:]) + size_of(out)
        self.launches.append(Launch(name.removeprefix("aten::"), flops, read, size_of(out)))


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor's entries."""
    return tensor.numel() * tensor.element_size()


def muon_step(rows: int, columns: int, *, copies: bool = True) -> list[Launch]:
    """One step of `torch.optim.Muon` with its default settings for a float32 weight: five iterations in bfloat16.

    Args:
        copies: with the copy that torch makes before every `addmm` whose result is a new tensor
            (`addmm_out_cuda_impl` in aten/src/ATen/native/cuda/Blas.cpp).
    """
    weight = torch.nn.Parameter(torch.empty(rows, columns, device="meta"))
    weight.grad = torch.empty_like(weight)
    optimizer = torch.optim.Muon([weight])
    # The first step also makes the momentum buffer.
    optimizer.step()
    with _Recorder(copies=copies) as recorder:
        optimizer.step()
    return recorder.launches


def msign_part(launches: Sequence[Launch]) -> list[Launch]:
    """Of a step, what lies between momentum and the change of the weight: the orthogonalisation."""
    others = {name.removeprefix("aten::") for name in (*UPDATE, *MOMENTUM)}
    return [each for each in launches if each.name not in others]
