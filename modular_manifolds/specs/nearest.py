"""Suggestions for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

MAX_NAME_LENGTH: Final = 100
"""The largest number of characters of a name that is compared."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """A text such as `Did you mean 'lr'? Known here: lr, momentum.`, with the question only for a similar name."""
    names = list(known)
    # Comparing very long names is slow, and they are similar to none.
    similar = (
        []
        if len(name) > MAX_NAME_LENGTH
        else difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    )
    question = f"Did you mean '{similar[0]}'? " if similar else ""
    return f"{question}Known here: {', '.join(names) or 'none'}."
