"""The run that the arguments of a command describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from modular_manifolds.arguments import check_unlike
from modular_manifolds.errors import ArgumentError
from modular_manifolds.specs import RunSpec


def read_run_spec(file: Path | None, assignments: Sequence[str]) -> RunSpec:
    """The run in `file`, or the default one, with `key=value` assignments applied.

    Raises:
        ArgumentError: an assignment would have no effect beside another one.
        SpecError: the file cannot be read, a key is not known, or a value is out of range.
    """
    keys = keys_of(assignments)
    check_unlike(keys, argument="the command", what="key")
    if "epochs" in keys and "steps" in keys:
        raise ArgumentError(
            "steps", "must stand in the place of epochs", "both", "Leave one of the two out."
        )
    spec = RunSpec() if file is None else RunSpec.from_file(file)
    return spec.override(assignments) if assignments else spec


def keys_of(assignments: Sequence[str]) -> list[str]:
    """The dotted keys of `key=value` assignments."""
    return [each.partition("=")[0].strip() for each in assignments]


def merge_assignments(named: Mapping[str, object], assignments: Sequence[str] | None) -> list[str]:
    """Assignments from named options, followed by the explicit assignments."""
    options = [f"{key}={value}" for key, value in named.items() if value is not None]
    return [*options, *(assignments or ())]
