"""Unclaimed weights of a model: the optimiser refuses to train without one that has a gradient."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from modular_manifolds.errors import UnconstrainedParameterError
from modular_manifolds.nn.composed import Attached
from modular_manifolds.wrappers import unwrapped


class Unclaimed:
    """The weights of a model that are in no parameter group.

    They were frozen when the model was adapted, or came later, as by `load_state_dict(assign=True)`, which puts new parameters
    in the place of the old ones.

    The model is held by a weak reference, so a pickled optimiser does not contain it. A copied optimiser keeps the list of
    unclaimed weights.

    Args:
        net: the optimiser's `params`. Bare parameters have no such weights.
    """

    def __init__(self, net: Any) -> None:
        self._weights: list[tuple[str, Tensor]] = []
        self._skipped: frozenset[str] = frozenset()
        self._model: weakref.ref[nn.Module] | None = None
        self._is_adapted = isinstance(net, Attached)
        if isinstance(net, Attached):
            self._skipped = frozenset(net.skipped)
            self._model = weakref.ref(net.model)
        elif isinstance(network := unwrapped(net), nn.Module):
            self._model = weakref.ref(network)

    def refresh(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Update the list after a group was added or a weight was replaced."""
        model = None if self._model is None else self._model()
        known = self._weights if model is None else list(model.named_parameters())
        claimed = {id(each) for group in groups for each in group["params"]}
        self._weights = [
            (name, weight)
            for name, weight in known
            if id(weight) not in claimed and name not in self._skipped
        ]

    def check(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Refuse a step that would ignore a weight with a gradient.

        Raises:
            UnconstrainedParameterError: the message names the weight.
        """
        if self._first_learning() is None:
            return
        # A new group may hold it.
        self.refresh(groups)
        name = self._first_learning()
        if name is not None and not self._is_adapted:
            raise UnconstrainedParameterError(
                f"the weight '{name}'",
                "must be one that the optimiser was built on",
                "a gradient of a parameter that was put into the network later",
                "Build the optimiser afterwards, or load values by net.load_state_dict(state) without assign=True.",
            )
        if name is not None:
            raise UnconstrainedParameterError(
                f"the weight '{name}'",
                "must be in the plan before it is trained",
                "a gradient of a weight that was frozen or missing when the model was adapted",
                "Adapt the model while all of it is trainable and freeze it afterwards, pass the weight to "
                "opt.add_param_group, or name it in an mm.Skip.",
            )

    def _first_learning(self) -> str | None:
        """The name of the first unclaimed trainable weight with a gradient; None if there is none."""
        for name, weight in self._weights:
            if weight.grad is not None and weight.requires_grad:
                return name
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_model": None}
