"""Loops of machine code: natural loops of the flow graph, wherever the assembler put their blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name with modifiers, its operands, and where control may go from it."""

    name: str
    operands: str
    target: str | None = None
    """The label it may jump to."""
    falls_through: bool = True


@dataclass(frozen=True)
class Listing:
    """The instructions of one kernel in order, and at which of them each label stands."""

    instructions: tuple[Instruction, ...]
    labels: dict[str, int]

    def count(self, *prefixes: str) -> int:
        """How many instructions have a name that begins with one of the prefixes."""
        return sum(each.name.startswith(prefixes) for each in self.instructions)

    def successors(self, i: int) -> list[int]:
        """Where control may be after instruction i."""
        this = self.instructions[i]
        found = [self.labels[this.target]] if this.target in self.labels else []
        if this.falls_through:
            found.append(i + 1)
        return [each for each in found if each < len(self.instructions)]


def loops(listing: Listing) -> list[frozenset[int]]:
    """The natural loops, as sets of instructions; loops with the same first block are one.

    A jump from block s back to a block h that every way to s passes makes the loop of h: all blocks that
    reach s without passing h.
    """
    starts, ends, after = _blocks(listing)
    dominators = _dominators(after)
    before: list[list[int]] = [[] for _ in starts]
    for b, nexts in enumerate(after):
        for n in nexts:
            before[n].append(b)
    bodies: dict[int, set[int]] = {}
    for s, nexts in enumerate(after):
        for h in nexts:
            if h in dominators[s]:
                body = bodies.setdefault(h, {h})
                waiting = [s]
                while waiting:
                    b = waiting.pop()
                    if b not in body:
                        body.add(b)
                        waiting.extend(before[b])
    return [
        frozenset(i for b in body for i in range(starts[b], ends[b])) for body in bodies.values()
    ]


def innermost(listing: Listing, holds: Callable[[Instruction], bool]) -> list[list[Instruction]]:
    """The loops that hold such an instruction and hold no smaller loop that does, in order."""
    holding = [body for body in loops(listing) if any(holds(listing.instructions[i]) for i in body)]
    inner = [body for body in holding if not any(other < body for other in holding)]
    return [[listing.instructions[i] for i in sorted(body)] for body in sorted(inner, key=min)]


def _blocks(listing: Listing) -> tuple[list[int], list[int], list[list[int]]]:
    """The reachable basic blocks: where each starts, where it ends, and which may follow it."""
    size = len(listing.instructions)
    leaders = {0, *(i for i in listing.labels.values() if i < size)}
    for i, each in enumerate(listing.instructions):
        if (each.target is not None or not each.falls_through) and i + 1 < size:
            leaders.add(i + 1)
    ordered = sorted(leaders)
    end_of = dict(zip(ordered, [*ordered[1:], size], strict=True))
    reached, waiting = {0}, [0]
    while waiting:
        start = waiting.pop()
        for n in listing.successors(end_of[start] - 1):
            if n not in reached:
                reached.add(n)
                waiting.append(n)
    starts = sorted(reached)
    number = {start: b for b, start in enumerate(starts)}
    after = [[number[n] for n in listing.successors(end_of[start] - 1)] for start in starts]
    return starts, [end_of[start] for start in starts], after


def _dominators(after: Sequence[Sequence[int]]) -> list[set[int]]:
    """For each block, the blocks that every way to it from the first passes (itself too)."""
    everything = set(range(len(after)))
    found = [{0}, *(set(everything) for _ in range(len(after) - 1))]
    before: list[list[int]] = [[] for _ in after]
    for b, nexts in enumerate(after):
        for n in nexts:
            before[n].append(b)
    changed = True
    while changed:
        changed = False
        for b in range(1, len(after)):
            new = set.intersection(*(found[p] for p in before[b])) | {b}
            if new != found[b]:
                found[b], changed = new, True
    return found
