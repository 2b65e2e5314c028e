"""A strict room: the same random numbers at every run, one thread a worker, no memory left unwritten.

Options change the room, so that one machine can stand for others:

    pytest --seed 3                 other random numbers everywhere, those of hypothesis and of the library too
    pytest --threads 2              more threads for each product
    pytest --processor no-bf16      the code paths of a processor without bfloat16 products
    pytest --processor no-avx512    those of a processor without AVX-512
    pytest --hypothesis-profile thorough    2,000 examples a function

`long_tests.py` says which tests a plain run leaves out.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("long_tests",)

PROCESSORS: Final = ("as-is", "no-bf16", "no-avx512")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("room", "random numbers and processor")
    group.addoption("--seed", type=int, default=0, help="shifts every random number")
    group.addoption("--threads", type=int, default=1, help="threads that torch may use")
    group.addoption("--processor", choices=PROCESSORS, default="as-is", help="capabilities to hide")


def pytest_configure(config: pytest.Config) -> None:
    # The process that only starts workers and prints runs no test, and need not import torch.
    if not starts_workers(config):
        config.pluginmanager.register(import_module("room"), "room")


def starts_workers(config: pytest.Config) -> bool:
    """Whether this is the process of pytest-xdist that starts the others."""
    is_worker = hasattr(config, "workerinput")
    return (
        not is_worker and config.getoption("dist", "no") != "no" and not config.option.collectonly
    )


settings.register_profile(
    "quick",
    deadline=None,
    derandomize=True,
    max_examples=25,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough", parent=settings.get_profile("quick"), derandomize=False, max_examples=2000
)
settings.load_profile("quick")
