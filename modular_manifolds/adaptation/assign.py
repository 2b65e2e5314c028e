"""Assignment: the rows of a plan, one for each logical matrix, from a model and rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from modular_manifolds.adaptation.adapters import adapter_names, is_zero
from modular_manifolds.adaptation.claims import Claim, claims_of
from modular_manifolds.adaptation.defaults import DEFAULTS, Role
from modular_manifolds.adaptation.gains import is_gain_by_name
from modular_manifolds.adaptation.known import ParameterFacts, output_roles, recognise
from modular_manifolds.adaptation.refusals import check_fit, check_model, check_storage
from modular_manifolds.adaptation.row import Row
from modular_manifolds.adaptation.rules import AnyRule, Fallback, Rule, Skip
from modular_manifolds.adaptation.scaling import scale_to_unit_norm
from modular_manifolds.adaptation.split import Split, is_whole
from modular_manifolds.errors import ArgumentError, ModularManifoldsError
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.euclidean import Euclidean
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece


@dataclass(frozen=True)
class Assignment:
    """The treatment of each trainable parameter.

    Args:
        rows: the logical matrices with a geometry.
        fallbacks: the optimiser and its settings, for each parameter that another optimiser steps.
        skipped: the trainable parameters that no optimiser steps.
        rule_manifolds: for each row, the manifold of its rule; None for the default.
    """

    rows: tuple[Row, ...]
    fallbacks: dict[str, dict[str, Any]]
    skipped: tuple[str, ...]
    rule_manifolds: tuple[Manifold | None, ...]


def assign(model: nn.Module, rules: Sequence[AnyRule] | None) -> Assignment:
    """Decide the geometry of every trainable parameter of a model.

    Raises:
        ArgumentError: a rule, a weight or the model breaks a rule; the message is one line.
    """
    check_model(model)
    context = _Context(
        output_roles(model),
        adapter_names(model),
        has_frozen=any(not each.requires_grad for each in model.parameters()),
    )
    drafts: list[_Draft] = []
    fallbacks: dict[str, dict[str, Any]] = {}
    skipped: list[str] = []
    for claim in claims_of(model, rules):
        if isinstance(claim.rule, Skip):
            skipped.append(claim.name)
        elif isinstance(claim.rule, Fallback):
            fallbacks[claim.name] = claim.rule.values()
        else:
            check_storage(claim)
            drafts += _drafts_of(claim, context)
    manifolds = tuple(draft.rule_manifold for draft in drafts)
    return Assignment(_with_masses(drafts), fallbacks, tuple(skipped), manifolds)


@dataclass(frozen=True)
class _Context:
    """The facts about a model on which the roles of its weights depend.

    Args:
        outputs: the roles of the modules that compute the outputs, by their ids.
        adapters: the names of the weights of peft's adapters.
        has_frozen: whether some weights are frozen.
    """

    outputs: Mapping[int, Role]
    adapters: Collection[str]
    has_frozen: bool


@dataclass(frozen=True)
class _Draft:
    """A row before its mass is known, which depends on the number of rows.

    Args:
        row: the row, with mass 0.
        mass: the mass of its rule, if any.
        extra: the mass of the other roles of a tied weight.
        rule_manifold: the manifold of its rule, if any.
    """

    row: Row
    mass: float | None
    extra: float
    rule_manifold: Manifold | None


def _drafts_of(claim: Claim, context: _Context) -> list[_Draft]:
    """The logical matrices of one parameter."""
    rule = claim.rule if isinstance(claim.rule, Rule) else Rule("*")
    facts = [
        recognise(place, outputs=context.outputs, adapters=context.adapters)
        for place in claim.places
    ]
    if context.has_frozen:
        facts = [_as_increment(each, claim.places[0].parameter) for each in facts]
    facts = [_as_ruled(each, rule) for each in facts]
    known = _primary_facts(facts)
    parameter = claim.places[0].parameter
    shape = tuple(parameter.shape)
    where = f"{claim.rule} for '{claim.name}'" if claim.rule is not None else f"'{claim.name}'"
    if known is None:
        if rule.split is None:
            raise ArgumentError(
                f"the weight '{claim.name}'",
                "must have a known division into matrices",
                f"shape {shape} in {type(claim.at.module).__name__}, an unknown module",
                f"If its first dimension counts matrices, add mm.Rule({claim.name!r}, split=mm.Split(experts=True)); "
                "otherwise mm.Fallback, or store it as a matrix.",
            )
        known = ParameterFacts("hidden", None, type(claim.at.module).__name__)
    # A rule for a class concerns the module's matrices; its biases keep the geometry of vectors.
    by_class = isinstance(rule.match, type) and known.role == "vector" and _has_matrix(claim)
    if by_class:
        rule = Rule("*", mass=rule.mass)
    split = _split_of(rule.split, known.split, where=where)
    is_plain = rule.manifold is None and rule.norm is None and split is None
    if known.role == "vector" and len(shape) > 1 and is_plain:
        pieces = (_column(shape),)
    else:
        pieces = _pieces_of(split, known.role, shape, where=where)
    # A tied weight has the mass of all its roles.
    roles: set[Role] = {each.role for each in facts if each is not None}
    extra = sum(DEFAULTS[role].mass for role in roles if role != known.role)
    rule_manifold = rule.manifold or (
        known.geometry.manifold if known.geometry is not None else None
    )
    drafts: list[_Draft] = []
    for piece in pieces:
        logical = shape if piece is None else piece.shape
        if rule.manifold is not None:
            check_fit(rule.manifold, known, logical, where=where, parameter=claim.name)
        geometry = _geometry_of(rule, known, logical, where=where)
        row = Row(
            parameter=claim.name,
            piece=piece,
            shape=logical,
            orientation=_orientation(known.role, split),
            geometry=geometry,
            mass=0.0,
            role=known.role,
            rule=_rule_text(claim, known, rule_has_split=rule.split is not None, vector=by_class),
            aliases=claim.aliases,
        )
        drafts.append(_Draft(row, rule.mass, extra, rule_manifold))
    return drafts


def _as_increment(facts: ParameterFacts | None, parameter: Tensor) -> ParameterFacts | None:
    """The facts about a weight beside frozen ones: a matrix of zeros adds nothing yet, and on a manifold it would."""
    is_matrix = facts is not None and facts.role == "hidden" and facts.geometry is None
    if facts is None or not is_matrix or not is_zero(parameter):
        return facts
    return replace(facts, role="increment", source=f"{facts.source}, zero", by_values=True)


def _as_ruled(facts: ParameterFacts | None, rule: Rule) -> ParameterFacts | None:
    """The facts with a role that agrees with the rule: the values of a weight are a hint, and the rule may say that it is a matrix."""
    if facts is None or not facts.by_values:
        return facts
    has_geometry = rule.manifold is not None or rule.norm is not None
    is_matrix = has_geometry or (rule.split is not None and facts.role == "vector")
    return replace(facts, role="hidden") if is_matrix else facts


def _primary_facts(facts: list[ParameterFacts | None]) -> ParameterFacts | None:
    """The deciding facts for a tied weight: an embedding precedes a head; None if nothing is known."""
    order: list[Role] = [
        "embedding",
        "hidden",
        "unembedding",
        "head",
        "increment",
        "position",
        "vector",
    ]
    known = [each for each in facts if each is not None]
    return min(known, key=lambda each: order.index(each.role), default=None)


def _has_matrix(claim: Claim) -> bool:
    parameters = claim.at.module.parameters(recurse=False)
    return not is_gain_by_name(claim.at) and any(each.dim() >= 2 for each in parameters)


def _split_of(rule_split: Split | None, known: Split | None, *, where: str) -> Split | None:
    """The split of the rule, with the storage order of the module if that is known."""
    if rule_split is None:
        return known
    stored = bool(known.transpose) if known is not None else False
    if rule_split.transpose is None:
        return replace(rule_split, transpose=stored)
    if known is not None and known.transpose is not None and rule_split.transpose != stored:
        order = "(in, out)" if stored else "(out, in)"
        raise ArgumentError(
            f"{where}: Split(transpose)",
            f"must agree with the module, which stores {order}",
            rule_split.transpose,
            "Leave transpose out.",
        )
    return rule_split


def _pieces_of(
    split: Split | None, role: Role, shape: tuple[int, ...], *, where: str
) -> tuple[Piece | None, ...]:
    if split is not None and (split.cuts or role not in ("vector", "embedding", "position")):
        pieces = split.pieces(shape, argument=where)
        return tuple(None if is_whole(each, shape) else each for each in pieces)
    if len(shape) == 0:
        return (Piece("", (1, 1), (), (), (0,), (1,)),)
    if len(shape) <= 2:
        return (None,)
    if role == "hidden":
        return Split().pieces(shape, argument=where)
    # In a table of vectors, or a bias with leading dimensions, the last dimension is a row.
    n = len(shape)
    return (Piece("", shape, (), (), tuple(range(n - 1)), (n - 1,)),)


def _column(shape: tuple[int, ...]) -> Piece:
    """All entries as one column, so that a step of a vector does not depend on the dimensions that it is stored in."""
    return Piece("", shape, (), (), tuple(range(len(shape))), ())


def _geometry_of(
    rule: Rule, known: ParameterFacts, shape: tuple[int, ...], *, where: str
) -> Geometry:
    if known.geometry is not None and rule.manifold is None and rule.norm is None:
        return known.geometry
    default = DEFAULTS[known.role]
    norm = rule.norm or default.norm
    manifold = rule.manifold or (Euclidean() if rule.norm is not None else default.manifold)
    rows, columns = shape[-2:] if len(shape) > 1 else (*shape, 1)
    try:
        scaled = scale_to_unit_norm(manifold, norm, (rows, columns))
        scaled.check_shape(shape, argument="the weight")
        return Geometry(scaled, norm)
    except ModularManifoldsError as error:
        if not isinstance(error, ArgumentError):
            raise
        raise type(error)(
            f"{where}: {error.argument}", error.rule, error.seen, error.remedy
        ) from None


def _orientation(role: Role, split: Split | None) -> str:
    if role in ("vector", "embedding", "position"):
        return "vector" if role == "vector" else "rows"
    return "in×out, transposed" if split is not None and split.transpose else "out×in"


def _rule_text(claim: Claim, known: ParameterFacts, *, rule_has_split: bool, vector: bool) -> str:
    """The rule of a row as a text: the default or the rule, and the source of its split."""
    if claim.rule is None:
        return f"default: {known.role} ({known.source})"
    by_module = known.split is not None and known.split.cuts and not rule_has_split
    extra = "; vectors: default" if vector else f"; split of {known.source}" if by_module else ""
    return f"{claim.rule}{extra}"


def _with_masses(drafts: list[_Draft]) -> tuple[Row, ...]:
    """The rows with their masses: rows without an own mass share the mass of their role equally."""
    counts = Counter(draft.row.role for draft in drafts if draft.mass is None)
    rows: list[Row] = []
    for draft in drafts:
        mass = draft.mass
        if mass is None:
            role = draft.row.role
            mass = DEFAULTS[role].mass / counts[role] + draft.extra
        rows.append(replace(draft.row, mass=mass))
    return tuple(rows)
