"""A strict room: the same random numbers at every run, one thread a worker, no memory left unwritten."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, settings


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

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "search", parent=settings.get_profile("ci"), derandomize=False, max_examples=2000
)
settings.register_profile("thorough", parent=settings.get_profile("search"))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# The matrices are small and the workers share the cores: more threads would only wait for one another.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def strict_room(request: pytest.FixtureRequest) -> Iterator[None]:
    """Seed torch from the test's own name; fill what `torch.empty` gives with NaN."""
    seed_torch(zlib.crc32(request.node.nodeid.encode()))
    dtype = torch.get_default_dtype()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    assert torch.get_default_dtype() == dtype, "the test changed torch's default dtype"
