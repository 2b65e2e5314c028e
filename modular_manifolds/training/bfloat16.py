"""Fast bfloat16 products on processors without bfloat16 instructions."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from modular_manifolds.linalg.backend import half_is_fast

PRODUCTS: Final = frozenset(
    {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default}
)


class ThroughFloat32(TorchDispatchMode):
    """Computes CPU products of bfloat16 matrices in float32, and rounds the result.

    bfloat16 instructions also add in float32 and round the sum; only the order of the additions differs. Without such
    instructions, torch's own loops are about a hundred times slower.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func not in PRODUCTS or not all(
            each.dtype == torch.bfloat16 and each.is_cpu
            for each in args
            if isinstance(each, torch.Tensor)
        ):
            return func(*args, **kwargs)
        wide = [each.float() if isinstance(each, torch.Tensor) else each for each in args]
        return func(*wide, **kwargs).bfloat16()


def products() -> AbstractContextManager[object]:
    """A context with fast products of bfloat16 matrices; it does nothing if the processor has instructions for them."""
    return nullcontext() if half_is_fast("cpu") else ThroughFloat32()
