"""Reading machine code: short listings whose loops and operations are known."""

from __future__ import annotations

import pytest
from modular_manifolds_kernels.static import dots, flow, sass
from modular_manifolds_kernels.static.targets import TARGETS, resident_blocks

SASS = """
kernel:
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x37c] ;
        /*0010*/              @!P2 BRA `(.L_x_3) ;
.L_x_1:
        /*0020*/                   LDGSTS.E.BYPASS.128 [R1], [R2.64] ;
        /*0030*/                   HGMMA.64x128x16.F32.BF16 R88, gdesc[UR8], R88 ;
        /*0040*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR4], R0 ;
        /*0050*/              @!P1 BRA `(.L_x_9) ;
.L_x_2:
        /*0060*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24, gsb0 ;
        /*0070*/               @P0 BRA `(.L_x_1) ;
.L_x_3:
        /*0080*/                   STG.E [R2], R3 ;
        /*0090*/                   EXIT ;
.L_x_9:
        /*00a0*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR4], R0 ;
        /*00b0*/              @!P1 BRA `(.L_x_9) ;
        /*00c0*/                   BRA `(.L_x_2) ;
.L_x_10:
        /*00d0*/                   BRA `(.L_x_10);
"""


def test_a_loop_holds_the_wait_that_stands_behind_the_end_of_the_kernel() -> None:
    listing = sass.read_nvidia(SASS)
    assert len(listing.instructions) == 14
    (hot,) = flow.innermost(listing, sass.is_matrix)
    # Six instructions in line and three behind the end; the idle loop at the end is never reached.
    assert len(hot) == 9
    assert sum(map(sass.is_matrix, hot)) == 2
    assert sorted(map(len, flow.loops(listing))) == [2, 9]


def test_only_the_innermost_loop_with_products_is_hot() -> None:
    listing = sass.read_amd(
        "\ts_mov_b32 s0, 0\n.LBB0_1:\n\tv_add_u32 v0, v1, v2\n.LBB0_2:\n"
        "\tv_mfma_f32_32x32x8_bf16 v[0:15], v[16:17], v[18:19], v[0:15]\n\ts_cbranch_scc1 .LBB0_2\n"
        "\ts_cbranch_scc0 .LBB0_1\n\ts_endpgm\n\t.section .rodata\n\ts_nop 0\n"
    )
    assert len(listing.instructions) == 6
    assert [len(each) for each in flow.innermost(listing, sass.is_matrix)] == [2]


@pytest.mark.parametrize(
    ("name", "warps", "flops"),
    [
        ("HMMA.16816.F32.BF16", 8, 8 * 2 * 16 * 8 * 16),
        ("HMMA.1688.F32.TF32", 4, 4 * 2 * 16 * 8 * 8),
        ("HGMMA.64x128x16.F32.BF16", 8, 2 * 2 * 64 * 128 * 16),
        ("v_mfma_f32_32x32x8_bf16", 4, 4 * 2 * 32 * 32 * 8),
        ("v_mfma_f32_16x16x4_4b_f32", 2, 2 * 2 * 16 * 16 * 4 * 4),
        ("UTCHMMA", 4, 2 * 128 * 128 * 16),
    ],
)
def test_operations_of_a_matrix_instruction(name: str, warps: int, flops: int) -> None:
    one = flow.Instruction(name, "")
    assert sass.operations(one, warps, (128, 128, 16)) == flops


@pytest.mark.parametrize("name", ["HMMA.4242.F32", "UTCHMMA", "v_mfma_i32_32x32x8_i8"])
def test_an_instruction_of_unknown_shape_is_not_guessed(name: str) -> None:
    with pytest.raises(ValueError, match="not known"):
        sass.operations(flow.Instruction(name, ""), 4, None)


