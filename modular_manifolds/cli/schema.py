"""`modular-manifolds schema`: the JSON Schema of run files and network files."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated

import typer


class Kind(Enum):
    """The kinds of specification files."""

    run = "run"
    network = "network"


def schema(
    kind: Annotated[Kind, typer.Argument(help="The kind of file.")] = Kind.run,
) -> None:
    """Print the JSON Schema of a run or a network, for editors and other programs."""
    from modular_manifolds.specs import NetworkSpec, RunSpec

    model = RunSpec if kind is Kind.run else NetworkSpec
    print(json.dumps(model.model_json_schema(), indent=2))
