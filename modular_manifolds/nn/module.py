"""The algebra of modules: `Module` with its operators, and the compositions that they make.

`Module` and the compositions need each other, so they are in one file.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any, SupportsIndex

from torch import nn

from modular_manifolds.arguments import as_whole_number, is_number
from modular_manifolds.composition import tree as trees
from modular_manifolds.composition.rules import check_factor
from modular_manifolds.composition.tree import Tree
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.container import Container
from modular_manifolds.nn.derived import Derived
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.sharing import joined, refuse_shared_weights
from modular_manifolds.nn.tuples import apply_part, scale_output, sum_outputs
from modular_manifolds.wrappers import averages_gradients, unwrapped


class Module(Derived):
    """A `torch.nn.Module` that can be composed; its mass, sensitivity and others are computed at each call.

    Operators: `f >> g` series, `f | g` parallel, `f + g` sum, `c * f` scale, `f ** n` n fresh copies in
    series. A composition of modules that do not fit is refused at once.
    """

    __array_ufunc__ = None
    """With None, numpy leaves `np.float64(2) * net` to the network and does not treat a series as an array."""

    @property
    def maps_parts(self) -> bool:
        """Whether the module maps a tuple part by part."""
        return False

    def arguments(self) -> dict[str, object]:
        """The constructor's arguments by name, from which a module like this one can be built.

        By default each is the attribute of the same name. Override it if an argument is not an attribute.
        """
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}

    def reset_parameters(self) -> None:
        """Initialise every weight again, with torch's global generator."""
        for child in self.children():
            if isinstance(child, Module):
                child.reset_parameters()

    def __rshift__(self, other: Module) -> Series:
        part = operand(other, "f >> g")
        return NotImplemented if part is None else in_series(self, part)

    def __rrshift__(self, other: object) -> Series:
        part = operand(other, "f >> g")
        return NotImplemented if part is None else part >> self

    def __or__(self, other: Module) -> Parallel:
        part = operand(other, "f | g")
        return NotImplemented if part is None else Parallel(self, part)

    def __ror__(self, other: object) -> Parallel:
        part = operand(other, "f | g")
        return NotImplemented if part is None else part | self

    def __add__(self, other: Module) -> Sum:
        part = operand(other, "f + g")
        return NotImplemented if part is None else Sum(self, part)

    def __radd__(self, other: object) -> Sum:
        part = operand(other, "f + g")
        return NotImplemented if part is None else part + self

    def __mul__(self, factor: float) -> Scale:
        return Scale(self, factor) if is_number(factor) else NotImplemented

    def __rmul__(self, factor: float) -> Scale:
        return self * factor

    def __pow__(self, times: SupportsIndex) -> Series:
        return power(self, times)


class Compound(Container[Module], Module):
    """A composition of named modules; the subclass defines how their outputs are joined."""

    def _as_part(self, module: object, *, argument: str) -> Module:
        return check_part(module, argument=argument)

    def _check(self) -> None:
        self.tree()

    def parts(self) -> list[tuple[str, Module]]:
        """The parts by name, in the order in which they were given.

        Raises:
            ArgumentError: a part was replaced by an object that is not a `Module`.
        """
        # named_children() would leave out the second occurrence of a bond.
        found: list[tuple[str, Module]] = []
        for name, part in self._modules.items():
            # The type decides: a compiled module may name the wrapped class as its `__class__`.
            if not issubclass(type(part), Module):
                raise ArgumentError(
                    f"{type(self).__name__}({name})",
                    "must be a modular_manifolds module, which carries its manifolds and masses",
                    type(part).__name__,
                    "Assign it with net[i] = part, compile a part in place with net[i].compile(), or wrap the whole network.",
                )
            assert isinstance(part, Module)
            found.append((name, part))
        return found

    def geometries(self, path: str = "") -> Iterator[tuple[str, Geometry]]:
        for name, part in self.parts():
            yield from part.geometries(joined(path, name))

    def arguments(self) -> dict[str, object]:
        return dict(self.parts())

    def trees(self, path: str) -> tuple[Tree, ...]:
        """The trees of the parts.

        Raises:
            SharedWeightError: `path` is empty, and a weight occurs twice in the network.
        """
        if not path:
            refuse_shared_weights(self)
        return tuple(part.tree(joined(path, name)) for name, part in self.parts())


class Series(Compound):
    """`mm.Series(f, g)` or `mm.Series(first=f, then=g)`: g(f(x)).

    Nested series are flattened: a Series without names is replaced by its parts.
    """

    def __init__(self, /, *modules: Module, **named: Module) -> None:
        flat: list[Module] = []
        for module in modules:
            flat.extend(_unnamed_parts(module) or [module])
        super().__init__(*flat, **named)

    def tree(self, path: str = "") -> Tree:
        return trees.Series(path, self.trees(path))

    def forward(self, x: Any) -> Any:
        for _, part in self.parts():
            x = apply_part(part, x)
        return x


