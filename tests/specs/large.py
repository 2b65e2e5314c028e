"""Networks of any size, written down."""

from __future__ import annotations

from typing import Any


def network(text: str) -> str:
    return f"network: {text}"


def nested(levels: int, around: Any = 1) -> Any:
    data = around
    for _ in range(levels):
        data = [data]
    return data
