"""What a stored row was made from, so that it is compiled again only where something of that has changed."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from modular_manifolds_kernels import programs
from modular_manifolds_kernels.configuration import Configuration
from modular_manifolds_kernels.static.row import Row, key
from modular_manifolds_kernels.static.targets import TARGETS

READERS: Final = ("compile", "dots", "flow", "row", "sass", "targets")
"""The files of this folder that decide what a row says of a program."""


def sealed(row: Row, configuration: Configuration) -> Row:
    """The row with a digest of itself and of all that it was made from."""
    return replace(row, seal=_seal(row, configuration))


def is_sealed(row: Row, configuration: Configuration) -> bool:
    """Whether compiling the configuration here and now would give this row again."""
    return row.seal == _seal(row, configuration)


def to_compile(
    configurations: Sequence[Configuration], stored: Mapping[tuple[object, ...], Row]
) -> list[Configuration]:
    """Those whose row is missing or has a broken seal, and one of each kernel, the targets in turn.

    The latter show that the seals tell the truth of the compiler that is here.
    """
    kernels = dict.fromkeys(each.kernel for each in configurations)
    shown = dict(zip(kernels, itertools.cycle(TARGETS), strict=False))
    found = []
    for each in configurations:
        row = stored.get(key(each))
        if row is None or not is_sealed(row, each):
            found.append(each)
        elif shown.get(each.kernel) == each.target:
            del shown[each.kernel]
            found.append(each)
    return found


def _seal(row: Row, configuration: Configuration) -> str:
    said = [replace(row, seal="").plain(), asdict(configuration), sources(), _triton()]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@functools.cache
def sources() -> str:
    """A digest of the programs and of what reads their code."""
    here = Path(__file__).parent
    files = [
        *sorted(Path(programs.__path__[0]).glob("*.py")),
        *(here / f"{name}.py" for name in READERS),
    ]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\n{file.read_text(encoding='utf-8')}".encode())
    return digest.hexdigest()


def _triton() -> str:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "none"
