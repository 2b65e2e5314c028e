"""Places: the name of each parameter in a model, and the modules around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from torch import nn

WRAPPERS: Final = (
    "base_layer",
    "modules_to_save",
    "original_module",
    "module",
    "default",
    "_orig_mod",
)
"""Attribute names under which wrappers of other libraries hold the original module."""


@dataclass(frozen=True)
class Place:
    """One name of one parameter.

    Args:
        name: the dotted name in the model.
        parameter: the parameter itself.
        module: the module that holds it.
        parents: the modules around `module`, the nearest first, without wrappers.
        module_names: the names of `module` and of its parents, the nearest first, without wrappers.
    """

    name: str
    parameter: nn.Parameter
    module: nn.Module
    parents: tuple[nn.Module, ...]
    module_names: tuple[str, ...]

    @property
    def attribute(self) -> str:
        """The parameter's name in its module, such as `weight`."""
        return self.name.rpartition(".")[2]

    @property
    def module_name(self) -> str:
        """The name of the module in its parent, such as `q_proj`; empty for the model itself."""
        return self.module_names[0] if self.module_names else ""

    @property
    def parent(self) -> nn.Module | None:
        """The module around `module`, if there is one."""
        return self.parents[0] if self.parents else None


def places_of(model: nn.Module) -> Iterator[Place]:
    """A place for every name of every parameter, in the order of `model.named_parameters()`."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, module in modules.items():
        names, parents = _enclosing(path, modules)
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{path}.{attribute}" if path else attribute
            yield Place(name, parameter, module, parents, names)


def class_path(module: nn.Module) -> str:
    """The full name of a module's class, such as `torch.nn.modules.linear.Linear`."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}"


def _enclosing(
    path: str, modules: dict[str, nn.Module]
) -> tuple[tuple[str, ...], tuple[nn.Module, ...]]:
    """The names from the module at `path` outwards, and the modules around it, both without wrappers."""
    words: list[str] = []
    parents: list[nn.Module] = []
    while path:
        path, _, word = path.rpartition(".")
        if word in WRAPPERS and path:
            continue
        words.append(word)
        parents.append(modules[path])
    return tuple(words), tuple(parents)
