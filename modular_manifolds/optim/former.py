"""State dicts of the time when every weight was a parameter group of its own, in today's format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

SETTINGS = ("momentum", "nesterov", "tangent_momentum", "noise_damping", "weight_decay")
LATER = {"noise_damping": False}
"""Settings that the oldest state dicts do not have, with the value that they stand for."""

Refuse = Callable[[str, object], None]


def is_former(saved: Sequence[Mapping[str, Any]]) -> bool:
    """Whether groups have the former keys: a name and a share, and no list of names."""
    return all("name" in group and "param_names" not in group for group in saved)


def from_one_group_a_weight(
    saved: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]], *, refuse: Refuse
) -> list[dict[str, Any]]:
    """Today's groups, with the settings of the former ones, which were one for each weight.

    The weights of one of today's groups must have had the same settings. If their rates differed, the shares make up
    for it, so that every weight steps as far as before. Other entries, such as a scheduler's, are those of the first weight.

    Args:
        saved: the former groups.
        groups: today's groups of the same network.
        refuse: called with the rule and the value seen if they do not fit.
    """
    names = [name for group in groups for name in group["param_names"]]
    by_name = {group["name"]: {**LATER, **group} for group in saved}
    if sorted(by_name) != sorted(names) or len(saved) != len(names):
        refuse(
            f"must be for the weights {', '.join(names)}",
            ", ".join(str(group["name"]) for group in saved),
        )
    return [
        _joined([by_name[name] for name in group["param_names"]], group, refuse) for group in groups
    ]


def _joined(
    former: Sequence[Mapping[str, Any]], group: Mapping[str, Any], refuse: Refuse
) -> dict[str, Any]:
    first = former[0]
    for each in former:
        if len(each["params"]) != 1:
            refuse(f"must hold one weight in the group '{each['name']}'", len(each["params"]))
        for key in SETTINGS:
            # What is missing is told in the words of the settings.
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
        # The oldest have no shapes; their tensors tell.
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