def test_the_shape_of_a_fifth_generation_instruction_is_in_its_descriptor() -> None:
    ptx = (
        "mov.b32 \t%r53, 136316048;\n"
        "@%p13 tcgen05.mma.cta_group::1.kind::f16 [ %r290 + 0 ], %rd28, %rd28, %r53, %p12;\n"
    )
    assert sass.tensor_memory_shapes(ptx) == [(128, 128, 16)]
    assert sass.tensor_memory_shapes(ptx.replace("f16", "tf32")) == [(128, 128, 8)]
    with pytest.raises(ValueError, match="no constant"):
        sass.tensor_memory_shapes(ptx.replace("mov", "add"))


TTIR = """
  %0 = tt.dot %a, %b, %c, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
  %1 = scf.for %k = %x to %y step %z iter_args(%q = %cst) -> (tensor<64x64xf32>)  : i32 {
    %2 = tt.dot %a, %b, %q, inputPrecision = tf32 : tensor<64x16xf32> * tensor<16x64xf32> -> tensor<64x64xf32> loc(#loc)
    %3 = scf.for %j = %x to %y step %z iter_args(%w = %cst) -> (tensor<64x64xf32>)  : i32 {
      %5 = scf.if %p -> (tensor<64x64xf32>) {
        %6 = tt.dot %a, %b, %w, inputPrecision = tf32x3 : tensor<64x32xf32> * tensor<32x128xf32> -> tensor<64x128xf32> loc(#loc)
        scf.yield %6 : tensor<64x64xf32>
      } else {
        scf.yield %w : tensor<64x64xf32>
      }
      scf.yield %5 : tensor<64x64xf32>
    } loc("inner")
    scf.yield %3 : tensor<64x64xf32>
  } loc(#loc5)
"""


def test_the_source_asks_for_the_products_of_its_innermost_loops() -> None:
    kernel = dots.read(TTIR)
    (hot,) = kernel.hot()
    (dot,) = hot.dots()
    assert (dot.m, dot.n, dot.k, dot.precision, dot.operands) == (64, 128, 32, "tf32x3", "tf32")
    assert dot.flops == 3 * 2 * 64 * 128 * 32
    assert [len(each.dots()) for each in kernel.holding()] == [1, 1, 1]
    assert hot.perhaps == [dot]


def test_without_a_loop_all_products_count_and_half_precision_is_told_by_its_operands() -> None:
    kernel = dots.read(TTIR.splitlines()[1])
    (only,) = kernel.hot()[0].dots()
    assert (only.precision, only.flops) == ("bf16", 2 * 64**3)
    assert dots.asked_for(kernel, [2 * 64**3]) == 2 * 64**3
    assert dots.asked_for(kernel, [4 * 64**3]) == 2 * 64**3


def test_versions_of_a_loop_are_not_more_work_and_a_repeated_product_is() -> None:
    kernel = dots.read(TTIR)
    inner, outer = 3 * 2 * 64 * 128 * 32, 2 * 64 * 16 * 64
    assert dots.asked_for(kernel, [inner]) == inner
    # Without what stands under the condition; without the inner loop.
    assert dots.asked_for(kernel, [0, inner]) == inner
    assert dots.asked_for(kernel, [outer, inner]) == outer + inner
    assert dots.asked_for(kernel, [2 * inner]) == inner
    assert dots.asked_for(kernel, [outer]) == inner


@pytest.mark.parametrize(
    ("target", "registers", "shared", "warps", "columns", "expected"),
    [
        ("sm_90", 168, 49152, 4, 0, (3, "registers")),
        ("sm_90", 32, 98304, 4, 0, (2, "shared")),
        ("sm_80", 24, 0, 32, 0, (2, "threads")),
        ("sm_100", 32, 0, 4, 256, (2, "tensor memory")),
        ("gfx942", 128, 16384, 4, 0, (4, "registers")),
        ("gfx942", 128, 65536, 4, 0, (1, "shared")),
    ],
)
def test_how_many_blocks_fit(
    target: str, registers: int, shared: int, warps: int, columns: int, expected: tuple[int, str]
) -> None:
    found = resident_blocks(
        TARGETS[target], registers=registers, shared=shared, warps=warps, columns=columns
    )
    assert found == expected
