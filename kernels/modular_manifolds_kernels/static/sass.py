"""Reading machine code: NVIDIA's SASS and AMD's assembly, matrix instructions and their operations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from modular_manifolds_kernels.static.flow import Instruction, Listing

MATRIX = re.compile(r"(HMMA|HGMMA|UTCHMMA|IMMA|DMMA|v_mfma_\w+)\b")


def is_matrix(instruction: Instruction) -> bool:
    """Whether it multiplies matrices."""
    return MATRIX.match(instruction.name) is not None


def family(name: str) -> str:
    """The kind of matrix instruction, in capitals: HMMA, HGMMA, UTCHMMA, MFMA."""
    return "MFMA" if name.startswith("v_mfma") else name.split(".")[0]


NVIDIA_LINE = re.compile(
    r"^\s*/\*[0-9a-f]{4,}\*/\s+(?P<guard>@!?U?P\w+\s+)?(?P<name>[A-Z][\w.]*)(?P<rest>[^;]*);"
)
NVIDIA_LABEL = re.compile(r"^(?P<label>\.L\w+):")
NVIDIA_JUMP = re.compile(r"`\((?P<label>\.L\w+)\)")


def read_nvidia(text: str) -> Listing:
    """The listing of `nvdisasm -c`."""
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        label = NVIDIA_LABEL.match(line)
        if label:
            labels[label["label"]] = len(instructions)
            continue
        found = NVIDIA_LINE.match(line)
        if not found:
            continue
        name, rest = found["name"], found["rest"].strip()
        jump = NVIDIA_JUMP.search(rest) if name.startswith("BRA") else None
        always = found["guard"] is None and (rest.startswith("`") or name == "EXIT")
        ends = name.startswith(("BRA", "EXIT")) and always
        instructions.append(Instruction(name, rest, jump["label"] if jump else None, not ends))
    return Listing(tuple(instructions), labels)


AMD_LINE = re.compile(r"^\s+(?P<name>[a-z]+_[a-z]\w*)\b(?P<rest>[^;]*)")
AMD_LABEL = re.compile(r"^(?P<label>\.LBB\w+):")
AMD_JUMP = re.compile(r"(?P<label>\.LBB\w+)")


def read_amd(text: str) -> Listing:
    """The listing of Triton's AMD assembly text, up to the end of the kernel's code."""
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if line.lstrip().startswith(".section") and instructions:
            break
        label = AMD_LABEL.match(line)
        if label:
            labels[label["label"]] = len(instructions)
            continue
        found = AMD_LINE.match(line)
        if not found:
            continue
        name, rest = found["name"], found["rest"].strip()
        jump = AMD_JUMP.search(rest) if name.startswith(("s_cbranch", "s_branch")) else None
        ends = name in ("s_branch", "s_endpgm", "s_setpc_b64")
        instructions.append(Instruction(name, rest, jump["label"] if jump else None, not ends))
    return Listing(tuple(instructions), labels)


TENSOR_MEMORY = re.compile(
    r"tcgen05\.mma[\w.:]*kind::(?P<kind>\w+)\s+\[[^\]]*\],\s*(?P<a>\[[^\]]*\]|%\w+),\s*%\w+,\s*(?P<idesc>%\w+)"
)


def tensor_memory_shapes(ptx: str) -> list[tuple[int, int, int]]:
    """(M, N, K) of every fifth-generation matrix instruction of a PTX text, in order.

    SASS keeps the shape in a register; PTX shows the constant put there. Bits 17–22 of the descriptor hold
    N/8, bits 24–28 M/16; a row of K is 32 bytes, 16 numbers of half precision and 8 of tf32.

    Raises:
        ValueError: the descriptor is not a constant in the text.

    Source: PTX ISA 8.7, "Instruction descriptor" of tcgen05.mma.
    """
    found = []
    for each in TENSOR_MEMORY.finditer(ptx):
        constant = re.search(rf"mov\.b32\s+{re.escape(each['idesc'])}, (-?\d+);", ptx)
        if constant is None:
            raise ValueError(f"no constant is moved to {each['idesc']} in the PTX")
        bits = int(constant[1]) & 0xFFFFFFFF
        k = {"f16": 16, "tf32": 8}[each["kind"]]
        found.append((((bits >> 24) & 31) * 16, ((bits >> 17) & 63) * 8, k))
    return found


WARP_SHAPES = {"16816": (16, 8, 16), "1688": (16, 8, 8), "1684": (16, 8, 4), "16832": (16, 8, 32)}


def operations(instruction: Instruction, warps: int, tensor: tuple[int, int, int] | None) -> int:
    """Floating-point operations that a whole block does in one matrix instruction, a multiply and an add two.

    Every warp runs an HMMA or MFMA, every four warps together an HGMMA; one thread starts a UTCHMMA for the
    whole block, whose shape `tensor` says.

    Raises:
        ValueError: the shape cannot be read.
    """
    parts = instruction.name.split(".")
    if parts[0] == "HMMA" and len(parts) > 1 and parts[1] in WARP_SHAPES:
        m, n, k = WARP_SHAPES[parts[1]]
        return 2 * m * n * k * warps
    if parts[0] == "HGMMA":
        m, n, k = (int(size) for size in parts[1].split("x"))
        return 2 * m * n * k * (warps // 4)
    if parts[0] == "UTCHMMA" and tensor is not None:
        m, n, k = tensor
        return 2 * m * n * k
    shape = re.match(r"v_mfma_f32_(\d+)x(\d+)x(\d+)(?:_(\d+)b)?", instruction.name)
    if shape:
        m, n, k = (int(size) for size in shape.groups()[:3])
        return 2 * m * n * k * int(shape[4] or 1) * warps
    raise ValueError(f"the shape of {instruction.name} is not known")


def short_names(instructions: Sequence[Instruction]) -> Counter[str]:
    """Matrix instructions by name, without what only says where the operands lie."""
    return Counter(
        ".".join(p for p in each.name.split(".") if p not in ("reuse", "SP"))
        for each in instructions
    )
