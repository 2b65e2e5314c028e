"""Tables of steps: on a terminal, and between the marks of the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Final

from modular_manifolds.optim.products import multiplications
from modular_manifolds_scale.loads import solver_of
from modular_manifolds_scale.machine import MACHINES, Machine
from modular_manifolds_scale.models import MODELS, Model, build_model
from modular_manifolds_scale.products import products_of
from modular_manifolds_scale.ways import WAYS, Step, fsdp_owner

TOKENS: Final = 16_384
"""The tokens a rank of the tables on the page."""
RANKS: Final = (8, 64, 512, 1024)
"""The numbers of ranks of the tables on the page."""
DETAILED_RANKS: Final = 64
"""The ranks of the table by term."""
MACHINE: Final = MACHINES["h100"]
"""The machine of the tables on the page."""
MARKED: Final = re.compile(
    r"(?P<start>^<!-- table: (?P<name>[\w ]+) -->\n).*?(?P<end>^<!-- end of table -->)",
    re.MULTILINE | re.DOTALL,
)
HEADER: Final = (
    "way",
    "ranks",
    "step, ms",
    "flops",
    "memory",
    "wire",
    "latency",
    "share",
    "received, GB",
    "memory, GB",
    "imbalance",
)


def share_of(step: Step, model: Model, machine: Machine, tokens: int) -> float:
    """The optimiser's share of a forward pass, a backward pass and a step."""
    both = model.operations(tokens) / machine.rate("bfloat16")
    return step.seconds.total / (step.seconds.total + both)


def cells(step: Step, model: Model, machine: Machine, tokens: int) -> tuple[str, ...]:
    """A row under `HEADER`."""
    seconds = step.seconds
    parts = (seconds.total, seconds.flops, seconds.memory, seconds.wire, seconds.latency)
    fits = step.memory <= machine.memory_bytes
    return (
        step.way,
        f"{step.ranks:,}",
        *(amount(1e3 * each) for each in parts),
        f"{share_of(step, model, machine, tokens):.1%}",
        amount(step.received / 1e9),
        amount(step.memory / 1e9) + ("" if fits else " (too large)"),
        f"{step.imbalance:.2f}",
    )


def amount(value: float) -> str:
    """A number in three digits, without exponents."""
    if value >= 999.5:
        return f"{value:,.0f}"
    if value >= 0.01:
        return f"{value:.3g}"
    return "0" if value == 0 else "<0.01"


def winners() -> Iterator[str]:
    """A row a model and a number of ranks: the milliseconds of each way, the quickest of each kind in bold."""
    yield f"| model | ranks | {' | '.join(WAYS)} |"
    yield "|---" * (2 + len(WAYS)) + "|"
    for name in MODELS:
        model = build_model(name)
        for ranks in RANKS:
            steps = [way(model, MACHINE, ranks) for way in WAYS.values()]
            best = {id(quickest(steps, kind)) for kind in ("DDP", "FSDP2")}
            row = [_marked(each, bold=id(each) in best) for each in steps]
            yield f"| {name} | {ranks:,} | {' | '.join(row)} |"


def quickest(steps: Sequence[Step], kind: str) -> Step | None:
    """The quickest way of manifold Muon that fits into memory, of one kind of parallel training."""
    fitting = [
        each
        for each in steps
        if each.way.startswith(f"{kind}, ")
        and not each.way.endswith((" Muon", " AdamW"))
        and each.memory <= MACHINE.memory_bytes
    ]
    return min(fitting, key=lambda each: each.seconds.total, default=None)


def terms() -> Iterator[str]:
    """A row a model and way at one number of ranks, by term."""
    yield f"| model | {' | '.join(each for each in HEADER if each != 'ranks')} |"
    yield "|---" * len(HEADER) + "|"
    for name in MODELS:
        model = build_model(name)
        for way in WAYS.values():
            row = cells(way(model, MACHINE, DETAILED_RANKS), model, MACHINE, TOKENS)
            yield f"| {name} | {' | '.join((row[0], *row[2:]))} |"


