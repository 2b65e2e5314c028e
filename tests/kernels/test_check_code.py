"""The script that compiles the shipped rows: rows that are as they should be, and faults that it must find."""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from long_tests import mostly_long
from modular_manifolds_kernels.shipped import KERNELS, SHIPPED, Configuration

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    pytest.importorskip("triton", reason="there is no Triton for this platform")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "kernels/tools")
        yield importlib.import_module("check_code")


def test_a_signature_names_the_arguments_of_the_kernel(script: Any) -> None:
    for row in SHIPPED:
        arguments = list(inspect.signature(KERNELS[row.kernel].fn).parameters)
        signature, constexprs, divisible = script.signature_of(row)
        assert list(signature) == arguments, row.kernel
        assert set(divisible) <= set(arguments)
        for name, value in constexprs.items():
            assert signature[name] == "constexpr"
            assert name in row.constexprs or value == 1


Compile = Callable[[Configuration], Any]


def by_the_script(row: Configuration) -> Any:
    return importlib.import_module("check_code").compiled(row)


@pytest.fixture(scope="module")
def compiled(script: Any) -> Iterator[Compile]:
    """Compiles in a process of its own: in this one other tests may have put the interpreter in Triton's place."""
    del script
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        known: list[tuple[Configuration, Any]] = []

        def compile_once(row: Configuration) -> Any:
            for each, code in known:
                if each == row:
                    return code
            code = pool.submit(by_the_script, row).result()
            known.append((row, code))
            return code

        yield compile_once


def shipped(kernel: str, dtype: str, target: str, block: int) -> Configuration:
    return next(
        each
        for each in SHIPPED
        if (each.kernel, each.dtype, each.target) == (kernel, dtype, target)
        and each.constexprs["BLOCK"] == block
    )


@pytest.mark.parametrize(
    ("target", "kernel", "dtype", "block"),
    mostly_long(
        [
            ("sm_80", "stiefel_retract", "fp32", 32),
            ("sm_90", "small_msign", "bf16", 64),
            ("sm_100", "apply", "bf16", 128),
            ("sm_100", "small_msign", "bf16", 64),
            ("gfx942", "stiefel_retract", "fp32", 32),
            ("gfx942", "apply", "bf16", 128),
        ],
        usual=lambda row: row[:2] == ("gfx942", "stiefel_retract"),
        several=True,
    ),
)
def test_rows_of_each_architecture_compile_to_clean_code(
    script: Any, compiled: Compile, target: str, kernel: str, dtype: str, block: int
) -> None:
    """A few of all: the script itself compiles every one."""
    row = shipped(kernel, dtype, target, block)
    code = compiled(row)
    assert script.complaints(row, code) == []
    assert code.instructions == code.expected != frozenset()
    assert code.registers > 0


@pytest.mark.long
def test_too_few_warps_are_found_to_spill_and_to_wait(script: Any, compiled: Compile) -> None:
    row = replace(shipped("small_msign", "bf16", "sm_90", 128), warps=4)
    said = " ".join(script.complaints(row, compiled(row)))
    assert "spills" in said
    assert "Potential Performance Loss: wgmma.mma_async instructions are serialized" in said


@pytest.mark.long
def test_plain_float32_products_are_found_in_place_of_tensor_cores(
    script: Any, compiled: Compile
) -> None:
    row = shipped("stiefel_retract", "fp32", "sm_80", 32)
    wrong = replace(row, constexprs={**row.constexprs, "PRECISION": "ieee"})
    code = compiled(wrong)
    assert code.instructions == frozenset()
    (said,) = script.complaints(row, replace(code, expected=compiled(row).expected))
    assert said == "multiplies matrices by none, should by mma.sync"


def test_memory_beyond_a_block_is_said(script: Any, compiled: Compile) -> None:
    row = shipped("move", "fp32", "sm_100", 16)
    code = replace(compiled(row), shared=1 << 20, tensor_columns=513, stack=16)
    assert script.complaints(row, code) == [
        "has a stack of 16 bytes",
        "asks for 1048576 bytes of shared memory, of 232448",
        "asks for 513 columns of tensor memory, of 512",
    ]


def test_the_script_prints_a_line_a_row_and_says_what_is_wrong(
    script: Any,
    compiled: Compile,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(script, "compiled", compiled)
    assert script.main(["move", "sm_90"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 rows, 0 wrong"
    row = shipped("move", "fp32", "sm_90", 16)
    broken = replace(row, constexprs={**row.constexprs, "BLOCK": 24})
    monkeypatch.setattr(script, "rows", lambda _: [broken])
    assert script.main([]) == 1
    printed = capsys.readouterr().out
    assert "WRONG no code:" in printed
    assert "power of 2" in printed
    monkeypatch.undo()
    assert script.main(["sm_70"]) == 2
    assert "got sm_70" in capsys.readouterr().err


def test_no_warp_has_less_than_the_rows_of_one_instruction() -> None:
    """If a product is an operand of the next, a warp has 16 rows of it, on AMD 32: with more warps some repeat others."""
    for row in SHIPPED:
        if row.kernel in ("small_msign", "narrow_msign", "stiefel_retract"):
            plain = row.constexprs["PRECISION"] == "ieee" and row.dtype == "fp32"
            if row.target == "gfx942" or not plain:
                rows = 32 if row.target == "gfx942" else 16
                assert row.warps * rows <= int(row.constexprs["BLOCK"]), row
