"""A machine that launches nothing and counts: what a call costs a GPU in launches, on tensors without storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import KERNELS
from watched import Watched

WITHOUT_LAUNCH = (
    "alias",
    "detach",
    "diagonal",
    "empty",
    "expand",
    "permute",
    "reshape",
    "select",
    "slice",
    "squeeze",
    "strided",
    "transpose",
    "view",
)
"""Parts of the names of torch's operators that make a view or take memory."""


class _Counters(Mapping[str, Any]):
    """Kernels by name that note a launch and do nothing."""

    def __init__(self, launched: list[str]) -> None:
        self.launched = launched

    def __getitem__(self, name: str) -> Any:
        launched = self.launched

        class Launcher:
            def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
                del grid

                def launch(*arguments: object, **options: object) -> None:
                    del arguments, options
                    launched.append(name)

                return launch

        return Launcher()

    def __iter__(self) -> Iterator[str]:
        return iter(KERNELS)

    def __len__(self) -> int:
        return len(KERNELS)


class _Watch(Watched):
    """Notes torch's own operators that are launches."""

    def __init__(self, launched: list[str]) -> None:
        super().__init__()
        self.launched = launched

    def see(self, func: Any, args: tuple[Any, ...]) -> None:
        del args
        name = str(func).removeprefix("aten.")
        if not any(each in name for each in WITHOUT_LAUNCH):
            self.launched.append(f"torch.{name}")


def launches_of(run: Callable[[Machine], object], target: str = "sm_90") -> dict[str, int]:
    """The launches of a call by name, torch's own included, once what is kept from call to call is there."""
    launched: list[str] = []
    machine = Machine(target, _Counters(launched))
    run(machine)
    launched.clear()
    with _Watch(launched):
        run(machine)
    return dict(Counter(launched))
