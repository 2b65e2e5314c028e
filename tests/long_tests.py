"""The mark `long`: plain `pytest` leaves these tests out and says how many, `pytest --all` runs them too.

A long test that is named by itself (`pytest tests/file.py::test_name`) runs, and so does one that `-m` asks for. Of a test
with many parameters a few values stay in the plain run, so that it still covers every feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import pytest

T = TypeVar("T")

LEFT_OUT = pytest.StashKey[int]()
"""The number of long tests that were left out; each worker counts the same ones."""


def mostly_long(
    values: Iterable[T], *, usual: Callable[[T], bool] | int, several: bool = False
) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`; all but the usual ones are long.

    Args:
        values: the values.
        usual: whether a value stays in the plain run; or a number k, if every k-th stays.
        several: whether each value is a tuple of several parameters.
    """
    found: list[Any] = []
    for index, value in enumerate(values):
        stays = index % usual == 0 if isinstance(usual, int) else usual(value)
        parameters: Any = value if several else (value,)
        found.append(pytest.param(*parameters, marks=() if stays else pytest.mark.long))
    return found


class Worker(Protocol):
    """A worker of pytest-xdist, as its end is reported."""

    config: pytest.Config
    workeroutput: Mapping[str, Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests marked long too")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin long tests first, so that no worker waits for one at the end; or leave them out."""
    items.sort(key=lambda item: not is_long(item))
    if config.option.all or "long" in config.option.markexpr:
        return
    left_out = [item for item in items if is_long(item) and not is_named(item, config.args)]
    if left_out:
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)
    config.stash[LEFT_OUT] = len(left_out)
    # A worker of pytest-xdist sends this to the process that prints.
    getattr(config, "workeroutput", {})["left_out"] = len(left_out)


def is_long(item: pytest.Item) -> bool:
    return item.get_closest_marker("long") is not None


def is_named(item: pytest.Item, arguments: Sequence[str]) -> bool:
    """Whether an argument `file.py::test` names the test, or the class or function that holds it."""
    _, _, name = item.nodeid.partition("::")
    named = [each.partition("::")[2] for each in arguments if "::" in each]
    return any(name == each or name.startswith((f"{each}::", f"{each}[")) for each in named)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Worker) -> None:
    if hasattr(node, "workeroutput"):
        node.config.stash[LEFT_OUT] = node.workeroutput.get("left_out", 0)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    count = config.stash.get(LEFT_OUT, 0)
    if count:
        tests = "1 long test was" if count == 1 else f"{count} long tests were"
        terminalreporter.write_line(f"{tests} left out. Run every test: pytest --all")
