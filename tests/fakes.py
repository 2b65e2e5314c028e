"""An accelerator without numbers: tensors of the device `cuda` that know shapes only, on a machine without one.

Whoever reads a number of such a tensor fails: `float()`, `bool()`, `.item()`, `.tolist()`. Operators that wait for the
device though their result is a tensor are refused by `NoWaiting`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from watched import Watched

WAITING = {
    "_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "masked_select", "unique_dim",
    "_unique2", "repeat_interleave", "bincount", "_linalg_svd", "_linalg_eigh", "_linalg_eigvals", "linalg_eig",
    "linalg_lstsq", "linalg_matrix_rank",
}  # fmt: skip
"""Operators that read numbers on the host, or whose routines for CUDA do."""

VIEWS = {
    "view", "_unsafe_view", "reshape", "expand", "unsqueeze", "squeeze", "select", "slice", "unbind", "transpose", "t",
    "permute", "detach", "alias", "diagonal", "narrow", "split", "split_with_sizes", "as_strided", "_reshape_alias",
    "lift_fresh", "unflatten", "flatten", "chunk",
}  # fmt: skip
"""Operators that only say where numbers lie."""

QUESTIONS = {
    "device", "promote_types", "scalar_tensor", "_record_function_enter_new", "_record_function_exit",
}  # fmt: skip
"""Operators that are no work for a device: questions to a tensor, numbers of the program, marks of a profiler."""


class NoWaiting(Watched):
    """Refuses operators that wait for a device."""

    def see(self, func: Any, args: tuple[Any, ...]) -> None:
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            isinstance(each, Tensor) and each.dtype is torch.bool for each in args[1]
        )
        if name in WAITING or masked:
            raise AssertionError(f"{func} waits for the device")


class Counting(Watched):
    """Counts the operators that are dispatched; views apart, and questions not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.views: Counter[str] = Counter()

    def see(self, func: Any, args: tuple[Any, ...]) -> None:
        del args
        name = func.overloadpacket.__name__
        if name not in QUESTIONS:
            (self.views if name in VIEWS else self.operators)[name] += 1

    def __str__(self) -> str:
        return f"{self.operators.total()} operators and {self.views.total()} views"


FACTORISATIONS = {"linalg_cholesky_ex": 1 / 6, "linalg_solve_triangular": 1 / 2}
"""Multiplications of a factorisation, in units of n³."""


class Multiplications(Watched):
    """Counts scalar multiplications by dtype, on tensors without numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[torch.dtype] = Counter()

    def see(self, func: Any, args: tuple[Any, ...]) -> None:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "baddbmm", "addmm_"):
            a, b = args[:2] if name in ("mm", "bmm") else args[1:3]
            self.found[a.dtype] += a.numel() * b.shape[-1]
        elif name in FACTORISATIONS:
            factor = args[0]
            cube = math.prod(factor.shape[:-2]) * factor.shape[-1] ** 3
            self.found[factor.dtype] += FACTORISATIONS[name] * cube


class _NoDriver(TorchFunctionMode):
    """Methods that ask the driver for the device, also of a tensor without numbers: done by operators that do not."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        if func is Tensor.__getitem__:
            return _item(args[0], args[1])
        if func is Tensor.new_tensor:
            like = {"dtype": args[0].dtype, "device": args[0].device}
            return torch.tensor(args[1], **like | dict(kwargs or {}))
        return _OPERATORS.get(func, func)(*args, **(kwargs or {}))


_OPERATORS = {
    Tensor.__invert__: torch.bitwise_not,
    Tensor.contiguous: torch.ops.aten.contiguous.default,
    Tensor.copy_: torch.ops.aten.copy_.default,
}


def _item(x: Tensor, index: Any) -> Tensor:
    indices = list(index) if isinstance(index, tuple) else [index]
    taken = sum(1 for each in indices if each is not None and each is not Ellipsis)
    if Ellipsis in [each for each in indices if not isinstance(each, Tensor)]:
        at = next(i for i, each in enumerate(indices) if each is Ellipsis)
        indices[at : at + 1] = [slice(None)] * (x.dim() - taken)
    dim = 0
    for each in indices:
        if each is None:
            x = x.unsqueeze(dim)
        elif isinstance(each, Tensor):
            assert len(indices) == 1, "only one index of whole numbers is understood"
            return torch.ops.aten.index.Tensor(x, [each])
        elif isinstance(each, slice):
            if each != slice(None):
                start, stop, step = each.indices(x.shape[dim])
                x = torch.ops.aten.slice.Tensor(x, dim, start, stop, step)
        else:
            x = x.select(dim, each)
            continue
        dim += 1
    return x


@contextmanager
def fake_device() -> Iterator[None]:
    """While inside, tensors of the device `cuda` can be made, and have no numbers."""
    with FakeTensorMode(), _NoDriver():
        yield


def move_to_fake_device(
    opt: torch.optim.Optimizer, dtype: torch.dtype, shape: tuple[int, ...] | None = None
) -> None:
    """Put weights without numbers in the place of an optimiser's parameters, with gradients and without state.

    Call it inside `fake_device`.

    Args:
        shape: of every weight; as they are if None.
    """
    opt.state.clear()
    # A weight of another shape has a dual of another shape.
    opt._steps._roster._dual_shapes.clear()  # pyright: ignore[reportAttributeAccessIssue]
    for group in opt.param_groups:
        group["params"] = [
            torch.nn.Parameter(torch.empty(shape or each.shape, dtype=dtype, device="cuda"))
            for each in group["params"]
        ]
        for each in group["params"]:
            each.grad = torch.empty_like(each)
