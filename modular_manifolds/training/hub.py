"""Data sets of the Hugging Face hub, through the library datasets. No code of a data set is run."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modular_manifolds.errors import DataError
from modular_manifolds.specs.data_sizes import HUB
from modular_manifolds.training.extras import library


@contextmanager
def quiet_datasets(purpose: str) -> Iterator[Any]:
    """The library datasets, without its own progress bars while inside."""
    datasets = library("datasets", extra="datasets", purpose=purpose)
    quiet = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield datasets
    finally:
        if not quiet:
            datasets.enable_progress_bars()


def from_hub(path: str) -> dict[str, Any]:
    """The parts of the data set `hf:NAME` or `hf:NAME:CONFIGURATION`, by name, each a table.

    Raises:
        DataError: it cannot be loaded, as without a network, or it has no part `train`.
    """
    name, _, configuration = path.removeprefix(HUB).partition(":")
    with quiet_datasets(f"data {path}") as datasets:
        options: dict[str, Any] = {}
        if "trust_remote_code" in inspect.signature(datasets.load_dataset).parameters:
            # Older versions ask their user whether to run the code of a data set.
            options["trust_remote_code"] = False
        try:
            found = datasets.load_dataset(name, configuration or None, **options)
        # Errors of the network are of as many kinds as there are libraries below this one.
        except Exception as error:
            raise DataError(
                f"data {path}",
                "must be a data set that can be loaded, from the network or from the cache",
                f"{type(error).__name__}: {' '.join(str(error).split())[:160]}",
                "Check the name and the network, or download its files and pass their folder.",
            ) from None
    if "train" not in found:
        raise DataError(
            f"data {path}",
            "must have a part train",
            ", ".join(map(str, found)),
            "Choose a configuration that has one: hf:NAME:CONFIGURATION.",
        )
    return dict(found)


def column(table: Any, *names: str, setting: str, where: str) -> Any:
    """The first of the columns `names` that a table has.

    Raises:
        DataError: it has none of them; the message lists those that it has.
    """
    name = next((each for each in names if each in table.column_names), None)
    if name is None:
        raise DataError(
            where,
            f"must have the column {' or '.join(names)}",
            ", ".join(table.column_names),
            f"Name the column with {setting}.",
        )
    return table[name]
