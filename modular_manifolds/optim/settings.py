"""Checks of the optimiser's settings, in the constructor and at every step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from torch import Tensor

from modular_manifolds.arguments import NOT_NEGATIVE, Range, check_number
from modular_manifolds.errors import ArgumentError
from modular_manifolds.linalg.matrices import readable
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import logical_name
from modular_manifolds.optim.fallback import check_fallback
from modular_manifolds.optim.groups import (
    geometry_values,
    is_fallback,
    names_in,
    pieces_in,
    shares_in,
)
from modular_manifolds.optim.rates import LONGEST_STEP, RATE_REMEDY, check_rate
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.selection import find_solver

SHARE_REMEDY: Final = "Pass the weight's fraction of the learning rate, or 0 to freeze it."
MOMENTUM: Final = Range("must lie in [0, 1)", lambda x: 0 <= x < 1)
NUMBERS: Final[dict[str, tuple[Range, str]]] = {
    "momentum": (MOMENTUM, "Pass a momentum such as 0.95, or 0 for none."),
    "weight_decay": (NOT_NEGATIVE, "Pass 0 for none."),
}
"""The range of each numeric setting, and the remedy for other values."""

FLAGS: Final = ("nesterov", "tangent_momentum", "noise_damping")
LISTS: Final = ("param_names", "shapes", "shares")
"""The keys of a group with one value for each parameter."""

REQUIRED: Final = ("lr", *NUMBERS, *FLAGS, *LISTS, "manifold", "norm")

FORMER_KEYS: Final = {"share": "shares", "name": "param_names", "shape": "shapes"}
"""Earlier keys of a group, which was one weight, and the lists that replace them."""


def check_choices(
    geometries: Mapping[str, Geometry], *, solver: str | Solver, on_nonfinite: str
) -> None:
    """Refuse a solver that is not listed for every weight's pair, or an unknown `on_nonfinite`."""
    if on_nonfinite not in ("raise", "skip"):
        raise ArgumentError(
            "on_nonfinite", "must be 'raise' or 'skip'", repr(on_nonfinite), "Leave it at 'raise'."
        )
    for geometry in set(geometries.values()):
        find_solver(geometry.manifold, geometry.norm, solver)


def check_settings(settings: Mapping[str, Any], geometries: Mapping[str, Geometry]) -> None:
    """Refuse constructor arguments that are out of range or have no effect. This waits for an `lr` on a device."""
    lr = check_rate(settings["lr"], argument="lr")
    if isinstance(lr, Tensor):
        check_number(float(lr), NOT_NEGATIVE, argument="lr", remedy=RATE_REMEDY)
    for name, (allowed, remedy) in NUMBERS.items():
        check_number(settings[name], allowed, argument=name, remedy=remedy)
    _check_combinations(settings, geometries, prefix="")


def check_groups(groups: Sequence[dict[str, Any]], geometries: Mapping[str, Geometry]) -> None:
    """Check every group by the constructor's rules, because schedulers, state dicts and users write into groups.

    Numbers become Python floats in place, so that a state dict is JSON-able; a rate may stay a tensor.

    Raises:
        ArgumentError: the message names the group, its weights, the setting and the value.
    """
    for index, group in enumerate(groups):
        if not _is_valid(group, geometries):
            _check_group(index, group, geometries)


def check_geometry(
    index: int, group: Mapping[str, Any], geometries: Mapping[str, Geometry]
) -> None:
    """Refuse a group with unknown weights, or with another `manifold` or `norm` than its weights have."""
    if is_fallback(group):
        return
    for name, own in _geometries_in(index, group, geometries):
        for key, value in geometry_values(own).items():
            if group[key] != value:
                raise ArgumentError(
                    f"param_groups[{index}]: {key}",
                    f"must be {value}, the {key} of '{name}'",
                    group[key],
                    "The geometry is fixed at construction: build a new optimizer for another one.",
                )


def _geometries_in(
    index: int, group: Mapping[str, Any], geometries: Mapping[str, Geometry]
) -> Iterator[tuple[str, list[Geometry]]]:
    """The name of each parameter of a group, with its geometries: one if all its pieces agree, else one for each piece."""
    for place, path in enumerate(group["param_names"]):
        names = [logical_name(path, piece) for piece in pieces_in(group, place)]
        for name in names:
            _check_name(index, name, geometries)
        own = [geometries[name] for name in names]
        yield path, own[:1] if len(set(own)) == 1 else own


def _check_name(index: int, name: Any, geometries: Mapping[str, Geometry]) -> None:
    if name not in geometries:
        raise ArgumentError(
            f"param_groups[{index}]: param_names",
            f"must be among {', '.join(geometries)}",
            repr(name),
            "Put back the names of the network's weights.",
        )