def multiplied() -> Iterator[str]:
    """A row a shape: the products counted for it, in units of m n², beside those by which owners are dealt out."""
    yield "| weight | solver | in bfloat16 | in float32 | cut by rows: repeated | by the placement |"
    yield "|---|---|---|---|---|---|"
    seen: set[tuple[int, ...]] = set()
    for name in MODELS:
        for each in build_model(name).weights:
            shape, solver = each.shape, solver_of(each)
            if solver not in ("skew-sign", "norm-steepest") or len(shape) < 2:
                continue
            alike = (*shape[:-2], *sorted(shape[-2:]))
            if alike in seen or not each.geometry.norm.accuracy:
                continue
            seen.add(alike)
            unit = max(shape[-2:]) * min(shape[-2:]) ** 2
            one = products_of(solver, shape[-2:])
            counted = [
                sum(x.multiplications for x in one if x.precision == precision) / unit
                for precision in ("bfloat16", "float32")
            ]
            rows = products_of(solver, shape[-2:], reduced=True)
            anew = sum(x.multiplications for x in rows if x.long is None) / unit
            text = "×".join(map(str, shape[-2:]))
            text = f"{shape[0]} of {text}" if len(shape) > 2 else text
            numbers = " | ".join(f"{value:.1f}" for value in (*counted, anew))
            placed = multiplications(solver, shape[-2], shape[-1], "cuda") / unit
            yield f"| {text} | `{solver}` | {numbers} | {placed:.1f} |"


def changes() -> Iterator[str]:
    """A row a change of the inputs, a column a model: milliseconds of the way with owners on sharded weights."""
    yield f"| {DETAILED_RANKS} ranks | {' | '.join(MODELS)} |"
    yield "|---" * (1 + len(MODELS)) + "|"
    for words, (machine, whole) in CHANGES.items():
        times = (
            fsdp_owner(build_model(name, whole=whole), machine, DETAILED_RANKS).seconds.total
            for name in MODELS
        )
        yield f"| {words} | {' | '.join(amount(1e3 * each) for each in times)} |"


CHANGES: Final = {
    "as stated": (MACHINE, False),
    "queries, keys and values are whole matrices": (MACHINE, True),
    "float32 products as three TF32 products, 165 TFLOP/s": (
        replace(MACHINE, float32=165e12),
        False,
    ),
    "links between nodes four times as slow": (
        replace(MACHINE, between=MACHINE.between / 4),
        False,
    ),
    "one rank a node": (replace(MACHINE, ranks_per_node=1), False),
    "A100": (MACHINES["a100"], False),
}
"""Changes in words: the machine, and whether heads stay together."""


def inputs() -> Iterator[str]:
    """A row an input, a column a machine."""
    yield f"| input | {' | '.join(each.name for each in MACHINES.values())} |"
    yield "|---" * (1 + len(MACHINES)) + "|"
    for field, (words, factor) in INPUTS.items():
        values = (f"{getattr(each, field) * factor:g}" for each in MACHINES.values())
        yield f"| {words} | {' | '.join(values)} |"


INPUTS: Final = {
    "bfloat16": ("peak in bfloat16, TFLOP/s", 1e-12),
    "float32": ("peak in float32 without tensor cores, TFLOP/s", 1e-12),
    "achieved": ("achieved, as a fraction of the peaks", 1),
    "memory_rate": ("memory, TB/s", 1e-12),
    "memory_bytes": ("memory, GB", 1e-9),
    "ranks_per_node": ("ranks a node", 1),
    "inside": ("link inside a node, GB/s a rank and direction", 1e-9),
    "between": ("link between nodes, GB/s a rank and direction", 1e-9),
    "launch": ("a launch, µs", 1e6),
    "call": ("a collective, µs", 1e6),
    "hop_inside": ("a hop inside a node, µs", 1e6),
    "hop_between": ("a hop between nodes, µs", 1e6),
}
"""The inputs in words, and the factor to the unit of the words."""
assert {each.name for each in fields(Machine)} == {"name", *INPUTS}

TABLES: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "quickest ways": winners,
    "terms": terms,
    "products": multiplied,
    "changes": changes,
    "inputs": inputs,
}


def refreshed(text: str) -> str:
    """The page with every table between marks written anew."""

    def table(found: re.Match[str]) -> str:
        lines = "\n".join(TABLES[found["name"]]())
        return f"{found['start']}\n{lines}\n\n{found['end']}"

    return MARKED.sub(table, text)


def _marked(step: Step, *, bold: bool) -> str:
    text = amount(1e3 * step.seconds.total)
    if step.memory > MACHINE.memory_bytes:
        return f"({text})"
    return f"**{text}**" if bold else text
