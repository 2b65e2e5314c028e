"""Claims: the rule of each parameter, and errors for rules without weights and weights without rules."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn

from modular_manifolds.adaptation.place import Place, places_of
from modular_manifolds.adaptation.rules import AnyRule, Fallback, Rule, Skip, matches, text_of
from modular_manifolds.errors import ArgumentError, UnconstrainedParameterError

MAX_NAMES_LISTED: Final = 3
"""The number of names in a message."""


@dataclass(frozen=True)
class Claim:
    """A trainable parameter, its names, and its rule.

    Args:
        places: all places of the parameter; the first has its name in `model.named_parameters()`.
        rule: the rule; None for the defaults.
        at: the place that the rule matched.
    """

    places: tuple[Place, ...]
    rule: AnyRule | None
    at: Place

    @property
    def name(self) -> str:
        """The parameter's name in `model.named_parameters()`."""
        return self.places[0].name

    @property
    def aliases(self) -> tuple[str, ...]:
        """The other names of a tied parameter."""
        return tuple(each.name for each in self.places[1:])


def claims_of(model: nn.Module, rules: Sequence[AnyRule] | None) -> list[Claim]:
    """Each trainable parameter with the first rule that matches one of its names.

    Raises:
        ArgumentError: a rule has the wrong type, or matches nothing, only frozen weights, or only weights of earlier
            rules; two different rules claim a tied weight.
        UnconstrainedParameterError: no rule claims a trainable weight.
    """
    places_by_parameter: dict[int, list[Place]] = {}
    for place in places_of(model):
        places_by_parameter.setdefault(id(place.parameter), []).append(place)
    trainable = {
        key: places
        for key, places in places_by_parameter.items()
        if places[0].parameter.requires_grad
    }
    if not places_by_parameter:
        raise ArgumentError(
            "adapt(model)", "must have a weight", "a model without parameters", "Pass a model."
        )
    if not trainable:
        raise ArgumentError(
            "adapt(model)",
            "must have a trainable weight",
            f"{len(places_by_parameter)} parameters, all frozen",
            "Call requires_grad_(True) on the weights to train.",
        )
    if rules is None:
        return [Claim(tuple(places), None, places[0]) for places in trainable.values()]
    checked = _check_rules(rules)
    hits = [
        {
            key: [p for p in places if matches(rule, p.name, p.parameter, p.module)]
            for key, places in places_by_parameter.items()
        }
        for rule in checked
    ]
    claims = [_claim(key, places, checked, hits) for key, places in trainable.items()]
    for index, rule in enumerate(checked):
        if not rule.optional and not any(claim.rule is rule for claim in claims):
            _raise_for_unused_rule(index, checked, hits[index], places_by_parameter, claims)
    return claims


def _check_rules(rules: Sequence[AnyRule]) -> list[AnyRule]:
    if isinstance(rules, Rule | Skip | Fallback) or not isinstance(rules, Sequence | tuple):
        raise ArgumentError(
            "adapt(rules)",
            "must be a list of mm.Rule, mm.Skip and mm.Fallback",
            repr(rules),
            "Put it into a list.",
        )
    for index, each in enumerate(rules):
        if not isinstance(each, Rule | Skip | Fallback):
            raise ArgumentError(
                f"adapt(rules[{index}])",
                "must be an mm.Rule, mm.Skip or mm.Fallback",
                repr(each),
                "Write mm.Rule(match, manifold=..., norm=...).",
            )
    return list(rules)


def _claim(
    key: int,
    places: list[Place],
    rules: list[AnyRule],
    hits: list[dict[int, list[Place]]],
) -> Claim:
    firsts: dict[int, Place] = {}
    for place in places:
        index = next((i for i, each in enumerate(hits) if place in each[key]), None)
        if index is not None:
            firsts.setdefault(index, place)
    if not firsts:
        name = places[0].name
        raise UnconstrainedParameterError(
            f"the weight '{name}'",
            "must be claimed by a rule",
            f"none of {len(rules)} rules; the closest is {_closest_rule(places[0], rules)}",
            f"Add mm.Rule({name!r}), mm.Rule('*') last for the defaults, mm.Skip or mm.Fallback.",
        )
    index, place = min(firsts.items())
    rule = rules[index]
    by_name = isinstance(rule.match, str) and rule.match in {each.name for each in places}
    others = [rules[i] for i in firsts if i != index and not _same_settings(rules[i], rule)]
    if others and not by_name:
        other = next(p for i, p in firsts.items() if rules[i] is others[0])
        raise ArgumentError(
            f"the tied weight '{places[0].name}'",
            "must be claimed by one rule",
            f"{rule} for '{place.name}' and {others[0]} for '{other.name}'",
            f"Put a rule with its full name first, mm.Rule({places[0].name!r}, ...).",
        )
    return Claim(tuple(places), rule, place)


