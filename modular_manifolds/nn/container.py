"""Modules under their names, as a container: counted, indexed, sliced and changed as `torch.nn.Sequential` is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, Self, SupportsIndex, TypeVar, overload

from torch import nn

from modular_manifolds.arguments import as_whole_number
from modular_manifolds.errors import ArgumentError, PartIndexError

M = TypeVar("M", bound=nn.Module)


class Container(nn.Module, ABC, Generic[M]):
    """Modules under their names; the subclass says which modules it takes, and whether they fit together.

    `len(net)`, `net[2]`, `net[-1]`, `net[1:3]`, `for part in net` and `part in net` are those of `torch.nn.Sequential`.
    A slice holds the same modules under the same names. `net[2] = part`, `del net[2]`, `append`, `insert` and `extend`
    change the composition in place: names that were counted are counted anew, and a change that does not fit is
    refused and leaves everything as it was.
    """

    def __init__(self, /, *modules: M, **named: M) -> None:
        super().__init__()
        for name, module in [*((str(i), m) for i, m in enumerate(modules)), *named.items()]:
            part = self._taken_in(module, argument=f"{type(self).__name__}({name})")
            check_name(name, of=self)
            self.add_module(name, part)
        self._check()

    @abstractmethod
    def _taken_in(self, module: object, *, argument: str) -> M:
        """Give back the part that the container holds for `module`, or refuse it."""

    @abstractmethod
    def parts(self) -> list[tuple[str, M]]:
        """The parts by name, in the order in which they were given."""

    @abstractmethod
    def _check(self) -> None:
        """Refuse parts that do not fit together."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[M]:
        return iter([part for _, part in self.parts()])

    @overload
    def __getitem__(self, index: SupportsIndex) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: SupportsIndex | slice) -> M | Self:
        if isinstance(index, slice):
            return type(self)(**dict(self.parts()[index]))
        return self.parts()[self._place(index)][1]

    def __setitem__(self, index: SupportsIndex, module: M) -> None:
        parts = self.parts()
        place = self._place(index)
        part = self._taken_in(module, argument=f"{type(self).__name__}[{index}]")
        parts[place] = (parts[place][0], part)
        self._become(parts)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        parts = self.parts()
        del parts[index if isinstance(index, slice) else self._place(index)]
        self._become(_counted(parts))

    def append(self, module: M) -> Self:
        """Put a module behind the others."""
        return self.extend([module])

    def extend(self, modules: Iterable[M]) -> Self:
        """Put modules behind the others; those of a composition under names counted anew."""
        parts = self.parts()
        for module in modules:
            argument = f"{type(self).__name__}({len(parts)})"
            parts.append((str(len(parts)), self._taken_in(module, argument=argument)))
        return self._become(_counted(parts))

    def insert(self, index: SupportsIndex, module: M) -> Self:
        """Put a module in front of the one at `index`."""
        parts = self.parts()
        place = self._place(index, behind=1)
        part = self._taken_in(module, argument=f"{type(self).__name__}({place})")
        parts.insert(place, (str(place), part))
        return self._become(_counted(parts))

    def _place(self, index: object, *, behind: int = 0) -> int:
        """The place from 0 that an index names, among those of the parts and so many behind the last."""
        count = len(self._modules)
        found = as_whole_number(index)
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

    def _become(self, parts: list[tuple[str, M]]) -> Self:
        """Hold these parts from now on; if they do not fit, everything stays as it was."""
        before = dict(self._modules)
        self._modules.clear()
        try:
            for name, part in parts:
                check_name(name, of=self)
                self.add_module(name, part)
            self._check()
        except Exception:
            self._modules.clear()
            self._modules.update(before)
            raise
        return self


def _counted(parts: list[tuple[str, M]]) -> list[tuple[str, M]]:
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
