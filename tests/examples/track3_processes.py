"""Two processes train track 3's small model, as torchrun would start them; each prints its losses as JSON to a file.

python track3_processes.py FOLDER PORT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from scripts_of_examples import example
from torch.multiprocessing.spawn import start_processes

for name in ("track3_tokens", "track3_model"):
    example(name)
track3 = example("track3")


def _rank(rank: int, folder: str, port: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(track3.main(["--tiny"]).losses))


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    start_processes(_rank, tuple(sys.argv[1:]), nprocs=2, start_method="fork")
