"""The meeting of the processes of a run: a store of keys that no earlier start of the run has written."""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta
from typing import Any, Final

from torch.distributed import PrefixStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

from modular_manifolds.errors import ProcessError

POLL_SECONDS: Final = 0.01
"""The seconds between two looks into the store."""


def fresh_store(rank: int, count: int, timeout: timedelta) -> Any:
    """The store of torchrun's processes, under a name that is new at each start.

    torchrun keeps one store over its restarts. In it lie the addresses of processes that have ended, and a process that
    starts early would try to reach one of those. The count of restarts is no name, because machines may differ in it.

    Every process writes a random word, process 0 lists the words that it reads under a name, and a process takes the name
    once its own word is in the list. Process 0 goes on until all have taken it. So a word of an earlier start is never
    taken for one of this start.

    Raises:
        ProcessError: not all processes have come in time.
    """
    store, rank, count = next(iter(rendezvous("env://", rank, count, timeout=timeout)))
    meeting = PrefixStore("modular_manifolds", store)
    end = time.monotonic() + timeout.total_seconds()
    own = uuid.uuid4().hex
    meet = _take if rank else _invite
    if rank:
        meeting.set(f"word {rank}", own)
    while time.monotonic() < end:
        name = meet(meeting, own, rank, count)
        if name is not None:
            return PrefixStore(name, store)
        time.sleep(POLL_SECONDS)
    raise ProcessError(
        f"process {rank}",
        f"must meet all {count} processes of its run",
        f"fewer in {timeout.total_seconds():g} s",
        "Look at the errors of the others.",
    )


def _invite(meeting: Any, own: str, _: int, count: int) -> str | None:
    """Process 0: list the words under the name `own`; the name if all have taken it."""
    others = range(1, count)
    keys = [key for rank in others if meeting.check([key := f"word {rank}"])]
    words = [meeting.get(key).decode() for key in keys]
    meeting.set("list", json.dumps([own, words]))
    return own if all(meeting.check([f"{own} {rank}"]) for rank in others) else None


def _take(meeting: Any, own: str, rank: int, _: int) -> str | None:
    """Another process: the name of the list that holds its word."""
    if not meeting.check(["list"]):
        return None
    name, words = json.loads(meeting.get("list"))
    if own not in words:
        return None
    meeting.set(f"{name} {rank}", "taken")
    return name
