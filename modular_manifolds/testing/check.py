"""Assertions whose messages name the law and the measured value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def at_most(measured: Tensor | float, allowed: Tensor | float, law: str) -> None:
    """Assert `measured ≤ allowed` for every entry; NaN always fails."""
    worst = _worst_excess(measured, allowed)
    if worst is not None:
        raise AssertionError(f"{law}: measured {worst[0]:.6g}, allowed at most {worst[1]:.6g}")


def at_least(measured: Tensor | float, required: Tensor | float, law: str) -> None:
    """Assert `measured ≥ required` for every entry; NaN always fails."""
    worst = _worst_excess(required, measured)
    if worst is not None:
        raise AssertionError(f"{law}: measured {worst[1]:.6g}, required at least {worst[0]:.6g}")


def _worst_excess(smaller: Tensor | float, larger: Tensor | float) -> tuple[float, float] | None:
    """The pair of entries that violates `smaller ≤ larger` most; None if no entry does."""
    left = torch.as_tensor(smaller, dtype=torch.float64).detach().cpu()
    right = torch.as_tensor(larger, dtype=torch.float64).detach().cpu()
    if bool((left <= right).all()):
        return None
    excess = torch.nan_to_num(left - right, nan=torch.inf)
    worst = int(excess.argmax())
    pair = (each.broadcast_to(excess.shape).flatten()[worst] for each in (left, right))
    first, second = (float(each) for each in pair)
    return first, second


def close(actual: Tensor, expected: Tensor, *, tolerance: float, law: str) -> None:
    """Assert equal shape and dtype, and `‖actual − expected‖_∞ ≤ tolerance · max(‖expected‖_∞, tiny)`.

    The tolerance is relative to the largest entry, because an entry that should be zero may have the rounding error
    of the others.
    """
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(
        actual, expected, atol=tolerance * largest, rtol=0, msg=lambda found: f"{law}: {found}"
    )


def equal(actual: object, expected: object, law: str) -> None:
    """Assert `actual == expected`."""
    if actual != expected:
        raise AssertionError(f"{law}: measured {actual}, expected {expected}")


def finite(x: Tensor, law: str) -> None:
    """Assert that no entry is NaN or infinite."""
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise AssertionError(f"{law}: {bad} of {x.numel()} entries are NaN or infinite")


@contextmanager
def unchanged(law: str, **arguments: Tensor) -> Iterator[None]:
    """A context that asserts that the code inside does not write into the arguments."""
    copies = {name: (each.clone(), each._version) for name, each in arguments.items()}
    yield
    for name, each in arguments.items():
        copy, version = copies[name]
        if each._version != version or not torch.equal(each, copy):
            raise AssertionError(f"{law}: '{name}' was written into")


def separate_memory(result: Tensor, law: str, **arguments: Tensor) -> None:
    """Assert that `result` shares no memory with an argument, so that writing into it is safe."""
    for name, each in arguments.items():
        if result.untyped_storage().data_ptr() == each.untyped_storage().data_ptr():
            raise AssertionError(f"{law}: the result shares its memory with '{name}'")
