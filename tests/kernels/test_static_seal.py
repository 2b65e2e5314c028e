"""A row of the report is believed only while nothing that it was made from has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from modular_manifolds_kernels import programs, static
from modular_manifolds_kernels.static import seal
from modular_manifolds_kernels.static.row import key

CONFIGURATIONS = static.configurations()
CONFIGURATION = CONFIGURATIONS[0]
ROW = static.sealed(static.by_identity(static.stored())[key(CONFIGURATION)], CONFIGURATION)


def test_a_row_that_comes_back_from_its_file_is_sealed(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    static.store([ROW], file)
    (back,) = static.stored(file)
    assert static.is_sealed(back, CONFIGURATION)


def test_a_row_that_was_changed_by_hand_is_not_sealed() -> None:
    assert not static.is_sealed(replace(ROW, registers=ROW.registers + 1), CONFIGURATION)
    assert not static.is_sealed(replace(ROW, seal=""), CONFIGURATION)


def test_a_configuration_with_other_arguments_breaks_the_seal() -> None:
    assert not static.is_sealed(ROW, replace(CONFIGURATION, divisible=()))
    assert not static.is_sealed(ROW, replace(CONFIGURATION, warps=2 * CONFIGURATION.warps))


def test_another_triton_breaks_the_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal.importlib.metadata, "version", lambda _: "4242")
    assert not static.is_sealed(ROW, CONFIGURATION)


@pytest.mark.parametrize(
    "name",
    [
        *(path.name for path in sorted(Path(programs.__path__[0]).glob("*.py"))),
        *(f"{name}.py" for name in seal.READERS),
    ],
)
def test_a_changed_program_or_reader_breaks_every_seal(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stock = Path.read_text

    def read_text(self: Path, encoding: str | None = None) -> str:
        return stock(self, encoding) + ("# changed\n" if self.name == name else "")

    before = seal.sources()
    assert static.is_sealed(ROW, CONFIGURATION)
    monkeypatch.setattr(Path, "read_text", read_text)
    # What was read is kept.
    monkeypatch.setattr(seal, "sources", seal.sources.__wrapped__)
    assert seal.sources() != before
    assert not static.is_sealed(ROW, CONFIGURATION)


def test_what_is_not_sealed_is_compiled_and_one_of_each_kernel_and_of_each_target() -> None:
    sealed = {
        key(each): static.sealed(row, each)
        for row, each in zip(static.stored(), CONFIGURATIONS, strict=True)
    }
    shown = static.to_compile(CONFIGURATIONS, sealed)
    assert len(shown) == len({each.kernel for each in CONFIGURATIONS})
    assert {each.kernel for each in shown} == {each.kernel for each in CONFIGURATIONS}
    assert {each.target for each in shown} == set(static.TARGETS)
    broken, missing = (each for each in CONFIGURATIONS[-2:])
    assert broken not in shown
    assert missing not in shown
    sealed[key(broken)] = replace(sealed[key(broken)], shared=0)
    del sealed[key(missing)]
    assert static.to_compile(CONFIGURATIONS, sealed) == [
        each for each in CONFIGURATIONS if each in [*shown, broken, missing]
    ]
    assert static.to_compile(CONFIGURATIONS, {}) == CONFIGURATIONS
