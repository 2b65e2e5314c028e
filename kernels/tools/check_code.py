"""Compile every shipped kernel configuration, without its GPU, and check the machine code.

    python kernels/tools/check_code.py [NAME ...]

NAME selects rows by kernel, dtype or architecture, as in `gram bf16 sm_90`; names of one kind are alternatives. One line
is printed for each row. The exit code is 1 if a row spills registers, uses another matrix instruction than its
architecture's, needs more memory than a block has, or causes a warning of the assembler. Nothing is timed. All rows take
about five minutes on one core. It needs Triton, but neither a GPU nor a driver.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from modular_manifolds_kernels.shipped import KERNELS, SHIPPED, Configuration
from signatures import signature_of

KIB: Final = 1024
ENVIRONMENT: Final = {
    # Contracting a·b + c is the default, but Triton warns if it is not set.
    "TRITON_DEFAULT_FP_FUSION": "1",
    "TRITON_DUMP_PTXAS_LOG": "1",
    "TRITON_INTERPRET": "0",
}


@dataclass(frozen=True)
class Target:
    """An architecture: its name in Triton, the limits of a block, and its matrix instruction.

    Source: NVIDIA, CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; AMD, "CDNA 3
    Instruction Set Architecture".
    """

    backend: str
    arch: int | str
    warp: int
    shared: int
    tensor_columns: int
    instruction: str


TARGETS: Final = {
    "sm_80": Target("cuda", 80, 32, 163 * KIB, 0, "mma.sync"),
    "sm_90": Target("cuda", 90, 32, 227 * KIB, 0, "wgmma.mma_async"),
    "sm_100": Target("cuda", 100, 32, 227 * KIB, 512, "tcgen05.mma"),
    "gfx942": Target("hip", "gfx942", 64, 64 * KIB, 0, "v_mfma"),
}


@dataclass(frozen=True)
class Code:
    """The compiled code of a row: spills and stack in bytes, matrix instructions by name."""

    registers: int
    spills: int
    stack: int
    shared: int
    tensor_columns: int
    instructions: frozenset[str]
    expected: frozenset[str]
    warnings: tuple[str, ...]


def rows(names: Sequence[str] = ()) -> list[Configuration]:
    """The shipped rows with these names; all rows if there are none.

    Raises:
        ValueError: no row has one of the names.
    """
    kinds = [{getattr(each, kind) for each in SHIPPED} for kind in ("kernel", "dtype", "target")]
    unknown = sorted(set(names).difference(*kinds))
    if unknown:
        known = ", ".join(name for kind in kinds for name in sorted(kind))
        raise ValueError(f"NAME must be one of {known}, got {unknown[0]}. Pass none for all rows.")
    wanted = [kind.intersection(names) or kind for kind in kinds]
    return [
        each
        for each in SHIPPED
        if each.kernel in wanted[0] and each.dtype in wanted[1] and each.target in wanted[2]
    ]


def name(row: Configuration) -> str:
    """The name of a row, with its flags and layout."""
    chosen = row.constexprs
    flags = [f"{k.lower()}={v}" for k, v in chosen.items() if k.isupper() and "BLOCK" not in k]
    sides = f"{chosen['BLOCK']}×{chosen['BLOCK_K']}"
    return " ".join((row.target, row.kernel, row.dtype, sides, row.layout, *flags))


def compiled(row: Configuration) -> Code:
    """Compile a row and read its code.

    Raises:
        whatever Triton raises for a kernel that it cannot compile.
    """
    with _settings():
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        target = TARGETS[row.target]
        signature, constexprs, divisible = signature_of(row)
        source = ASTSource(
            KERNELS[row.kernel],
            signature=signature,
            constexprs=constexprs,
            attrs={each: [["tt.divisibility", 16]] for each in _places(signature, divisible)},
        )
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            kernel = triton.compile(
                source,
                target=GPUTarget(target.backend, target.arch, target.warp),
                options={"num_warps": row.warps, "num_stages": row.stages},
            )
    return _read(row, kernel, printed.getvalue())


def _places(
    signature: Mapping[str, str | tuple[str, ...]], divisible: Sequence[str]
) -> Iterator[tuple[int, ...]]:
    """The indices of the arguments that are multiples of 16; for a list, the index of each member."""
    places = {argument: i for i, argument in enumerate(signature)}
    for each in divisible:
        kind = signature[each]
        if isinstance(kind, tuple):
            yield from ((places[each], member) for member in range(len(kind)))
        else:
            yield (places[each],)


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """A context with Triton's environment variables and an empty cache, because cached code is not assembled again."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as cache:
        os.environ.update(ENVIRONMENT, TRITON_CACHE_DIR=cache)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


