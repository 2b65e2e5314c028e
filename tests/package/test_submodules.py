"""No name of a package hides one of its submodules: `import package.module as m` must give the module."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import modular_manifolds


def packages(root: ModuleType) -> Iterator[ModuleType]:
    """A package and all packages inside it."""
    yield root
    for info in pkgutil.iter_modules(root.__path__, f"{root.__name__}."):
        if info.ispkg:
            yield from packages(importlib.import_module(info.name))


def test_no_name_of_a_package_hides_a_submodule() -> None:
    found = list(packages(modular_manifolds))
    assert len(found) > 10
    hidden = [
        f"{package.__name__}.{info.name}"
        for package in found
        for info in pkgutil.iter_modules(package.__path__)
        if info.name in vars(package) and not isinstance(vars(package)[info.name], ModuleType)
    ]
    assert not hidden, f"rename the module or the name: {', '.join(hidden)}"
