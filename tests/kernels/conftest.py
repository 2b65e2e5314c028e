"""Kernels in the interpreter, for tests that ask; nothing is set for others in the same process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from interpreter import (
    count_with_arrays,
    interpret_calls,
    interpreted_machine,
    overlook_overflow,
    round_faithfully,
)
from modular_manifolds_kernels.machine import Machine


@pytest.fixture(scope="session")
def interpreted() -> Iterator[tuple[Machine, list[str]]]:
    """The machine and its launches; bfloat16 and tf32 are rounded as a GPU does."""
    pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    with pytest.MonkeyPatch.context() as patch:
        round_faithfully(patch)
        interpret_calls(patch)
        count_with_arrays(patch)
        overlook_overflow(patch)
        yield interpreted_machine()


@pytest.fixture
def machine(interpreted: tuple[Machine, list[str]]) -> Machine:
    """A machine without a GPU."""
    return interpreted[0]


@pytest.fixture
def launched(interpreted: tuple[Machine, list[str]]) -> list[str]:
    """The launches of this test, in order."""
    interpreted[1].clear()
    return interpreted[1]
