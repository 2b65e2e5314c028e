"""The four machines that code is compiled for: their limits and their data-sheet rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Target:
    """What has to fit on one multiprocessor (NVIDIA) or compute unit (AMD), and how fast the whole part is.

    Sizes are in bytes, rates in flop/s and bytes/s. `registers` counts 32-bit registers for NVIDIA, and
    for AMD the registers of one lane of one SIMD. `families` names the matrix instruction by the
    precision of the operands; where a precision has none, float32 multiplies and adds do the work.

    Source: NVIDIA, CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability";
    AMD, "CDNA 3 Instruction Set Architecture", sections 2 and 3. Rates: the data sheets named in `sheet`,
    dense, without sparsity.
    """

    name: str
    backend: str
    arch: int | str
    warp: int
    shared_per_block: int
    shared_per_unit: int
    shared_reserved: int
    registers: int
    threads: int
    blocks: int
    tensor_columns: int
    families: dict[str, str]
    sheet: str
    units: int
    flops: dict[str, float]
    bandwidth: float


KIB: Final = 1024

TARGETS: Final[dict[str, Target]] = {
    each.name: each
    for each in (
        Target(
            name="sm_80",
            backend="cuda",
            arch=80,
            warp=32,
            shared_per_block=163 * KIB,
            shared_per_unit=164 * KIB,
            shared_reserved=1 * KIB,
            registers=65536,
            threads=2048,
            blocks=32,
            tensor_columns=0,
            families={"bf16": "HMMA", "fp16": "HMMA", "tf32": "HMMA"},
            sheet="NVIDIA A100 SXM 80GB",
            units=108,
            flops={"bf16": 312e12, "fp16": 312e12, "tf32": 156e12, "ieee": 19.5e12},
            bandwidth=2.039e12,
        ),
        Target(
            name="sm_90",
            backend="cuda",
            arch=90,
            warp=32,
            shared_per_block=227 * KIB,
            shared_per_unit=228 * KIB,
            shared_reserved=1 * KIB,
            registers=65536,
            threads=2048,
            blocks=32,
            tensor_columns=0,
            families={"bf16": "HGMMA", "fp16": "HGMMA", "tf32": "HGMMA"},
            sheet="NVIDIA H100 SXM 80GB",
            units=132,
            flops={"bf16": 989.4e12, "fp16": 989.4e12, "tf32": 494.7e12, "ieee": 67e12},
            bandwidth=3.35e12,
        ),
        Target(
            name="sm_100",
            backend="cuda",
            arch=100,
            warp=32,
            shared_per_block=227 * KIB,
            shared_per_unit=228 * KIB,
            shared_reserved=1 * KIB,
            registers=65536,
            threads=2048,
            blocks=32,
            tensor_columns=512,
            families={"bf16": "UTCHMMA", "fp16": "UTCHMMA", "tf32": "UTCHMMA"},
            sheet="NVIDIA HGX B200, per GPU",
            units=148,
            flops={"bf16": 2250e12, "fp16": 2250e12, "tf32": 1125e12, "ieee": 80e12},
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
            threads=2048,
            blocks=32,
            tensor_columns=0,
            families={"bf16": "MFMA", "fp16": "MFMA", "tf32": "MFMA", "ieee": "MFMA"},
            sheet="AMD Instinct MI300X",
            units=304,
            flops={"bf16": 1307.4e12, "fp16": 1307.4e12, "tf32": 653.7e12, "ieee": 163.4e12},
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
