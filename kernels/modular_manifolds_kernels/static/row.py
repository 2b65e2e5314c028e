"""One row of the static report: what the machine code of one configuration is like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from modular_manifolds_kernels.configuration import Configuration
from modular_manifolds_kernels.static import dots, sass
from modular_manifolds_kernels.static.compile import Compiled, number
from modular_manifolds_kernels.static.flow import Instruction, Listing, innermost
from modular_manifolds_kernels.static.targets import TARGETS, resident_blocks


@dataclass(frozen=True)
class Row:
    """Counted from the compiler's output, nothing measured; sizes in bytes, `failure` if there is no code.

    `hot_loop` counts the instructions of the innermost loops that multiply matrices, or of the whole
    kernel where no loop does. `flop_ratio` divides the operations of the matrix instructions there
    by those that the source asks for: exactly 1 unless the compiler adds or loses work. None where no
    matrix instruction can be used. Spills are what ptxas reports; for AMD, spilled registers times four.
    """

    kernel: str
    dtype: str
    target: str
    constexprs: dict[str, int | str | bool]
    warps: int
    stages: int
    failure: str | None = None
    registers: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    stack: int = 0
    shared: int = 0
    tensor_columns: int = 0
    resident_blocks: int = 0
    limiter: str = ""
    instructions: int = 0
    hot_loop: int = 0
    matrix: dict[str, int] = field(default_factory=dict)
    matrix_expected: list[str] = field(default_factory=list)
    flops_hot: int = 0
    flops_source: int = 0
    copies: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    triton: str = ""
    digest: str = ""
    seal: str = ""

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells this row from all others, whatever the compiler made of it."""
        return key(self)

    @property
    def flop_ratio(self) -> float | None:
        """Operations of the code over operations of the source."""
        return self.flops_hot / self.flops_source if self.matrix_expected else None

    def plain(self) -> dict[str, object]:
        """For JSON: fields that hold nothing are left out."""
        held = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in held.items() if value not in (None, {}, [])}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Row:
        """The row that `plain` wrote."""
        return cls(**plain)


def key(each: Row | Configuration) -> tuple[object, ...]:
    """Kernel, dtype, target and every choice made for it."""
    chosen = tuple(sorted((name, str(value)) for name, value in each.constexprs.items()))
    return each.kernel, each.dtype, each.target, chosen, each.warps, each.stages


COPIES = ("LDGSTS", "UTMALDG", "UTMASTG", "LDSM", "STL", "LDL")
AMD_COPIES = ("scratch_store", "scratch_load")


def failed(configuration: Configuration, why: str) -> Row:
    """A row without code."""
    return Row(*_identity(configuration), failure=why)


def row(configuration: Configuration, compiled: Compiled) -> Row:
    """Read one compilation."""
    target = TARGETS[configuration.target]
    cuda = target.backend == "cuda"
    listing = (sass.read_nvidia if cuda else sass.read_amd)(compiled.assembly)
    hot = innermost(listing, sass.is_matrix) or [list(listing.instructions)]
    matrix = [[each for each in body if sass.is_matrix(each)] for body in hot]
    kernel = dots.read(compiled.ttir)
    families = {expected(dot, configuration) for loop in kernel.hot() for dot in loop.dots()}
    shapes = _tensor_shapes(listing, compiled.intermediate)
    done = [
        sum(sass.operations(each, configuration.warps, shapes.get(id(each))) for each in body)
        for body in matrix
    ]
    usage = _usage(compiled) if cuda else _amd_usage(compiled)
    blocks, limiter = resident_blocks(
        target,
        registers=usage["registers"],
        shared=compiled.shared,
        warps=configuration.warps,
        columns=compiled.tensor_columns,
    )
    return Row(
        *_identity(configuration),
        registers=usage["registers"],
        spill_stores=usage["spill_stores"],
        spill_loads=usage["spill_loads"],
        stack=usage["stack"],
        shared=compiled.shared,
        tensor_columns=compiled.tensor_columns,
        resident_blocks=blocks,
        limiter=limiter,
        instructions=len(listing.instructions),
        hot_loop=sum(map(len, hot)),
        matrix=dict(sass.short_names([each for body in matrix for each in body])),
        matrix_expected=sorted(each for each in families if each is not None),
        flops_hot=sum(done),
        flops_source=dots.asked_for(kernel, done) if families != {None} else 0,
        copies={name: n for name in (COPIES if cuda else AMD_COPIES) if (n := listing.count(name))},
        warnings=[
            line.strip()
            for line in compiled.log.splitlines()
            if "warning" in line.lower() or "Performance Loss" in line
        ],
        triton=compiled.triton,
        digest=compiled.digest,
    )


def expected(dot: dots.Dot, configuration: Configuration) -> str | None:
    """The matrix instruction that a product must become; None where the machine has none for it.

    The wide instructions of sm_90 and sm_100 take 64 rows and four warps together; a smaller product is HMMA.
    """
    family = TARGETS[configuration.target].families.get(dot.operands)
    if family in ("HGMMA", "UTCHMMA") and (dot.m < 64 or configuration.warps < 4):
        return "HMMA"
    return family


def _identity(c: Configuration) -> tuple[str, str, str, dict[str, int | str | bool], int, int]:
    return c.kernel, c.dtype, c.target, dict(c.constexprs), c.warps, c.stages


def _usage(compiled: Compiled) -> dict[str, int]:
    spills = r"(\d+) bytes spill "
    log, usage = compiled.log, compiled.usage
    found = {
        "registers": number(r"REG:(\d+)", usage),
        "stack": number(r"STACK:(\d+)", usage),
        "spill_stores": number(spills + "stores", log),
        "spill_loads": number(spills + "loads", log),
    }
    if None in found.values():
        raise ValueError(f"Triton {compiled.triton} does not pass on what ptxas says of registers")
    return {name: value for name, value in found.items() if value is not None}


def _amd_usage(compiled: Compiled) -> dict[str, int]:
    found = {
        name: number(rf"\.{name}:\s+(\d+)", compiled.assembly)
        for name in ("vgpr_count", "vgpr_spill_count", "private_segment_fixed_size")
    }
    if None in found.values():
        raise ValueError("the assembly text says nothing of registers")
    spilled = 4 * (found["vgpr_spill_count"] or 0)
    return {
        "registers": found["vgpr_count"] or 0,
        "stack": found["private_segment_fixed_size"] or 0,
        "spill_stores": spilled,
        "spill_loads": spilled,
    }


def _tensor_shapes(listing: Listing, ptx: str) -> dict[int, tuple[int, int, int]]:
    """The shape of every fifth-generation instruction: the one shape of the PTX, or the one in the same place."""
    users: list[Instruction] = [e for e in listing.instructions if e.name.startswith("UTCHMMA")]
    if not users:
        return {}
    shapes = sass.tensor_memory_shapes(ptx)
    if len(set(shapes)) == 1:
        return {id(each): shapes[0] for each in users}
    if len(shapes) != len(users):
        raise ValueError(
            f"{len(users)} UTCHMMA in the code and {len(shapes)} of several shapes in the PTX"
        )
    return {id(each): shape for each, shape in zip(users, shapes, strict=True)}
