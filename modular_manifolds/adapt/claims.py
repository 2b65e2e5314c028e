"""Claims: which rule takes which parameter, and every way in which rules and weights can miss each other."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn

from modular_manifolds.adapt.place import Place, places_of
from modular_manifolds.adapt.rules import AnyRule, Fallback, Rule, Skip, matches, text_of
from modular_manifolds.errors import ArgumentError, UnconstrainedParameterError

NAMED: Final = 3
"""The number of names that a message lists."""


@dataclass(frozen=True)
class Claim:
    """A trainable parameter, all of its names, and the rule that takes it.

    Args:
        places: the parameter's places, the first one under its name in `model.named_parameters()`.
        rule: the rule; None if no rules were given and the defaults decide.
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
        ArgumentError: a rule has the wrong type, matches nothing, only frozen weights, or only
            weights that earlier rules took; a tied weight is claimed by two different rules.
        UnconstrainedParameterError: no rule takes a trainable weight.
    """
    tied: dict[int, list[Place]] = {}
    for place in places_of(model):
        tied.setdefault(id(place.parameter), []).append(place)
    trainable = {key: places for key, places in tied.items() if places[0].parameter.requires_grad}
    if not tied:
        raise ArgumentError(
            "adapt(model)", "must have a weight", "a model without parameters", "Pass a model."
        )
    if not trainable:
        raise ArgumentError(
            "adapt(model)",
            "must have a trainable weight",
            f"{len(tied)} parameters, all frozen",
            "Call requires_grad_(True) on the weights that are to learn.",
        )
    if rules is None:
        return [Claim(tuple(places), None, places[0]) for places in trainable.values()]
    checked = _check_rules(rules)
    hits = [
        {
            key: [p for p in places if matches(rule, p.name, p.parameter, p.module)]
            for key, places in tied.items()
        }
        for rule in checked
    ]
    claims = [_claim(key, places, checked, hits) for key, places in trainable.items()]
    for index, rule in enumerate(checked):
        if not rule.optional and not any(claim.rule is rule for claim in claims):
            _explain_idle(index, checked, hits[index], tied, claims)
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
            f"none of {len(rules)} rules; the closest is {_closest(places[0], rules)}",
            f"Add mm.Rule({name!r}), mm.Rule('*') last for the defaults, mm.Skip or mm.Fallback.",
        )
    index, place = min(firsts.items())
    rule = rules[index]
    by_name = isinstance(rule.match, str) and rule.match in {each.name for each in places}
    others = [rules[i] for i in firsts if i != index and not _alike(rules[i], rule)]
    if others and not by_name:
        other = next(p for i, p in firsts.items() if rules[i] is others[0])
        raise ArgumentError(
            f"the tied weight '{places[0].name}'",
            "must be claimed by one rule",
            f"{rule} for '{place.name}' and {others[0]} for '{other.name}'",
            f"Put a rule with its full name first, mm.Rule({places[0].name!r}, ...).",
        )
    return Claim(tuple(places), rule, place)


def _alike(a: AnyRule, b: AnyRule) -> bool:
    """Whether two rules say the same of a weight."""
    if type(a) is not type(b):
        return False
    return {**vars(a), "match": "", "optional": False} == {
        **vars(b),
        "match": "",
        "optional": False,
    }


def _explain_idle(
    index: int,
    rules: list[AnyRule],
    hits: dict[int, list[Place]],
    tied: dict[int, list[Place]],
    claims: list[Claim],
) -> None:
    """Raise for a rule that claims nothing, with the reason."""
    rule = rules[index]
    found = [places[0] for places in hits.values() if places]
    live = [place for place in found if place.parameter.requires_grad]
    remedy = "Or pass optional=True."
    if live:
        earlier = {str(c.rule) for c in claims for p in live if p.parameter is c.at.parameter}
        raise ArgumentError(
            str(rule),
            "must claim a weight",
            f"{len(live)} matches, all taken by {' and '.join(sorted(earlier))} before it",
            f"Move it in front of that rule, or remove it. {remedy}",
        )
    if found:
        raise ArgumentError(
            str(rule),
            "must match a trainable weight",
            f"{len(found)} matches, all frozen, such as '{found[0].name}'",
            f"Call requires_grad_(True) on the weights that are to learn, or remove the rule. {remedy}",
        )
    every = [place for places in tied.values() for place in places]
    raise ArgumentError(
        str(rule), "must match a weight", "no match", f"{_suggestion(rule, every)} {remedy}"
    )


def _suggestion(rule: AnyRule, places: list[Place]) -> str:
    if isinstance(rule.match, str):
        names = _nearest(rule.match, [place.name for place in places])
        return f"The nearest names are {listed(names)}."
    if isinstance(rule.match, type):
        kinds = sorted({type(place.module).__name__ for place in places})
        kinds = difflib.get_close_matches(rule.match.__name__, kinds, NAMED, 0) or kinds
        return f"The weights are held by {listed(kinds[:NAMED])}."
    return f"The names are {listed([place.name for place in places[:NAMED]])} and so on."


def _nearest(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that are most like a pattern; of names that differ in numbers only, the first."""
    plain = pattern.replace("*", "")

    def likeness(name: str) -> float:
        tail = name[-len(plain) :] if plain else name
        return max(difflib.SequenceMatcher(None, plain, each).ratio() for each in (name, tail))

    found: dict[str, str] = {}
    for name in sorted(names, key=likeness, reverse=True):
        found.setdefault("".join(c for c in name if not c.isdigit()), name)
    return list(found.values())[:NAMED]


def _closest(place: Place, rules: Sequence[AnyRule]) -> str:
    """The rule whose text is most like the name, or the class, of a weight."""
    if not rules:
        return "none"

    def likeness(rule: AnyRule) -> float:
        own = type(place.module).__name__ if isinstance(rule.match, type) else place.name
        text = text_of(rule.match).strip("'").replace("*", "")
        return difflib.SequenceMatcher(None, text, own).ratio()

    return str(max(rules, key=likeness))


def listed(names: Sequence[str]) -> str:
    """The first few names in quotes, and how many more there are."""
    more = len(names) - NAMED
    text = ", ".join(f"'{name}'" for name in names[:NAMED])
    return f"{text} and {more} more" if more > 0 else text
