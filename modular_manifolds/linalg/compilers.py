"""Helpers with which `torch.compile` makes one graph of code that calls functions of plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Item = TypeVar("Item")
Function = TypeVar("Function", bound=Callable[..., object])


def constant(function: Function) -> Function:
    """Mark a function whose result depends on nothing but its arguments: it is called once, and not traced.

    In compiled code its arguments must be plain: no tensor, no symbolic size.
    """
    # This is all that torch.compiler.assume_constant_result does. To call that imports the compiler, which takes as long
    # as importing torch.
    function.__dict__["_dynamo_marked_constant"] = True
    return function


def plain(number: float) -> float:
    """The number itself; if a compiler has made it symbolic, its value, for which alone the code is compiled."""
    # To read the digits of a symbolic float is to ask for its value.
    return float.fromhex(number.hex())


def number_in(known: list[Item], item: Item) -> int:
    """The place of `item` in a list that only grows: the number that stands for it in a graph, which holds no objects.

    Equal items have one number. Call it from a `constant` function, so that a compiler does not trace the search.
    """
    if item not in known:
        known.append(item)
    return known.index(item)
