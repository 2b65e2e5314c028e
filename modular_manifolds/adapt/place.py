"""Places: the position of each parameter in a model, and the modules around it."""

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
"""Names under which libraries put a module inside another that replaces it; none of them says what the module is for."""


@dataclass(frozen=True)
class Place:
    """One name of one parameter.

    Args:
        name: the dotted name in the model.
        parameter: the parameter itself.
        module: the module that holds it.
        parents: the modules around that one, the nearest first, without wrappers.
        words: the names of `module` and of its parents, the nearest first, without wrappers.
    """

    name: str
    parameter: nn.Parameter
    module: nn.Module
    parents: tuple[nn.Module, ...]
    words: tuple[str, ...]

    @property
    def own(self) -> str:
        """The parameter's name in its module, such as `weight`."""
        return self.name.rpartition(".")[2]

    @property
    def word(self) -> str:
        """The name that the module goes by, such as `q_proj`; empty for the model itself."""
        return self.words[0] if self.words else ""

    @property
    def parent(self) -> nn.Module | None:
        """The module around `module`, if there is one."""
        return self.parents[0] if self.parents else None


def places_of(model: nn.Module) -> Iterator[Place]:
    """Every name of every parameter, in the order of `model.named_parameters()`; tied parameters come more than once."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, module in modules.items():
        words, parents = _around(path, modules)
        for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = f"{path}.{own}" if path else own
            yield Place(name, parameter, module, parents, words)


def class_path(module: nn.Module) -> str:
    """The full name of a module's class, such as `torch.nn.modules.linear.Linear`."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}"


def _around(
    path: str, modules: dict[str, nn.Module]
) -> tuple[tuple[str, ...], tuple[nn.Module, ...]]:
    words: list[str] = []
    parents: list[nn.Module] = []
    while path:
        path, _, word = path.rpartition(".")
        if word in WRAPPERS and path:
            continue
        words.append(word)
        parents.append(modules[path])
    return tuple(words), tuple(parents)
