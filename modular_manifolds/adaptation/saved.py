"""Plans as JSON text, with names instead of patterns; reading checks that the model has the same weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from modular_manifolds.adaptation.claims import quote_names
from modular_manifolds.adaptation.row import Row
from modular_manifolds.adaptation.shares import By
from modular_manifolds.errors import ArgumentError
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece
from modular_manifolds.norms.base import Norm
from modular_manifolds.values import values_of

FORMAT: Final = 1
"""The version of the text."""


@dataclass(frozen=True)
class PlanData:
    """The content of a plan, without the model.

    Args:
        rows: one row for each logical matrix.
        fallbacks: the optimiser and its settings, for each parameter that another optimiser steps.
        skipped: trainable parameters that no optimiser steps.
        by: the split of the learning rate.
    """

    rows: Sequence[Row]
    fallbacks: Mapping[str, Mapping[str, Any]]
    skipped: Sequence[str]
    by: By


def plan_text(saved: PlanData, model: nn.Module) -> str:
    """The plan as JSON: the name, piece, geometry, mass and response of each logical matrix."""
    parameters = dict(model.named_parameters())
    rows = [
        {
            "name": row.name,
            "parameter": row.parameter,
            "stored": list(parameters[row.parameter].shape),
            "piece": None if row.piece is None else row.piece.values(),
            "orientation": row.orientation,
            "manifold": row.geometry.manifold.values(),
            "norm": row.geometry.norm.values(),
            "mass": row.mass,
            "role": row.role,
            "response": row.response,
            "aliases": list(row.aliases),
        }
        for row in saved.rows
    ]
    return json.dumps(
        {
            "format": FORMAT,
            "by": saved.by,
            "rows": rows,
            "fallbacks": {name: dict(each) for name, each in saved.fallbacks.items()},
            "skipped": list(saved.skipped),
        },
        indent=1,
    )


def read_plan(text: str, network: nn.Module) -> PlanData:
    """Read the text of `plan_text`, for a model with the same weights.

    Raises:
        ArgumentError: as `ModelPlan.from_json`.
    """
    try:
        values = json.loads(text, object_pairs_hook=_unique)
        if values["format"] != FORMAT:
            raise ArgumentError(
                "from_json(text)",
                f"must be of format {FORMAT}",
                values["format"],
                "Read it with the version of the library that wrote it.",
            )
        _check_same(values, network)
        parameters = dict(network.named_parameters())
        rows = tuple(_row(each, parameters) for each in values["rows"])
        return PlanData(rows, values["fallbacks"], tuple(values["skipped"]), values["by"])
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ArgumentError(
            "from_json(text)",
            "must be the text of plan.to_json()",
            f"{type(error).__name__}: {error}",
            "Pass the whole text.",
        ) from None


def _row(values: Mapping[str, Any], parameters: Mapping[str, nn.Parameter]) -> Row:
    piece = None if values["piece"] is None else Piece.from_values(values["piece"])
    stored = tuple(parameters[values["parameter"]].shape)
    geometry = Geometry(_instance(Manifold, values["manifold"]), _instance(Norm, values["norm"]))
    return Row(
        parameter=values["parameter"],
        piece=piece,
        shape=stored if piece is None else piece.shape,
        orientation=values["orientation"],
        geometry=geometry,
        mass=values["mass"],
        role=values["role"],
        rule="saved",
        response=values["response"],
        aliases=tuple(values["aliases"]),
    )


def _check_same(values: Mapping[str, Any], model: nn.Module) -> None:
    """Refuse a model whose trainable weights differ from those of the plan."""
    names = [row["name"] for row in values["rows"]]
    duplicates = (
        sorted({name for name in names if names.count(name) > 1})
        if len(names) > len(set(names))
        else []
    )
    if duplicates:
        raise ArgumentError(
            "from_json(text)",
            "must name each logical matrix once",
            f"{quote_names(duplicates)} twice",
            "Pass the text as plan.to_json() wrote it.",
        )
    shapes = {name: list(p.shape) for name, p in model.named_parameters()}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    stored = {row["parameter"]: row["stored"] for row in values["rows"]}
    planned = set(stored) | set(values["fallbacks"]) | set(values["skipped"])
    missing = sorted(planned - set(shapes))
    extra = sorted(trainable - planned)
    frozen = sorted((set(stored) | set(values["fallbacks"])) & set(shapes) - trainable)
    changed = [n for n, shape in stored.items() if n in shapes and shapes[n] != list(shape)]
    differences = [
        f"{verb} {quote_names(found)}"
        for verb, found in (("lacks", missing), ("also has", extra), ("has frozen", frozen))
        if found
    ]
    differences += [
        f"has '{n}' of shape {tuple(shapes[n])}, not {tuple(stored[n])}" for n in changed[:3]
    ]
    if differences:
        raise ArgumentError(
            "from_json(model)",
            "must have the weights of the plan",
            f"a model that {', '.join(differences)}",
            "Build the model of the plan, or call mm.adapt again.",
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    duplicates = (
        next((name for name in names if names.count(name) > 1), None)
        if len(set(names)) < len(names)
        else None
    )
    if duplicates is not None:
        raise ArgumentError(
            "from_json(text)",
            "must have each name once",
            f"'{duplicates}' twice",
            "Pass the text as plan.to_json() wrote it.",
        )
    return dict(pairs)


def _instance(base: type[Any], values: Mapping[str, Any]) -> Any:
    """The manifold or norm with these values; its class must have been imported."""
    fields = dict(values)
    name = fields.pop("name")
    for kind in _subclasses(base):
        try:
            instance = kind(**fields)
        except TypeError:
            continue
        if values_of(instance)["name"] == name:
            return instance
    raise ArgumentError(
        "from_json(text)",
        f"must name a known {base.__name__}",
        repr(name),
        "Import the module that defines it first.",
    )


def _subclasses(base: type[Any]) -> list[type[Any]]:
    kinds: list[type[Any]] = []
    for kind in base.__subclasses__():
        kinds += [kind, *_subclasses(kind)]
    return kinds
