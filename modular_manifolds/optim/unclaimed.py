"""Weights of an adapted model that the plan has not claimed: one that begins to learn must not be left out silently."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from modular_manifolds.errors import UnconstrainedParameterError
from modular_manifolds.nn.composed import Attached


class Unclaimed:
    """The weights of a model that no parameter group holds: those that were frozen when the model was adapted.

    The model is known by a weak reference, so an optimiser is pickled without it. A copy of an optimiser goes on with the
    weights that were unclaimed then.

    Args:
        net: what the optimiser is built on. Declared networks and bare parameters have no such weights.
    """

    def __init__(self, net: Any) -> None:
        self._weights: list[tuple[str, Tensor]] = []
        self._skipped: frozenset[str] = frozenset()
        self._model: weakref.ref[nn.Module] | None = None
        if isinstance(net, Attached):
            self._skipped = frozenset(net.skipped)
            self._model = weakref.ref(net.model)

    def look_again(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Find the unclaimed weights anew, after a group was added or a weight was replaced."""
        model = None if self._model is None else self._model()
        known = self._weights if model is None else list(model.named_parameters())
        claimed = {id(each) for group in groups for each in group["params"]}
        self._weights = [
            (name, weight)
            for name, weight in known
            if id(weight) not in claimed and name not in self._skipped
        ]

    def check(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Refuse a step that would leave out a weight with a gradient.

        Raises:
            UnconstrainedParameterError: the message names the weight.
        """
        if self._learning() is None:
            return
        # A group may have been added for it since.
        self.look_again(groups)
        name = self._learning()
        if name is not None:
            raise UnconstrainedParameterError(
                f"the weight '{name}'",
                "must be claimed by the plan before it learns",
                "a gradient for a weight that was frozen, or was not there, when the model was adapted",
                "Adapt the model while all of it is trainable and freeze it afterwards, pass the weight to "
                "opt.add_param_group, or name it in an mm.Skip.",
            )

    def _learning(self) -> str | None:
        """The name of an unclaimed weight that is trainable and has a gradient."""
        for name, weight in self._weights:
            if weight.grad is not None and weight.requires_grad:
                return name
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {"_weights": self._weights, "_skipped": self._skipped, "_model": None}
