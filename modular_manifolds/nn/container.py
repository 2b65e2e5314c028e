"""A container of named modules with the list interface of `torch.nn.Sequential`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, Self, SupportsIndex, TypeVar, overload

from torch import nn

from modular_manifolds.arguments import as_whole_number
from modular_manifolds.errors import ArgumentError, PartIndexError

M = TypeVar("M", bound=nn.Module)


class Container(nn.Module, ABC, Generic[M]):
    """Named modules; the subclass checks each module and whether they fit together.

    `len(net)`, `net[2]`, `net[-1]`, `net[1:3]`, `for part in net` and `part in net` work as in `torch.nn.Sequential`.
    A slice holds the same modules under the same names. `net[2] = part`, `del net[2]`, `append`, `insert` and `extend`
    change the composition in place. Names that are numbers are renumbered. A change that does not fit is refused, and
    the container stays unchanged.
    """

    def __init__(self, /, *modules: M, **named: M) -> None:
        super().__init__()
        for name, module in [*((str(i), m) for i, m in enumerate(modules)), *named.items()]:
            part = self._as_part(module, argument=f"{type(self).__name__}({name})")
            check_name(name, of=self)
            self.add_module(name, part)
        self._check()

    @abstractmethod
    def _as_part(self, module: object, *, argument: str) -> M:
        """Return the part to store for `module`, or refuse it."""

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
        return self.parts()[self._index_of(index)][1]

    def __setitem__(self, index: SupportsIndex, module: M) -> None:
        parts = self.parts()
        place = self._index_of(index)
        part = self._as_part(module, argument=f"{type(self).__name__}[{index}]")
        parts[place] = (parts[place][0], part)
        self._replace_parts(parts)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        parts = self.parts()
        del parts[index if isinstance(index, slice) else self._index_of(index)]
        self._replace_parts(_renumbered(parts))

    def append(self, module: M) -> Self:
        """Append a module."""
        return self.extend([module])

    def extend(self, modules: Iterable[M]) -> Self:
        """Append modules; names that are numbers are renumbered."""
        parts = self.parts()
        for module in modules:
            argument = f"{type(self).__name__}({len(parts)})"
            parts.append((str(len(parts)), self._as_part(module, argument=argument)))
        return self._replace_parts(_renumbered(parts))

    def insert(self, index: SupportsIndex, module: M) -> Self:
        """Insert a module before the one at `index`."""
        parts = self.parts()
        place = self._index_of(index, beyond_last=1)
        part = self._as_part(module, argument=f"{type(self).__name__}({place})")
        parts.insert(place, (str(place), part))
        return self._replace_parts(_renumbered(parts))

    def _index_of(self, index: object, *, beyond_last: int = 0) -> int:
        """The nonnegative index of a part; an index may lie up to `beyond_last` beyond the last part."""
        count = len(self._modules)
        whole_index = as_whole_number(index)
        if whole_index is None:
            raise ArgumentError(
                f"{type(self).__name__}[index]",
                "must be a whole number or a slice",
                repr(index),
                "Parts with names are attributes too: `net.head`, or net.get_submodule('head').",
            )
        place = whole_index + count if whole_index < 0 else whole_index
        last = count - 1 + beyond_last
        if not 0 <= place <= last:
            raise PartIndexError(
                f"{type(self).__name__}[index]",
                f"must lie between {-count} and {last}",
                whole_index,
                f"It has {count} parts.",
            )
        return place

    def _replace_parts(self, parts: list[tuple[str, M]]) -> Self:
        """Replace all parts; if they do not fit, restore the previous ones and raise."""
        previous = dict(self._modules)
        self._modules.clear()
        try:
            for name, part in parts:
                check_name(name, of=self)
                self.add_module(name, part)
            self._check()
        except Exception:
            self._modules.clear()
            self._modules.update(previous)
            raise
        return self


def _renumbered(parts: list[tuple[str, M]]) -> list[tuple[str, M]]:
    """The parts, with names that are numbers replaced by their positions."""
    return [(str(i) if name.isdecimal() else name, part) for i, (name, part) in enumerate(parts)]


def check_name(name: str, *, of: nn.Module) -> None:
    """Refuse a name that cannot be part of a path or is in use."""
    if not name or "." in name:
        raise ArgumentError(
            f"{type(of).__name__}(**modules)",
            "must have names that can stand in a dotted path",
            repr(name),
            "Choose a name without dots.",
        )
    # hasattr(of, name) would compute properties such as mass, which raise on an unfinished module.
    # named_children() would list all parts for each of many parts.
    if hasattr(type(of), name) or name in vars(of) or name in vars(of)["_modules"]:
        raise ArgumentError(
            f"{type(of).__name__}({name}=...)",
            "must not be a name that the module already has",
            repr(name),
            "Choose another name.",
        )
