"""Adapters: small trainable weights beside frozen ones, which start without an effect and must not get one by adapting."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Final

import torch
from torch import Tensor, nn

from modular_manifolds.adaptation.place import Place
from modular_manifolds.adaptation.split import Split
from modular_manifolds.nn.sharded import whole

FACTORS: Final = ("lora_B", "lora_E")
"""The other factors of the product that `lora_A` belongs to: one of them is zero at the start of most adapters."""


def adapter_names(model: nn.Module) -> frozenset[str]:
    """The names that layers of peft list as those of their adapters' weights, such as `hada_w1_a`."""
    listed = (getattr(each, "adapter_layer_names", ()) for each in model.modules())
    return frozenset(name for names in listed if isinstance(names, tuple) for name in names)


def increment_of(place: Place, names: Collection[str]) -> tuple[Split, str] | None:
    """The split of a weight that must start where it is, and the word that tells; None for other weights.

    These are LoRA's B, its A if the product BA is not zero (as in PiSSA, or an adapter that was trained before), and all
    other weights of peft's adapters.

    Args:
        names: the result of `adapter_names`.
    """
    words = (place.module_name, *place.module_names[1:2], place.attribute)
    for word in words:
        if word == "lora_embedding_A":
            # Embeddings store A as (rank, tokens).
            return Split(transpose=True), word
        if word in ("lora_B", "lora_embedding_B"):
            return Split(), word
        if word == "lora_A":
            return (
                None
                if _product_is_zero(place)
                else (Split(), f"{word}, of a product that is not zero")
            )
    found = next((word for word in words if word in names), None)
    return None if found is None else (Split(), found)


def is_first_factor(place: Place) -> bool:
    """Whether a weight is LoRA's A (rank, in)."""
    return "lora_A" in (place.module_name, *place.module_names[1:2], place.attribute)


@torch.no_grad()
def is_zero(parameter: Tensor) -> bool:
    """Whether all entries of a weight are zero."""
    return not bool(whole(parameter.detach()).any())


def _product_is_zero(place: Place) -> bool:
    """Whether another factor of the product is zero, or none is known."""
    root = place.parents[-1] if place.parents else place.module
    factors: list[Tensor] = []
    for word in FACTORS:
        with suppress(AttributeError):
            factors.append(root.get_parameter(place.name.replace("lora_A", word)))
    return not factors or any(map(is_zero, factors))
