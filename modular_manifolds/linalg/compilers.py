"""Helpers that let `torch.compile` make one graph of code that calls functions of plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Item = TypeVar("Item")
Function = TypeVar("Function", bound=Callable[..., object])


def constant(function: Function) -> Function:
    """Mark a pure function: a compiler calls it once and does not trace it.

    In compiled code its arguments must be plain: no tensor, no symbolic size.
    """
    # torch.compiler.assume_constant_result does no more than this, but it imports the compiler, which takes as long as
    # importing torch.
    function.__dict__["_dynamo_marked_constant"] = True
    return function


def plain(number: float) -> float:
    """The value of a number that a compiler may have made symbolic; the code is then compiled for this value alone."""
    # Reading the digits of a symbolic float makes the compiler specialise on its value.
    return float.fromhex(number.hex())


def number_in(known: list[Item], item: Item) -> int:
    """The index of `item` in `known`, appended if it is new. A graph, which cannot hold objects, holds this number.

    Equal items have one number. Call it from a `constant` function, so that a compiler does not trace the search.
    """
    if item not in known:
        known.append(item)
    return known.index(item)
