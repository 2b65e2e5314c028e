"""The rules of an optimiser's settings, in the constructor and again at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from modular_manifolds.arguments import NOT_NEGATIVE, Range, check_number
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.select import find_solver

NUMBERS: Final[dict[str, tuple[Range, str]]] = {
    "lr": (NOT_NEGATIVE, "Pass a learning rate such as 0.1."),
    "share": (NOT_NEGATIVE, "Pass the weight's part of the learning rate, or 0 to freeze it."),
    "momentum": (
        Range("must lie in [0, 1)", lambda x: 0 <= x < 1),
        "Pass a momentum such as 0.95, or 0 for none.",
    ),
    "weight_decay": (NOT_NEGATIVE, "Pass 0 for none."),
}
"""For each setting that is a number: its range, and the remedy if it is outside."""

FLAGS: Final = ("nesterov", "tangent_momentum", "noise_damping")

SHARE: Final = list(NUMBERS).index("share")
TYPES: Final = [float] * (len(NUMBERS) - 1) + [bool] * len(FLAGS)
"""The types of all settings but the share."""

LONGEST_STEP: Final = 1e30
"""A step of this length in the weight's norm is refused: its entries would leave the range of float32."""


def check_choices(
    geometries: Mapping[str, Geometry], *, solver: str | Solver, on_nonfinite: str
) -> None:
    """Refuse a solver that some weight's pair does not list, or an unknown `on_nonfinite`."""
    if on_nonfinite not in ("raise", "skip"):
        raise ArgumentError(
            "on_nonfinite", "must be 'raise' or 'skip'", repr(on_nonfinite), "Leave it at 'raise'."
        )
    for geometry in set(geometries.values()):
        find_solver(geometry.manifold, geometry.norm, solver)


def check_settings(settings: Mapping[str, Any], geometries: Mapping[str, Geometry]) -> None:
    """Refuse constructor arguments that are out of range or would do nothing."""
    for name in settings.keys() & NUMBERS.keys():
        within, remedy = NUMBERS[name]
        check_number(settings[name], within, argument=name, remedy=remedy)
    _check_together(settings, geometries, prefix="")


def check_groups(groups: Sequence[dict[str, Any]], geometries: Mapping[str, Geometry]) -> None:
    """Hold every group to the constructor's rules: schedulers, state dicts and users write into groups.

    Numbers become Python floats in place, so that a state dict stays JSON-able.

    Raises:
        ArgumentError: it names the group, its weight, the setting and the value.
    """
    accepted: list[Any] = []
    for index, group in enumerate(groups):
        settings = [group.get(name) for name in (*NUMBERS, *FLAGS)]
        # Groups mostly have equal settings and differ in the share, which is the last number.
        share = settings.pop(SHARE)
        usual = [*map(type, settings)] == TYPES and settings == accepted and type(share) is float
        usual = usual and group.get("name") in geometries
        if not usual or group["weight_decay"] or not 0.0 <= share * group["lr"] < LONGEST_STEP:
            _check_group(index, group, geometries)
            accepted = [group[name] for name in (*NUMBERS, *FLAGS) if name != "share"]


def _check_group(index: int, group: dict[str, Any], geometries: Mapping[str, Geometry]) -> None:
    path = str(group.get("name"))
    prefix = f"param_groups[{index}] of '{path}': "
    for name in (*NUMBERS, *FLAGS):
        if name not in group:
            raise ArgumentError(
                f"{prefix}{name}", "must be set", "nothing", "Put back what was removed."
            )
    if path not in geometries:
        raise ArgumentError(
            f"param_groups[{index}]: name",
            f"must be one of {', '.join(geometries)}",
            repr(path),
            "Put back what was changed.",
        )
    for name, (within, remedy) in NUMBERS.items():
        group[name] = check_number(group[name], within, argument=prefix + name, remedy=remedy)
    for name in FLAGS:
        group[name] = bool(group[name])
    length = group["lr"] * group["share"]
    if not length < LONGEST_STEP:
        raise ArgumentError(
            f"{prefix}lr · share",
            f"must be below {LONGEST_STEP:g}, the longest step that float32 can hold",
            repr(length),
            "Lower lr or share.",
        )
    _check_together(group, {path: geometries[path]}, prefix=prefix)


def _check_together(
    settings: Mapping[str, Any], geometries: Mapping[str, Geometry], *, prefix: str
) -> None:
    """The rules about two settings, or about a setting and a manifold."""
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
                f"must be 0 where a weight has a fixed size: on {geometry.manifold} the decay is "
                "normal to the manifold and does nothing",
                f"{settings['weight_decay']} with '{path}' on {geometry.manifold}",
                "Leave it out; the manifold already bounds the weight.",
            )
