"""The committed report of the kernels' machine code, and what changed since it was made compiled again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from modular_manifolds_kernels import static
from modular_manifolds_kernels.configuration import Configuration
from modular_manifolds_kernels.static.build import Compiler
from modular_manifolds_kernels.static.row import Row, failed, key

from modular_manifolds.cli.main import main

CONFIGURATIONS = static.configurations()
STORED = static.by_identity(static.stored())


def named(each: Configuration | Row) -> str:
    row = each if isinstance(each, Row) else failed(each, "")
    return static.name(row).replace(" ", "-")


def test_the_report_has_a_row_for_every_configuration_and_for_nothing_else() -> None:
    assert list(STORED) == [key(each) for each in CONFIGURATIONS]


def test_the_stored_rows_pass_every_hard_check() -> None:
    assert [f"{named(row)}: {said}" for row in STORED.values() for said in static.hard(row)] == []


@pytest.fixture(scope="session")
def compiler() -> Iterator[Compiler]:
    pytest.importorskip("triton", reason="there is no Triton for this platform")
    with Compiler() as held:
        yield held


def worth_compiling() -> list[Configuration]:
    """All that changed, and one of each target: the command compiles more, and each takes a second and more."""
    asked = static.to_compile(CONFIGURATIONS, STORED)
    sealed = [
        each for each in asked if key(each) in STORED and static.is_sealed(STORED[key(each)], each)
    ]
    shown = {each.target: each for each in sealed}
    return [each for each in asked if each not in sealed or shown[each.target] is each]


@pytest.mark.parametrize("configuration", worth_compiling(), ids=named)
def test_a_configuration_compiles_to_code_that_passes(
    configuration: Configuration, compiler: Compiler
) -> None:
    row = compiler.row(configuration)
    assert static.hard(row) == []
    before = STORED.get(row.identity)
    reason = static.why_not_compared(row, before)
    if reason is not None:
        pytest.skip(reason)
    assert before is not None
    assert static.soft(row, before) == []


GOOD = Row(
    kernel="gram",
    dtype="bf16",
    target="sm_90",
    constexprs={"BLOCK": 128, "BLOCK_K": 64, "HALF": True},
    warps=8,
    stages=3,
    registers=100,
    shared=98304,
    resident_blocks=2,
    limiter="registers",
    instructions=1000,
    hot_loop=100,
    matrix={"HGMMA.64x128x16.F32.BF16": 4},
    matrix_expected=["HGMMA"],
    flops_hot=2 * 128 * 128 * 64,
    flops_source=2 * 128 * 128 * 64,
    triton="3.9.0",
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"failure": "was not compiled within 60 s"}, "no code: was not compiled within 60 s"),
        ({"spill_stores": 8, "spill_loads": 4}, "spills 8 bytes and loads 4 of them back"),
        ({"copies": {"STL": 2, "LDL": 3, "LDGSTS": 9}}, "uses local memory: 2 STL, 3 LDL"),
        ({"copies": {"scratch_store": 1}}, "uses local memory: 1 scratch_store"),
        ({"stack": 16}, "has a stack of 16 bytes"),
        (
            {"warnings": ["info: (C7512) Potential Performance Loss: wgmma"]},
            "Potential Performance",
        ),
        ({"shared": 232449}, "asks for 232449 bytes of shared memory, and a block has 232448"),
        ({"tensor_columns": 128}, "asks for 128 columns of tensor memory, and there are 0"),
        ({"resident_blocks": 0}, "not one block fits: registers"),
        ({"matrix": {"HMMA.16816.F32.BF16": 64}}, "by HMMA, should by HGMMA"),
        ({"matrix": {}}, "by no matrix instruction, should by HGMMA"),
        ({"flops_hot": 4 * 128 * 128 * 64}, "does 4194304 operations .* asks for 2097152"),
    ],
)
def test_a_hard_check_says_what_is_wrong(change: dict[str, object], said: str) -> None:
    assert static.hard(GOOD) == []
    (sentence,) = static.hard(Row.read({**GOOD.plain(), **change}))
    assert re.search(said, sentence), sentence


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"registers": 106}, "registers: 106, was 100"),
        ({"hot_loop": 106}, "hot loop: 106, was 100"),
        ({"shared": 98305}, "shared memory: 98305, was 98304"),
        ({"resident_blocks": 1}, "blocks at a time: 1, were 2"),
    ],
)
def test_a_soft_check_says_what_got_worse(change: dict[str, int], said: str) -> None:
    within = replace(GOOD, registers=105, hot_loop=105, shared=1, resident_blocks=3)
    assert static.soft(within, GOOD) == []
    assert static.soft(replace(GOOD, **change), GOOD) == [said]


def test_another_triton_is_held_to_the_hard_checks_only_and_says_so() -> None:
    worse = replace(GOOD, registers=200, stack=8, triton="3.10.0")
    wrong, skipped = static.complaints([worse], [GOOD])
    assert wrong == [f"{static.name(worse)}: has a stack of 8 bytes"]
    assert skipped == ["1 of 1 not compared: the report was made with Triton 3.9.0, this is 3.10.0"]
    same = replace(worse, triton=GOOD.triton, stack=0)
    assert static.complaints([same], [GOOD]) == (
        [f"{static.name(same)}: registers: 200, was 100"],
        [],
    )
    assert static.complaints([GOOD], [])[1] == [
        "1 of 1 not compared: the report has no such row: run `modular-manifolds kernels --update`"
    ]


def a(kernel: str, target: str, **chosen: int) -> Configuration:
    return next(
        each
        for each in CONFIGURATIONS
        if (each.kernel, each.dtype, each.target) == (kernel, "bf16", target)
        and chosen.items() <= each.constexprs.items()
    )


def test_too_few_warps_are_found_to_spill_and_to_serialise(compiler: Compiler) -> None:
    row = compiler.row(replace(a("small_msign", "sm_90", BLOCK=128), warps=4))
    said = " ".join(static.hard(row))
    assert "spills" in said
    assert "STL" in said
    assert "Potential Performance Loss: wgmma.mma_async instructions are serialized" in said


def test_too_many_warps_are_found_to_do_the_same_products_twice(compiler: Compiler) -> None:
    row = compiler.row(replace(a("small_msign", "sm_80", BLOCK=32), warps=4))
    assert row.flop_ratio == 2.0
    assert len(static.hard(row)) == 1


def test_a_kernel_that_does_not_compile_or_takes_too_long_is_a_row_that_says_so() -> None:
    pytest.importorskip("triton", reason="there is no Triton for this platform")
    good = a("small_msign", "sm_80", BLOCK=32)
    wrong = replace(good, constexprs={**good.constexprs, "BLOCK": 24})
    broken, fine = static.build([wrong, good])
    assert broken.failure is not None
    assert "power of 2" in broken.failure
    assert static.hard(fine) == []
    (late,) = static.build([good], limit=0.01)
    assert late.failure == "was not compiled within 0.01 s"
    assert static.hard(late) == ["no code: was not compiled within 0.01 s"]


def test_the_command_prints_the_report_within_100_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    file = tmp_path / "rows.json"
    assert main(["kernels", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    lines = [each.rstrip() for each in printed.splitlines()]
    assert max(map(len, lines)) <= 100
    assert [each for each in lines if each in static.TARGETS] == list(static.TARGETS)
    # One line a row: nothing is folded.
    assert sum("msign" in each for each in lines) == sum(
        "msign" in each.kernel for each in CONFIGURATIONS
    )
    assert len(json.loads(file.read_text())["rows"]) == len(STORED)


def test_the_command_fails_where_a_check_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = static.stored()
    spoiled = [replace(rows[0], spill_stores=4), *rows[1:]]
    monkeypatch.setattr(static, "stored", lambda: spoiled)
    assert main(["kernels", "--only", rows[0].kernel]) == 1
    assert "wrong: " in capsys.readouterr().out


def test_the_command_refuses_a_name_that_nothing_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "--only", "sm_70"]) == 2
    assert "sm_70 is none of" in capsys.readouterr().err