class Parallel(Compound):
    """`mm.Parallel(f, g)` or `mm.Parallel(query=f, key=g)`: the tuple (f(x), g(x))."""

    def tree(self, path: str = "") -> Tree:
        return trees.Parallel(path, self.trees(path))

    def forward(self, x: Any) -> tuple[Any, ...]:
        return tuple(apply_part(part, x) for _, part in self.parts())


class Sum(Compound):
    """`mm.Sum(f, g)` or `f + g`: f(x) + g(x)."""

    def tree(self, path: str = "") -> Tree:
        return trees.Sum(path, self.trees(path))

    def forward(self, x: Any) -> Any:
        return sum_outputs([apply_part(part, x) for _, part in self.parts()])


class Scale(Module):
    """`mm.Scale(f, c)` or `c * f`: c · f(x). The sensitivity is multiplied by |c|.

    Raises:
        ArgumentError: the factor is zero or not finite.
    """

    def __init__(self, module: Module, factor: float) -> None:
        super().__init__()
        self.module: Module = check_part(module, argument="Scale(module)")
        self.factor: float = check_factor(factor)
        self.tree()

    def tree(self, path: str = "") -> Tree:
        if not path:
            refuse_shared_weights(self)
        return trees.Scale(path, self.factor, self.module.tree(joined(path, "module")))

    def geometries(self, path: str = "") -> Iterator[tuple[str, Geometry]]:
        return self.module.geometries(joined(path, "module"))

    def forward(self, x: Any) -> Any:
        return scale_output(self.factor, apply_part(self.module, x))

    def extra_repr(self) -> str:
        return f"factor={self.factor:g}"


def in_series(first: Module, then: Module) -> Series:
    """`first >> then`; series on either side are flattened, and given names are kept."""
    parts = [*_parts_of(first), *_parts_of(then)]
    named: dict[str, Module] = {}
    for position, (name, part) in enumerate(parts):
        key = name or str(position)
        if key in named:
            raise ArgumentError(
                "f >> g",
                "must not give two parts one name",
                f"'{key}' twice",
                "Rename one of them.",
            )
        named[key] = part
    return Series(**named)


def power(module: Module, times: SupportsIndex) -> Series:
    """`f ** n`: n copies of f in series, each with newly initialised weights."""
    count = as_whole_number(times)
    if count is None or count < 1:
        raise ArgumentError(
            "f ** n", "must have a positive whole n", repr(times), "Leave the module out for n = 0."
        )
    copies = [copy.deepcopy(module) for _ in range(count)]
    for each in copies:
        each.reset_parameters()
    return Series(*copies)


def _unnamed_parts(module: Module) -> list[Module] | None:
    """The parts of a Series whose names are their positions; None for any other module."""
    if not isinstance(module, Series):
        return None
    parts = module.parts()
    if any(name != str(i) for i, (name, _) in enumerate(parts)):
        return None
    return [part for _, part in parts]


def _parts_of(module: Module) -> list[tuple[str | None, Module]]:
    if not isinstance(module, Series):
        return [(None, module)]
    return [(None if name.isdecimal() else name, part) for name, part in module.parts()]


def check_module(module: object, *, argument: str) -> Module:
    """Return the `Module` inside torch's wrappers, or refuse the argument.

    Raises:
        ArgumentError: `argument` is the name that the caller wrote.
    """
    module = unwrapped(module)
    if isinstance(module, Module):
        return module
    remedy = "Declare it with mm.Linear, mm.ReLU and >>"
    if type(module).__name__ == "FullyShardedDataParallel":
        remedy = "Pass the network before it is wrapped: this wrapper stores flat pieces instead of weights"
    elif isinstance(module, nn.Module):
        remedy += ", or wrap the torch module in your own class that inherits mm.Bond or mm.Atom"
    raise ArgumentError(
        argument,
        "must be a modular_manifolds module, which carries its manifolds and masses",
        type(module).__name__,
        remedy + ".",
    )


def check_part(module: object, *, argument: str) -> Module:
    """Return the `Module` inside torch's wrappers, to be a part of a composition.

    Raises:
        ArgumentError: `module` is not a `Module`, or a wrapper averages its gradients over
            processes, which the composition would not do.
    """
    if averages_gradients(module):
        raise ArgumentError(
            argument,
            "must not average gradients over processes: the composition would not",
            "DistributedDataParallel",
            "Compose the network inside it, `wrapped.module`, and wrap the composition.",
        )
    return check_module(module, argument=argument)


def operand(other: object, operator: str) -> Module | None:
    """The operand `other` as a part; None if it is not a torch module, so that Python refuses it.

    Raises:
        ArgumentError: as `check_part`, for a torch module.
    """
    return check_part(other, argument=operator) if isinstance(other, nn.Module) else None
