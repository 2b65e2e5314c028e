"""The room in which tests run: its seeds, threads and processor. `conftest` gives the options, and lets every worker load this."""

from __future__ import annotations

import gc
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import hypothesis
import hypothesis.core
import pytest
import torch
from hypothesis import settings

HIDDEN: Final = {
    "as-is": (),
    "no-bf16": ("avx512_bf16", "amx_bf16"),
    "no-avx512": ("avx512_bf16", "amx_bf16", "avx512_f"),
}
"""The capabilities that torch does not report, by the option's name."""

APART: Final = 1_000_003
"""The distance between the seeds of two runs, so that seed 0 of one is no seed of the other."""


def pytest_configure(config: pytest.Config) -> None:
    # Small matrices in workers that share the cores: more threads would only wait for one another.
    torch.set_num_threads(config.option.threads)
    hide_capabilities(HIDDEN[config.option.processor])
    seed: int = config.option.seed
    if seed:
        shift_seeds(SHIFT)
        # A derandomised run ignores the seed.
        settings.register_profile("seeded", derandomize=False, database=None)
        settings.load_profile("seeded")
        hypothesis.core.global_force_seed = seed


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of the test is made."""
    as_written = item.get_closest_marker("seeds_as_written") is not None
    SHIFT.by = 0 if as_written else APART * item.config.option.seed


def pytest_collection_finish() -> None:
    # What was imported and collected stays to the end: the garbage collector need not walk it again and again.
    gc.collect()
    gc.freeze()


def hide_capabilities(names: tuple[str, ...]) -> None:
    """Make torch report a processor without `names`, before anything has asked."""
    reported = getattr(torch.cpu, "get_capabilities", dict)
    kept = {name: has for name, has in reported().items() if name not in names}
    if names:
        torch.cpu.get_capabilities = lambda: kept


@dataclass
class Shift:
    """The number that is added to seeds, now."""

    by: int = 0


SHIFT: Final = Shift()


def shift_seeds(shift: Shift) -> None:
    """Add the shift to every seed that torch is given, in tests and in the library."""
    manual_seed = torch.random.manual_seed

    class Shifted(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            return super().manual_seed(seed + shift.by)

    def shifted(seed: int) -> torch.Generator:
        return manual_seed(int(seed) + shift.by)

    torch.Generator = Shifted
    torch.manual_seed = torch.random.manual_seed = shifted


def seed_torch(seed: int) -> None:
    """`torch.manual_seed` of what this machine has: for a GPU that is not there torch keeps a stack trace a call."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


class TorchRandom:
    """torch's global generator, as hypothesis wants to see it: each example starts from one state."""

    def seed(self, seed: int) -> None:
        seed_torch(seed)

    def getstate(self) -> Any:
        return torch.get_rng_state()

    def setstate(self, state: Any) -> None:
        torch.set_rng_state(state)


# hypothesis keeps a weak reference only.
TORCH_RANDOM = TorchRandom()
hypothesis.register_random(TORCH_RANDOM)


@pytest.fixture(autouse=True)
def strict_room(request: pytest.FixtureRequest) -> Iterator[None]:
    """Seed torch from the test's own name; fill what `torch.empty` gives with NaN."""
    seed_torch(zlib.crc32(request.node.nodeid.encode()) + SHIFT.by)
    dtype = torch.get_default_dtype()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    assert torch.get_default_dtype() == dtype, "the test changed torch's default dtype"
