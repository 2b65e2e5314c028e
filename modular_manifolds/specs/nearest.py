"""Suggestions for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

LONGEST: Final = 100
"""The largest number of characters of a name that is compared."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'lr'? Known here: lr, momentum.`; the question only if a name is near."""
    names = list(known)
    # A name of a thousand letters is near to none, and to compare it takes long.
    near = (
        []
        if len(name) > LONGEST
        else difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    )
    question = f"Did you mean '{near[0]}'? " if near else ""
    return f"{question}Known here: {', '.join(names) or 'none'}."
