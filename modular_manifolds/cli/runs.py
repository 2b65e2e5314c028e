"""The run that the arguments of a command describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from modular_manifolds.specs import RunSpec


def read_run_spec(file: Path | None, assignments: Sequence[str]) -> RunSpec:
    """The run in `file`, or the default one, with `key=value` assignments applied."""
    spec = RunSpec() if file is None else RunSpec.from_file(file)
    return spec.override(assignments) if assignments else spec


def merge_assignments(named: Mapping[str, object], assignments: Sequence[str] | None) -> list[str]:
    """Assignments from named options, followed by the explicit assignments, which take precedence."""
    options = [f"{key}={value}" for key, value in named.items() if value is not None]
    return [*options, *(assignments or ())]
