"""The four machines that code is compiled for: their limits and their data-sheet rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KIB: Final = 1024


@dataclass(frozen=True, kw_only=True)
class Target:
    """What has to fit on one multiprocessor (NVIDIA) or compute unit (AMD), and how fast the whole part is.

    Sizes are in bytes, rates in flop/s and bytes/s. `registers` counts 32-bit registers for NVIDIA, and
    for AMD the registers of one lane of one SIMD. `families` names the matrix instruction by the
    precision of the operands; where a precision has none, float32 multiplies and adds do the work.
    The defaults are what all NVIDIA machines here have in common.

    Source: NVIDIA, CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability";
    AMD, "CDNA 3 Instruction Set Architecture", sections 2 and 3. Rates: the data sheets named in `sheet`,
    dense, without sparsity.
    """

    name: str
    backend: str = "cuda"
    arch: int | str
    warp: int = 32
    shared_per_block: int
    shared_per_unit: int
    shared_reserved: int = 1 * KIB
    registers: int = 65536
    threads: int = 2048
    blocks: int = 32
    tensor_columns: int = 0
    families: dict[str, str]
    sheet: str
    flops: dict[str, float]
    bandwidth: float


def _families(instruction: str, *more: str) -> dict[str, str]:
    return dict.fromkeys(("bf16", "fp16", "tf32", *more), instruction)


def _flops(*, half: float, tf32: float, ieee: float) -> dict[str, float]:
    return {"bf16": half, "fp16": half, "tf32": tf32, "ieee": ieee}


TARGETS: Final[dict[str, Target]] = {
    each.name: each
    for each in (
        Target(
            name="sm_80",
            arch=80,
            shared_per_block=163 * KIB,
            shared_per_unit=164 * KIB,
            families=_families("HMMA"),
            sheet="NVIDIA A100 SXM 80GB",
            flops=_flops(half=312e12, tf32=156e12, ieee=19.5e12),
            bandwidth=2.039e12,
        ),
        Target(
            name="sm_90",
            arch=90,
            shared_per_block=227 * KIB,
            shared_per_unit=228 * KIB,
            families=_families("HGMMA"),
            sheet="NVIDIA H100 SXM 80GB",
            flops=_flops(half=989.4e12, tf32=494.7e12, ieee=67e12),
            bandwidth=3.35e12,
        ),
        Target(
            name="sm_100",
            arch=100,
            shared_per_block=227 * KIB,
            shared_per_unit=228 * KIB,
            tensor_columns=512,
            families=_families("UTCHMMA"),
            sheet="NVIDIA HGX B200, per GPU",
            flops=_flops(half=2250e12, tf32=1125e12, ieee=80e12),
            bandwidth=8e12,
        ),
        Target(
            name="gfx942",
            backend="hip",
            arch="gfx942",
            warp=64,
            shared_per_block=64 * KIB,
            shared_per_unit=64 * KIB,
            shared_reserved=0,
            registers=512,
            families=_families("MFMA", "ieee"),
            sheet="AMD Instinct MI300X",
            flops=_flops(half=1307.4e12, tf32=653.7e12, ieee=163.4e12),
            bandwidth=5.3e12,
        ),
    )
}


def resident_blocks(
    target: Target, *, registers: int, shared: int, warps: int, columns: int = 0
) -> tuple[int, str]:
    """How many blocks fit on one multiprocessor at a time, and what limits them.

    A formula from the allocation rules of the guides, not the vendors' calculators: registers are given out
    to NVIDIA warps 256 at a time and to AMD lanes 8 at a time, shared memory 128 bytes (AMD: 512) at a time.
    """
    limits = {
        "threads": target.threads // (warps * target.warp),
        "blocks": target.blocks,
    }
    if target.backend == "cuda":
        per_warp = -(-registers * target.warp // 256) * 256
        # Each of the four schedulers holds whole warps.
        limits["registers"] = target.registers // 4 // per_warp * 4 // warps
        granule = 128
    else:
        per_lane = max(8, -(-registers // 8) * 8)
        limits["registers"] = min(8, target.registers // per_lane) * 4 // warps
        granule = 512
    if shared or target.shared_reserved:
        held = -(-(shared + target.shared_reserved) // granule) * granule
        limits["shared"] = target.shared_per_unit // held
    if columns:
        limits["tensor memory"] = target.tensor_columns // columns
    least = min(limits, key=lambda what: limits[what])
    return limits[least], least