def _is_valid(group: Mapping[str, Any], geometries: Mapping[str, Geometry]) -> bool:
    """A quick test that every setting has its type and range, so that `_check_group` need not run."""
    if is_fallback(group):
        return False
    try:
        lr, shares, momentum = group["lr"], group["shares"], group["momentum"]
        if isinstance(lr, Tensor) and lr.dim() == 0 and lr.is_floating_point():
            # The device checks a rate that the host cannot read.
            lr = lr.item() if readable(lr) else 0.0
        valid = bool(
            type(lr) is type(momentum) is type(group["weight_decay"]) is float
            and _may_decay(group, geometries)
            and 0.0 <= momentum < 1.0
            and (momentum > 0.0 or not (group["nesterov"] or group["noise_damping"]))
            and len(shares) == len(group["params"]) == len(group["param_names"])
            and type(group["nesterov"]) is type(group["tangent_momentum"]) is bool
            and type(group["noise_damping"]) is bool
            and ("shapes" in group and "manifold" in group and "norm" in group)
            and not ("share" in group or "name" in group or "shape" in group)
        )
        if not valid or lr < 0.0:
            return False
        if group.get("pieces"):
            shares = shares_in(group)
        # A rate of NaN fails with every share.
        return all(type(share) is float and 0.0 <= share * lr < LONGEST_STEP for share in shares)
    except (KeyError, TypeError):
        return False


def _may_decay(group: Mapping[str, Any], geometries: Mapping[str, Geometry]) -> bool:
    decay = group["weight_decay"]
    return decay == 0.0 or (
        0.0 < decay < math.inf
        and not any(geometries[name].manifold.fixed_size for name in names_in(group))
    )


def _check_group(index: int, group: dict[str, Any], geometries: Mapping[str, Geometry]) -> None:
    prefix = f"param_groups[{index}] of {_quoted(group.get('param_names'))}: "
    for former, now in FORMER_KEYS.items():
        if former in group:
            raise ArgumentError(
                f"{prefix}{former}",
                f"is not a key of a group: {now} is, a list with one value for each parameter",
                repr(group[former]),
                f"Remove it, and write into group['{now}'].",
            )
    other = is_fallback(group)
    for name in ("lr", "param_names", "shapes") if other else REQUIRED:
        if name not in group:
            raise ArgumentError(
                f"{prefix}{name}", "must be set", "nothing", "Put back the removed key."
            )
    for name in LISTS[:2] if other else LISTS:
        count = len(group[name]) if isinstance(group[name], list | tuple) else repr(group[name])
        if count != len(group["params"]):
            raise ArgumentError(
                f"{prefix}{name}",
                f"must be a list of one value for each of the {len(group['params'])} parameters",
                count,
                "Put back the removed values.",
            )
    lr = group["lr"] = check_rate(group["lr"], argument=f"{prefix}lr")
    if other:
        check_fallback(group, prefix=prefix)
        return
    names = names_in(group)
    for name in names:
        _check_name(index, name, geometries)
    for name, (allowed, remedy) in NUMBERS.items():
        group[name] = check_number(group[name], allowed, argument=prefix + name, remedy=remedy)
    for name in FLAGS:
        group[name] = bool(group[name])
    group["shares"] = [
        _check_shares(share, lr, index, group, place) for place, share in enumerate(group["shares"])
    ]
    _check_combinations(group, {name: geometries[name] for name in names}, prefix=prefix)


def _check_shares(
    shares: Any, lr: Tensor | float, index: int, group: Mapping[str, Any], place: int
) -> float | list[float]:
    """Check the share of one parameter, or the list of its pieces' shares."""
    name, count = group["param_names"][place], len(pieces_in(group, place))
    argument = f"param_groups[{index}] of '{name}': "
    if count == 1 and not isinstance(shares, list | tuple):
        return _check_share(shares, lr, argument=argument, place=place)
    if not isinstance(shares, list | tuple) or len(shares) != count:
        raise ArgumentError(
            f"{argument}shares[{place}]",
            f"must be a list of one share for each of the {count} pieces",
            repr(shares),
            "Put back the removed values.",
        )
    return [_check_share(each, lr, argument=argument, place=place) for each in shares]


def _check_share(share: Any, lr: Tensor | float, *, argument: str, place: int) -> float:
    share = check_number(
        share, NOT_NEGATIVE, argument=f"{argument}shares[{place}]", remedy=SHARE_REMEDY
    )
    if isinstance(lr, Tensor) and not readable(lr):
        return share
    length = float(lr) * share
    if not length < LONGEST_STEP:
        raise ArgumentError(
            f"{argument}lr · share",
            f"must be below {LONGEST_STEP:g}, because longer steps overflow float32",
            repr(length),
            "Lower lr or share.",
        )
    return share


def _quoted(names: Any) -> str:
    """The first three names of a list, for a message."""
    if not isinstance(names, list | tuple):
        return repr(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + more


def _check_combinations(
    settings: Mapping[str, Any], geometries: Mapping[str, Geometry], *, prefix: str
) -> None:
    """Check rules about two settings, or about a setting and a manifold."""
    for name in ("nesterov", "noise_damping"):
        if settings[name] and settings["momentum"] == 0:
            raise ArgumentError(
                f"{prefix}{name}", "needs momentum", "momentum=0", "Pass momentum=0.95."
            )
    if not settings["weight_decay"]:
        return
    for path, geometry in geometries.items():
        if geometry.manifold.fixed_size:
            raise ArgumentError(
                f"{prefix}weight_decay",
                f"must be 0 if weights have a fixed size: on {geometry.manifold} the decay is "
                "normal to the manifold and has no effect",
                f"{settings['weight_decay']} with '{path}' on {geometry.manifold}",
                "Leave it out: the manifold already bounds the weight.",
            )
