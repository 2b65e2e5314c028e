"""The launch of a run by torchrun, as its environment tells it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modular_manifolds.errors import SpecError
from modular_manifolds.specs.run import Parallel

VARIABLES: Final = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""The variables that torchrun sets for each process."""
COMMAND: Final = "torchrun --nproc-per-node 2 -m modular_manifolds train"


@dataclass(frozen=True)
class Launch:
    """This process in its launch.

    Args:
        rank: the number of this process, from 0.
        count: the number of all processes.
        local_rank: its number on its machine, which is also that of its GPU.
        max_restarts: how often torchrun starts all processes again after one has failed.
        complete: whether all variables of torchrun are set.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    max_restarts: int = 0
    complete: bool = False

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Launch:
        """The launch of this process; without torchrun it is alone."""
        return cls(
            rank=_number(environment, "RANK", 0),
            count=_number(environment, "WORLD_SIZE", 1),
            local_rank=_number(environment, "LOCAL_RANK", 0),
            max_restarts=_number(environment, "TORCHELASTIC_MAX_RESTARTS", 0),
            complete=all(name in environment for name in VARIABLES),
        )

    def check(self, parallel: Parallel) -> None:
        """Refuse a run that does not fit the launch.

        Raises:
            SpecError: several processes were started for a run of one, or a run of several without torchrun.
        """
        if parallel == "none" and self.count > 1:
            raise SpecError(
                "parallel",
                "must be ddp or fsdp if several processes train",
                f"none in one of {self.count} processes",
                "Add --set parallel=ddp, or start the run without torchrun.",
            )
        if parallel != "none" and not self.complete:
            raise SpecError(
                "parallel",
                "must be none without torchrun",
                parallel,
                f"Start the run as `{COMMAND} …`, or leave parallel out.",
            )

    @property
    def prefix(self) -> str:
        """The start of a command that launches as many processes again."""
        if not self.complete:
            return "modular-manifolds"
        return f"torchrun --nproc-per-node {self.count} -m modular_manifolds"


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else default
