"""Products in bfloat16 on a processor that has no instructions for them."""

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
    """Products of bfloat16 matrices on the CPU are computed in float32 and rounded.

    This is what a processor with such instructions does: it adds in float32 and rounds the sum. Only the order of
    the additions differs. Without such instructions torch's own loops take some hundred times as long.
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
    """A context in which products of bfloat16 matrices are quick; it does nothing if the processor makes them so."""
    return nullcontext() if half_is_fast("cpu") else ThroughFloat32()
