"""How much memory this machine has, and a refusal of what does not fit."""

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
"""The files in which Linux says how much memory a container may have."""


def machine_memory() -> int | None:
    """Bytes of memory that this machine, or the container around the process, has; None if neither says so."""
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
    """Refuse what needs more memory than the machine has, before any of it is asked for.

    Args:
        needed: bytes, at least.
        argument: as the error says them.
        seen: as the error says them.
        remedy: as the error says them.
        error: the kind of the error.
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
    """A number of bytes, as `1.5 GiB`."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    place = min(max(count.bit_length() - 1, 0) // 10, len(units) - 1)
    # A float has no room for a number of a thousand digits.
    whole = count >> (10 * place)
    return (
        f"{whole:,} {units[place]}"
        if whole >= 100
        else f"{count / 2 ** (10 * place):.3g} {units[place]}"
    )
