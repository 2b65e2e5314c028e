"""Modules under their names, as a container: counted, indexed, sliced and changed as `torch.nn.Sequential` is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self, SupportsIndex, overload

from torch import nn

from modular_manifolds.arguments import whole
from modular_manifolds.composition.tree import Tree
from modular_manifolds.errors import ArgumentError, PartIndexError
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.module import Module, check_part, joined, refuse_shared_weights


class Compound(Module):
    """Modules under their names; the subclass says how their outputs join.

    `len(net)`, `net[2]`, `net[-1]`, `net[1:3]`, `for part in net` and `part in net` are those of `torch.nn.Sequential`.
    A slice holds the same modules under the same names. `net[2] = part`, `del net[2]`, `append`, `insert` and `extend`
    change the composition in place: names that were counted are counted anew, and a change that does not fit is
    refused and leaves everything as it was.
    """

    def __init__(self, /, *modules: Module, **named: Module) -> None:
        super().__init__()
        for name, module in [*((str(i), m) for i, m in enumerate(modules)), *named.items()]:
            part = check_part(module, argument=f"{type(self).__name__}({name})")
            check_name(name, of=self)
            self.add_module(name, part)
        self.tree()

    def parts(self) -> list[tuple[str, Module]]:
        """The parts by name, in the order in which they were given.

        Raises:
            ArgumentError: somebody put something else in the place of a part.
        """
        # named_children() would leave out a bond's second place.
        found: list[tuple[str, Module]] = []
        for name, part in self._modules.items():
            # The type decides: a compiled module may name the wrapped class as its `__class__`.
            if not issubclass(type(part), Module):
                raise ArgumentError(
                    f"{type(self).__name__}({name})",
                    "must be a modular_manifolds module, which carries its manifolds and masses",
                    type(part).__name__,
                    "Put it in with net[i] = part, compile a part in place with net[i].compile(), or wrap the whole.",
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
            SharedWeightError: this is the whole network, and a weight stands at two places.
        """
        if not path:
            refuse_shared_weights(self)
        return tuple(part.tree(joined(path, name)) for name, part in self.parts())

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter([part for _, part in self.parts()])

    @overload
    def __getitem__(self, index: SupportsIndex) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Module | Self:
        if isinstance(index, slice):
            return type(self)(**dict(self.parts()[index]))
        return self.parts()[self._place(index)][1]

    def __setitem__(self, index: SupportsIndex, module: Module) -> None:
        parts = self.parts()
        place = self._place(index)
        part = check_part(module, argument=f"{type(self).__name__}[{index}]")
        parts[place] = (parts[place][0], part)
        self._become(parts)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        parts = self.parts()
        del parts[index if isinstance(index, slice) else self._place(index)]
        self._become(_counted(parts))

    def append(self, module: Module) -> Self:
        """Put a module behind the others."""
        return self.extend([module])

    def extend(self, modules: Iterable[Module]) -> Self:
        """Put modules behind the others; those of a composition under names counted anew."""
        parts = self.parts()
        for module in modules:
            argument = f"{type(self).__name__}({len(parts)})"
            parts.append((str(len(parts)), check_part(module, argument=argument)))
        return self._become(_counted(parts))

    def insert(self, index: SupportsIndex, module: Module) -> Self:
        """Put a module in front of the one at `index`."""
        parts = self.parts()
        place = self._place(index, behind=1)
        part = check_part(module, argument=f"{type(self).__name__}({place})")
        parts.insert(place, (str(place), part))
        return self._become(_counted(parts))

    def _place(self, index: object, *, behind: int = 0) -> int:
        """The place from 0 that an index names, among those of the parts and so many behind the last."""
        count = len(self._modules)
        found = whole(index)
        if found is None:
            raise ArgumentError(
                f"{type(self).__name__}[index]",
                "must be a whole number or a slice",
                repr(index),
                "Parts with names are attributes too: `net.head`, or net.get_submodule('head').",
            )
        place = found + count if found < 0 else found
        last = count - 1 + behind
        if not 0 <= place <= last:
            raise PartIndexError(
                f"{type(self).__name__}[index]",
                f"must lie between {-count} and {last}",
                found,
                f"It has {count} parts.",
            )
        return place

    def _become(self, parts: list[tuple[str, Module]]) -> Self:
        """Hold these parts from now on; if they do not fit, everything stays as it was."""
        before = dict(self._modules)
        self._modules.clear()
        try:
            for name, part in parts:
                check_name(name, of=self)
                self.add_module(name, part)
            self.tree()
        except Exception:
            self._modules.clear()
            self._modules.update(before)
            raise
        return self


def _counted(parts: list[tuple[str, Module]]) -> list[tuple[str, Module]]:
    """The parts with names that are numbers counted anew; names that were given stay."""
    return [(str(i) if name.isdecimal() else name, part) for i, (name, part) in enumerate(parts)]


def check_name(name: str, *, of: nn.Module) -> None:
    """Refuse a name that cannot stand in a path or is taken."""
    if not name or "." in name:
        raise ArgumentError(
            f"{type(of).__name__}(**modules)",
            "must have names that can stand in a dotted path",
            repr(name),
            "Choose a name without dots.",
        )
    # Not hasattr(of, name): asking a half-built module for its mass would raise.
    # Nor named_children(): for each of many parts it would list all of them.
    if hasattr(type(of), name) or name in vars(of) or name in vars(of)["_modules"]:
        raise ArgumentError(
            f"{type(of).__name__}({name}=...)",
            "must not be a name that the module already has",
            repr(name),
            "Choose another name.",
        )
