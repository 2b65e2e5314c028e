"""A dispatch mode that shows each operator to a method before it runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Watched(TorchDispatchMode):
    """While it is entered, every operator is shown to `see` and then runs as without it."""

    @abstractmethod
    def see(self, func: Any, args: tuple[Any, ...]) -> None:
        """Count an operator, keep it, or refuse it by an error."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        self.see(func, args)
        return func(*args, **(kwargs or {}))
