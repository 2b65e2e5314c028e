"""Conversion of earlier state dicts, with one parameter group for each weight, to the current format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

SETTINGS = ("momentum", "nesterov", "tangent_momentum", "noise_damping", "weight_decay")
LATER_SETTINGS = {"noise_damping": False}
"""Settings that the oldest state dicts lack, with the values that they imply."""

Refuse = Callable[[str, object], None]


def is_former(saved: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the groups have the earlier keys: `name`, and no `param_names`."""
    return all("name" in group and "param_names" not in group for group in saved)


def from_one_group_a_weight(
    saved: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]], *, refuse: Refuse
) -> list[dict[str, Any]]:
    """The saved groups in the current format.

    All weights of one current group must have had the same settings. If their rates differed, the shares are rescaled, so
    that every weight steps as far as before. Other entries, such as a scheduler's, come from the first weight.

    Args:
        saved: the earlier groups, one for each weight.
        groups: the current groups of the same network.
        refuse: raises an error from the rule and the value seen.
    """
    names = [name for group in groups for name in group["param_names"]]
    by_name = {group["name"]: {**LATER_SETTINGS, **group} for group in saved}
    if sorted(by_name) != sorted(names) or len(saved) != len(names):
        refuse(
            f"must be for the weights {', '.join(names)}",
            ", ".join(str(group["name"]) for group in saved),
        )
    return [
        _merge_groups([by_name[name] for name in group["param_names"]], group, refuse)
        for group in groups
    ]


def _merge_groups(
    former: Sequence[Mapping[str, Any]], group: Mapping[str, Any], refuse: Refuse
) -> dict[str, Any]:
    first = former[0]
    for each in former:
        if len(each["params"]) != 1:
            refuse(f"must hold one weight in the group '{each['name']}'", len(each["params"]))
        for key in SETTINGS:
            # The check of the settings reports missing keys.
            if key in each and key in first and each[key] != first[key]:
                refuse(
                    f"must have one {key} for '{first['name']}' and '{each['name']}', which are one group now",
                    f"{first[key]} and {each[key]}",
                )
    kept = {key: value for key, value in first.items() if key not in ("name", "share", "shape")}
    return {
        **kept,
        "params": [each["params"][0] for each in former],
        "param_names": list(group["param_names"]),
        # The oldest state dicts have no shapes.
        "shapes": [
            list(each.get("shape", shape))
            for each, shape in zip(former, group["shapes"], strict=True)
        ],
        "shares": [_share(each, first) for each in former],
        "manifold": group["manifold"],
        "norm": group["norm"],
    }


def _share(each: Mapping[str, Any], first: Mapping[str, Any]) -> Any:
    if each["lr"] == first["lr"] or not first["lr"]:
        return each["share"]
    return each["share"] * each["lr"] / first["lr"]
