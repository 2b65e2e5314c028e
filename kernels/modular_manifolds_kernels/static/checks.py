"""What may not be, in machine code that is shipped: each check answers in sentences, none where all is well."""

from __future__ import annotations

from typing import Final

from modular_manifolds_kernels.static.row import Row
from modular_manifolds_kernels.static.sass import family
from modular_manifolds_kernels.static.targets import TARGETS

GROWTH: Final = 1.05
"""Registers and hot loop may grow by this much before somebody has to look."""


def hard(row: Row) -> list[str]:
    """What is wrong whatever was there before: spills, the wrong instruction, too much memory, lost or extra work."""
    if row.failure is not None:
        return [f"no code: {row.failure}"]
    target = TARGETS[row.target]
    found = []
    if row.spill_stores or row.spill_loads:
        found.append(f"spills {row.spill_stores} bytes and loads {row.spill_loads} of them back")
    local = {
        name: n for name, n in row.copies.items() if name in ("STL", "LDL") or "scratch" in name
    }
    if local:
        said = ", ".join(f"{n} {name}" for name, n in local.items())
        found.append(f"uses local memory: {said}")
    if row.stack:
        found.append(f"has a stack of {row.stack} bytes")
    found += [f"ptxas: {line}" for line in row.warnings]
    if row.shared > target.shared_per_block:
        found.append(
            f"asks for {row.shared} bytes of shared memory, and a block has {target.shared_per_block}"
        )
    if row.tensor_columns > target.tensor_columns:
        found.append(
            f"asks for {row.tensor_columns} columns of tensor memory, and there are {target.tensor_columns}"
        )
    if row.resident_blocks == 0:
        found.append(f"not one block fits: {row.limiter}")
    used = sorted({family(name) for name in row.matrix})
    if used != row.matrix_expected:
        found.append(
            f"multiplies matrices by {', '.join(used) or 'no matrix instruction'}, "
            f"should by {', '.join(row.matrix_expected) or 'none'}"
        )
    elif row.flop_ratio not in (None, 1.0):
        found.append(
            f"does {row.flops_hot} operations in matrix instructions where the source asks for {row.flops_source}"
        )
    return found


def soft(row: Row, stored: Row) -> list[str]:
    """What got worse since the stored report was made, with the same Triton."""
    if row.failure is not None or stored.failure is not None:
        return []
    found = []
    for name in ("registers", "hot_loop"):
        now, before = getattr(row, name), getattr(stored, name)
        if now > before * GROWTH:
            found.append(f"{name.replace('_', ' ')}: {now}, was {before}")
    if row.shared > stored.shared:
        found.append(f"shared memory: {row.shared}, was {stored.shared}")
    if row.resident_blocks < stored.resident_blocks:
        found.append(f"blocks at a time: {row.resident_blocks}, were {stored.resident_blocks}")
    return found


def why_not_compared(row: Row, stored: Row | None) -> str | None:
    """Why `soft` says nothing of a row, in a sentence; None where it does."""
    if stored is None:
        return "the report has no such row: run `modular-manifolds kernels --update`"
    if row.triton != stored.triton:
        return f"the report was made with Triton {stored.triton}, this is {row.triton}"
    return None