def _same_settings(a: AnyRule, b: AnyRule) -> bool:
    """Whether two rules give a weight the same settings."""
    if type(a) is not type(b):
        return False
    return {**vars(a), "match": "", "optional": False} == {
        **vars(b),
        "match": "",
        "optional": False,
    }


def _raise_for_unused_rule(
    index: int,
    rules: list[AnyRule],
    hits: dict[int, list[Place]],
    places_by_parameter: dict[int, list[Place]],
    claims: list[Claim],
) -> None:
    """Raise an error with the reason why a rule claims nothing."""
    rule = rules[index]
    matched = [places[0] for places in hits.values() if places]
    trainable_places = [place for place in matched if place.parameter.requires_grad]
    remedy = "Or pass optional=True."
    if trainable_places:
        earlier = {
            str(c.rule) for c in claims for p in trainable_places if p.parameter is c.at.parameter
        }
        raise ArgumentError(
            str(rule),
            "must claim a weight",
            f"{len(trainable_places)} matches, all claimed by {' and '.join(sorted(earlier))} before it",
            f"Move it before that rule, or remove it. {remedy}",
        )
    if matched:
        raise ArgumentError(
            str(rule),
            "must match a trainable weight",
            f"{len(matched)} matches, all frozen, such as '{matched[0].name}'",
            f"Call requires_grad_(True) on the weights to train, or remove the rule. {remedy}",
        )
    all_places = [place for places in places_by_parameter.values() for place in places]
    raise ArgumentError(
        str(rule), "must match a weight", "no match", f"{_suggestion(rule, all_places)} {remedy}"
    )


def _suggestion(rule: AnyRule, places: list[Place]) -> str:
    if isinstance(rule.match, str):
        names = _closest_names(rule.match, [place.name for place in places])
        return f"The nearest names are {quote_names(names)}."
    if isinstance(rule.match, type):
        kinds = sorted({type(place.module).__name__ for place in places})
        kinds = difflib.get_close_matches(rule.match.__name__, kinds, MAX_NAMES_LISTED, 0) or kinds
        return f"The modules with weights are {quote_names(kinds[:MAX_NAMES_LISTED])}."
    return f"The names are {quote_names([place.name for place in places[:MAX_NAMES_LISTED]])} and so on."


def _closest_names(pattern: str, names: Sequence[str]) -> list[str]:
    """The names most similar to a pattern; only the first of names that differ in numbers."""
    plain = pattern.replace("*", "")

    def similarity(name: str) -> float:
        tail = name[-len(plain) :] if plain else name
        return max(difflib.SequenceMatcher(None, plain, each).ratio() for each in (name, tail))

    matched: dict[str, str] = {}
    for name in sorted(names, key=similarity, reverse=True):
        matched.setdefault("".join(c for c in name if not c.isdigit()), name)
    return list(matched.values())[:MAX_NAMES_LISTED]


def _closest_rule(place: Place, rules: Sequence[AnyRule]) -> str:
    """The rule whose text is most similar to the name, or the class, of a weight."""
    if not rules:
        return "none"

    def similarity(rule: AnyRule) -> float:
        target = type(place.module).__name__ if isinstance(rule.match, type) else place.name
        text = text_of(rule.match).strip("'").replace("*", "")
        return difflib.SequenceMatcher(None, text, target).ratio()

    return str(max(rules, key=similarity))


def quote_names(names: Sequence[str]) -> str:
    """The first names in quotes, and the number of the others."""
    more = len(names) - MAX_NAMES_LISTED
    text = ", ".join(f"'{name}'" for name in names[:MAX_NAMES_LISTED])
    return f"{text} and {more} more" if more > 0 else text
