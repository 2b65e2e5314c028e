"""Libraries that only some data need, imported when they are asked for."""

from __future__ import annotations

import importlib
from typing import Any

from modular_manifolds.errors import DataError


def library(name: str, *, extra: str, purpose: str) -> Any:
    """The module `name`, which the extra `extra` installs.

    Raises:
        DataError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise DataError(
            purpose,
            f"needs the library '{name}'",
            "no such library",
            f"Run: pip install 'modular-manifolds[{extra}]'.",
        ) from None
