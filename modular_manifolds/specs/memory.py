"""The memory of this machine, and a check before large allocations."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from modular_manifolds.errors import ArgumentError

GROUP_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""The files with the memory limit of a Linux container."""


def machine_memory() -> int | None:
    """The memory of this machine or container, in bytes; None if it is unknown."""
    known: list[int] = []
    with suppress(AttributeError, ValueError, OSError):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in GROUP_LIMITS:
        # Without a limit the file says "max".
        with suppress(OSError, ValueError):
            known.append(int(file.read_text(encoding="ascii")))
    return min((each for each in known if each > 0), default=None)


def check_memory(
    needed: int, *, argument: str, seen: str, remedy: str, error: type[ArgumentError]
) -> None:
    """Raise an error if an allocation needs more memory than the machine has.

    Args:
        needed: a lower bound on the memory, in bytes.
        argument: the argument that the error names.
        seen: the value that the error shows.
        remedy: the remedy that the error proposes.
        error: the class of the error.
    """
    memory = machine_memory()
    if memory is not None and needed > memory:
        raise error(
            argument,
            f"must fit into the {in_words(memory)} of memory here",
            f"{seen}, which takes at least {in_words(needed)}",
            remedy,
        )


def in_words(count: int) -> str:
    """A number of bytes as a text such as `1.5 GiB`."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    place = min(max(count.bit_length() - 1, 0) // 10, len(units) - 1)
    # Very large integers do not fit into a float.
    whole = count >> (10 * place)
    return (
        f"{whole:,} {units[place]}"
        if whole >= 100
        else f"{count / 2 ** (10 * place):.3g} {units[place]}"
    )
