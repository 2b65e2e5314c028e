"""Rules: the geometries of a model's weights, by names, classes or predicates."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

from modular_manifolds.adaptation.split import Split
from modular_manifolds.arguments import NOT_NEGATIVE, POSITIVE, check_number
from modular_manifolds.errors import ArgumentError
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm

Predicate: TypeAlias = Callable[[str, nn.Parameter, nn.Module], bool]
Match: TypeAlias = str | type[nn.Module] | Predicate
"""A glob on the dotted name of a parameter, a module class, or a predicate `f(name, parameter, module)`."""


@dataclass(frozen=True)
class Rule:
    """A geometry for the weights that `match` selects.

    Args:
        match: a glob on the dotted parameter name, in which `*` also matches dots; a module class, for the direct parameters
            of its modules; or a predicate `f(name, parameter, module) -> bool`. If the modules of a class have a matrix and
            a bias, `manifold`, `norm` and `split` concern the matrix, and the bias takes the default of vectors.
        manifold: in units of the norm: points of radius r have norm r. For example, `Stiefel(radius=2.0)` with
            `RMSOperator()` has singular values `2 √(out/in)`. None for the default, or `Euclidean` if only a norm is given.
        norm: None for the default norm of the weight's role.
        mass: the mass of each logical matrix of the rule; None for the default.
        split: the division of the stored tensor into logical matrices; None for the known split of the module.
        optional: whether the rule may match nothing.

    Raises:
        ArgumentError: an argument has the wrong type, or the mass is not positive.
    """

    match: Match
    manifold: Manifold | None = None
    norm: Norm | None = None
    mass: float | None = None
    split: Split | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        _check_match(self.match, rule="Rule")
        for name, kind, example in (
            ("manifold", Manifold, "mm.Stiefel()"),
            ("norm", Norm, "mm.RMSOperator()"),
            ("split", Split, "mm.Split(heads=12)"),
        ):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ArgumentError(
                    f"{self}({name})",
                    f"must be a {kind.__name__} or None",
                    repr(value),
                    f"Pass an instance such as {example}.",
                )
        if self.mass is not None:
            check_number(
                self.mass,
                POSITIVE,
                argument=f"{self}(mass)",
                remedy="Use mm.Skip for weights that must not move.",
            )

    def __str__(self) -> str:
        return f"Rule({text_of(self.match)})"


@dataclass(frozen=True)
class Skip:
    """Trainable weights that the optimiser does not step."""

    match: Match
    optional: bool = False

    def __post_init__(self) -> None:
        _check_match(self.match, rule="Skip")

    def __str__(self) -> str:
        return f"Skip({text_of(self.match)})"


@dataclass(frozen=True)
class Fallback:
    """Weights without a geometry: torch's AdamW steps them.

    Args:
        match: as for `Rule`.
        lr: AdamW's learning rate. It is required, because its unit differs from the optimiser's.
        betas: how much of the running means of gradients and of their squares a step keeps.
        eps: the number added to AdamW's denominator.
        weight_decay: λ of `w ← (1 − lr · λ) w`.
        optional: whether the rule may match nothing.
    """

    match: Match
    lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0
    optional: bool = False

    def __post_init__(self) -> None:
        _check_match(self.match, rule="Fallback")
        if self.lr is None:
            raise ArgumentError(
                f"{self}(lr)",
                "must be given, because its unit differs from the optimiser's learning rate",
                "nothing",
                "Write mm.Fallback(..., lr=3e-4), for example.",
            )
        for name, value in (
            ("lr", self.lr),
            ("eps", self.eps),
            ("weight_decay", self.weight_decay),
        ):
            check_number(
                value, NOT_NEGATIVE, argument=f"{self}({name})", remedy="See torch.optim.AdamW."
            )
        if len(self.betas) != 2 or not all(0 <= each < 1 for each in self.betas):
            raise ArgumentError(
                f"{self}(betas)",
                "must be two numbers in [0, 1)",
                repr(self.betas),
                "Pass a pair such as (0.9, 0.95).",
            )

    def values(self) -> dict[str, Any]:
        """The optimiser and its settings, as JSON values."""
        return {
            "optimizer": "adamw",
            "lr": self.lr,
            "betas": [float(each) for each in self.betas],
            "eps": self.eps,
            "weight_decay": self.weight_decay,
        }

    def __str__(self) -> str:
        return f"Fallback({text_of(self.match)})"


AnyRule: TypeAlias = Rule | Skip | Fallback


def matches(rule: AnyRule, name: str, parameter: nn.Parameter, module: nn.Module) -> bool:
    """Whether the rule's `match` selects this parameter.

    Raises:
        ArgumentError: a predicate raised an error, or returned no bool.
    """
    match = rule.match
    if isinstance(match, str):
        return fnmatch.fnmatchcase(name, match)
    if isinstance(match, type):
        return isinstance(module, match)
    try:
        is_match = match(name, parameter, module)
    except Exception as error:
        raise ArgumentError(
            str(rule),
            "must have a predicate that accepts every weight",
            f"{type(error).__name__} for '{name}': {error}",
            "Write a function of (name, parameter, module) that returns True or False.",
        ) from error
    if not isinstance(is_match, bool):
        raise ArgumentError(
            str(rule),
            "must have a predicate that returns True or False",
            f"{is_match!r} for '{name}'",
            "Put bool(...) around the result of the predicate.",
        )
    return is_match


def text_of(match: Match) -> str:
    """The text of a match for tables and messages."""
    if isinstance(match, str):
        return repr(match)
    return getattr(match, "__name__", type(match).__name__)


def _check_match(match: Any, *, rule: str) -> None:
    module_class = isinstance(match, type) and issubclass(match, nn.Module)
    predicate = callable(match) and not isinstance(match, type | nn.Module)
    if not (isinstance(match, str) or module_class or predicate):
        raise ArgumentError(
            f"{rule}(match)",
            "must be a glob on parameter names, a subclass of torch.nn.Module, or a predicate",
            repr(match)
            if not isinstance(match, nn.Module)
            else f"a module, {type(match).__name__}",
            "Write a name such as '*.attn.c_attn.weight', or a class such as nn.Linear.",
        )
