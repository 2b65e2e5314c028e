"""Modules of a network that know their mass, sensitivity and spaces: atoms, bonds and what they compose to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, SupportsIndex

import torch
from torch import nn

from modular_manifolds.arguments import is_number
from modular_manifolds.composition.budget import allocate
from modular_manifolds.composition.space import AnySpace
from modular_manifolds.composition.tree import Tree, slope
from modular_manifolds.errors import ArgumentError, SharedWeightError
from modular_manifolds.manifolds.product import Product
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.norms.modular import ModularNorm
from modular_manifolds.wrappers import averages_gradients, unwrapped

if TYPE_CHECKING:
    from modular_manifolds.nn.compose import Parallel, Scale, Series, Sum


class Module(nn.Module, ABC):
    """A `torch.nn.Module` that can be composed, and whose numbers are derived at each call.

    Operators: `f >> g` series, `f | g` parallel, `f + g` sum, `c * f` scale, `f ** n` n fresh copies in
    series. A composition that does not fit is refused at once.
    """

    __array_ufunc__ = None
    """numpy leaves `np.float64(2) * net` to the network, and does not take a series for an array."""

    @abstractmethod
    def tree(self, path: str = "") -> Tree:
        """The composition tree of this module, its paths beginning with `path`."""

    @abstractmethod
    def geometries(self, path: str = "") -> Iterator[tuple[str, Geometry]]:
        """The geometry of each weight, by its path, in the order in which data meets the weights."""

    @abstractmethod
    def arguments(self) -> dict[str, object]:
        """The constructor's arguments by name: what it takes to build a module like this one."""

    @property
    def mass(self) -> float:
        """The share of the learning: the sum of the masses of the atoms inside."""
        return self.tree().signature.mass

    @property
    def sensitivity(self) -> float:
        """A Lipschitz bound in the input, for inputs in the unit ball and weights in their unit balls.

        Every part's bound is taken at the size of the input that may arrive there. If no part's bound grows with its
        input, the result holds for all inputs, and sensitivities multiply in series and add side by side. It is
        infinite if no finite bound is known.
        """
        return slope(self.tree(), 1.0)

    @property
    def rate_scale(self) -> float:
        """The slope that the budget divides the learning rate by: the sensitivity, unless a part declares another.

        Attention and Amplify declare a typical slope. Rate scales multiply in series and add side by side, and bound
        nothing if a part's is below its sensitivity.
        """
        return self.tree().signature.rate_scale

    @property
    def source(self) -> AnySpace | None:
        """The space this module takes; None where it takes any."""
        return self.tree().signature.source

    @property
    def target(self) -> AnySpace:
        """The space this module gives."""
        return self.tree().signature.target

    @property
    def manifold(self) -> Product:
        """The product manifold over the named weights."""
        refuse_shared_weights(self)
        return Product({path: geometry.manifold for path, geometry in self.geometries()})

    @property
    def modular_norm(self) -> ModularNorm:
        """The modular norm over the named weights."""
        refuse_shared_weights(self)
        shares = allocate(self.tree(), lr=1.0).shares
        return ModularNorm({path: each.norm for path, each in self.geometries()}, shares)

    def reset_parameters(self) -> None:
        """Draw every weight afresh, from torch's global generator."""
        for child in self.children():
            if isinstance(child, Module):
                child.reset_parameters()

    def __rshift__(self, other: Module) -> Series:
        from modular_manifolds.nn.compose import in_series

        part = operand(other, "f >> g")
        return NotImplemented if part is None else in_series(self, part)

    def __rrshift__(self, other: object) -> Series:
        part = operand(other, "f >> g")
        return NotImplemented if part is None else part >> self

    def __or__(self, other: Module) -> Parallel:
        from modular_manifolds.nn.compose import Parallel

        part = operand(other, "f | g")
        return NotImplemented if part is None else Parallel(self, part)

    def __ror__(self, other: object) -> Parallel:
        part = operand(other, "f | g")
        return NotImplemented if part is None else part | self

    def __add__(self, other: Module) -> Sum:
        from modular_manifolds.nn.compose import Sum

        part = operand(other, "f + g")
        return NotImplemented if part is None else Sum(self, part)

    def __radd__(self, other: object) -> Sum:
        part = operand(other, "f + g")
        return NotImplemented if part is None else part + self

    def __mul__(self, factor: float) -> Scale:
        from modular_manifolds.nn.compose import Scale

        return Scale(self, factor) if is_number(factor) else NotImplemented

    def __rmul__(self, factor: float) -> Scale:
        return self * factor

    def __pow__(self, times: SupportsIndex) -> Series:
        from modular_manifolds.nn.compose import power

        return power(self, times)


def check_module(module: object, *, argument: str) -> Module:
    """Give back the module of this library inside torch's wrappers, or refuse what is none.

    Raises:
        ArgumentError: `argument` is the name that the caller wrote.
    """
    module = unwrapped(module)
    if isinstance(module, Module):
        return module
    remedy = "Declare it with mm.Linear, mm.ReLU and >>"
    if type(module).__name__ == "FullyShardedDataParallel":
        remedy = "Pass the network before it is wrapped: this wrapper keeps flat pieces in the place of weights"
    elif isinstance(module, nn.Module):
        remedy += (
            ", or wrap the torch module in a class of your own that inherits mm.Bond or mm.Atom"
        )
    raise ArgumentError(
        argument,
        "must be a modular_manifolds module, which carries its manifolds and masses",
        type(module).__name__,
        remedy + ".",
    )


def check_part(module: object, *, argument: str) -> Module:
    """Give back the module that a composition takes in for `module`: what is inside torch's wrappers.

    Raises:
        ArgumentError: `module` is none of this library, or a wrapper averages its gradients over processes, which the
        composition would not do.
    """
    if averages_gradients(module):
        raise ArgumentError(
            argument,
            "must not average gradients over processes: the composition would not",
            "DistributedDataParallel",
            "Compose the network inside it, `wrapped.module`, and wrap the whole.",
        )
    return check_module(module, argument=argument)


def operand(other: object, operator: str) -> Module | None:
    """The module that an operator takes in for `other`; None for what is Python's to refuse.

    Raises:
        ArgumentError: as `check_part`, for a torch module.
    """
    return check_part(other, argument=operator) if isinstance(other, nn.Module) else None


def _memory_of(parameter: nn.Parameter) -> object:
    """An identity that two parameters share if a step in place of one would move both."""
    # Only plain, dense parameters on a device have an address.
    dense = parameter.layout == torch.strided and not parameter.is_meta
    plain = type(parameter) is nn.Parameter and dense
    return (plain and parameter.data_ptr()) or id(parameter)


def joined(path: str, name: str) -> str:
    """The path of a part in PyTorch's dotted names."""
    return f"{path}.{name}" if path else name


def refuse_shared_weights(module: nn.Module) -> None:
    """Refuse a module in which one weight, or the memory of one, stands at two places.

    Raises:
        SharedWeightError: the message names both places.
    """
    seen: dict[object, str] = {}
    for path, parameter in module.named_parameters(remove_duplicate=False):
        before = seen.setdefault(_memory_of(parameter), path)
        if before != path:
            raise SharedWeightError(
                "a weight",
                "must appear once in a network",
                f"one weight at both '{before}' and '{path}'",
                "Use copy.deepcopy or f ** n for fresh copies; a shared weight would be stepped twice.",
            )