NVIDIA_PRODUCT: Final = re.compile(r"(?<![\w.])(mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b")
AMD_PRODUCT: Final = re.compile(r"\b(v_mfma)_")


def _read(row: Configuration, kernel: Any, log: str) -> Code:
    if TARGETS[row.target].backend == "cuda":
        text, product, said = kernel.asm["ptx"], NVIDIA_PRODUCT, log
        registers = _number(r"Used (\d+) registers", said)
        stack = _number(r"(\d+) bytes stack frame", said)
        spills = _number(r"(\d+) bytes spill stores", said)
        spills += _number(r"(\d+) bytes spill loads", said)
    else:
        text, product = kernel.asm["amdgcn"], AMD_PRODUCT
        registers = _number(r"\.vgpr_count:\s+(\d+)", text)
        stack = _number(r"\.private_segment_fixed_size:\s+(\d+)", text)
        spills = 4 * _number(r"\.vgpr_spill_count:\s+(\d+)", text)
    return Code(
        registers=registers,
        spills=spills,
        stack=stack,
        shared=int(kernel.metadata.shared),
        tensor_columns=int(getattr(kernel.metadata, "tmem_size", 0) or 0),
        instructions=frozenset(product.findall(text)),
        expected=_expected(row, kernel.asm["ttir"]),
        warnings=tuple(
            line.strip()
            for line in log.splitlines()
            if "warning" in line.lower() or "Performance Loss" in line
        ),
    )


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"the compiler does not say what {pattern!r} looks for: read its output")
    return int(found[1])


DOT: Final = re.compile(
    r"tt\.dot\b.*?(?:inputPrecision = (?P<precision>\w+))?\s*:\s*tensor<(?P<rows>\d+)x\d+x(?P<kind>b?f\d+)>"
)


def _expected(row: Configuration, ttir: str) -> frozenset[str]:
    """The matrix instructions that the products of the source must compile to.

    The wide instructions of sm_90 and sm_100 need 64 rows and four warps; smaller products are `mma.sync`. Plain
    float32 products have a matrix instruction only on AMD.
    """
    target, found = TARGETS[row.target], set[str]()
    for dot in DOT.finditer(ttir):
        plain = dot["kind"] == "f32" and dot["precision"] in (None, "ieee")
        if plain and target.backend == "cuda":
            continue
        small = target.backend == "cuda" and (int(dot["rows"]) < 64 or row.warps < 4)
        found.add("mma.sync" if small else target.instruction)
    return frozenset(found)


def complaints(row: Configuration, code: Code) -> list[str]:
    """The faults of the code, as sentences: warnings, spills, a stack, too much memory, or a wrong instruction."""
    target = TARGETS[row.target]
    found = [f"the assembler warns: {line}" for line in code.warnings]
    if code.spills:
        found.append(f"spills {code.spills} bytes, stored and loaded")
    if code.stack:
        found.append(f"has a stack of {code.stack} bytes")
    if code.shared > target.shared:
        found.append(f"asks for {code.shared} bytes of shared memory, of {target.shared}")
    if code.tensor_columns > target.tensor_columns:
        found.append(
            f"asks for {code.tensor_columns} columns of tensor memory, of {target.tensor_columns}"
        )
    if code.instructions != code.expected:
        used, wanted = (
            ", ".join(sorted(each)) or "none" for each in (code.instructions, code.expected)
        )
        found.append(f"multiplies matrices by {used}, should by {wanted}")
    return found


def main(names: Sequence[str]) -> int:
    """Compile the rows with these names, print their faults, and return 1 if there are any, 2 for an unknown name."""
    wrong = 0
    try:
        chosen = rows(names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for row in chosen:
        try:
            code = compiled(row)
        except Exception as error:
            said = " ".join(str(error).split())
            found, numbers = [f"no code: … {said[-300:]}"], ""
        else:
            found = complaints(row, code)
            instructions = ", ".join(sorted(code.instructions)) or "no matrix products"
            numbers = f"{code.registers} registers, {code.shared} bytes shared, {instructions}"
        wrong += bool(found)
        print(
            f"{name(row)}: {numbers}", *(f"WRONG {each}" for each in found), sep="\n  ", flush=True
        )
    print(f"{len(chosen)} rows, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
