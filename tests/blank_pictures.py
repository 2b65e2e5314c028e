"""Runs without the pictures of their reports."""

from __future__ import annotations

import pytest

FIGURES = ("learning", "singular_values", "split", "bounds", "certified")
"""The functions that draw the pictures of a report."""


def leave_out_pictures(patch: pytest.MonkeyPatch) -> None:
    """Reports and sweeps with blank pictures: to draw them takes most of the time of a short run.

    Those of a report are together larger than 100,000 characters, and each alone is smaller.
    """
    blank = f"<?xml version='1.0'?><svg>{30_000 * ' '}</svg>"
    for name in FIGURES:
        patch.setattr(f"modular_manifolds.training.figures.{name}", lambda *_: None)
    patch.setattr("modular_manifolds.training.figures.as_svg", lambda _: blank)
    patch.setattr("modular_manifolds.training.sweep.figure.transfer", lambda _: blank)
