"""Track 3 on the CPU: the loop runs with one process and with two, and model and shards are those of the track."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scripts_of_examples import example


@pytest.fixture(scope="module")
def model() -> ModuleType:
    return example("track3_model")


@pytest.fixture(scope="module")
def tokens() -> ModuleType:
    return example("track3_tokens")


@pytest.fixture(scope="module")
def track3(model: ModuleType, tokens: ModuleType) -> ModuleType:
    del model, tokens
    return example("track3")


def test_the_loop_learns(
    track3: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.txt"
    run = track3.main(["--tiny", "--rest", "budget", "--log", str(log)])
    assert run.losses[12] < 2.5 < 3.5 < run.losses[0]
    assert run.reached == 12
    lines = capsys.readouterr().out.splitlines()
    assert lines == log.read_text().splitlines()
    assert lines[-1] == "stiefel, budget, lr 1: 3.28 reached at step 12"
    assert not torch.distributed.is_initialized()


@pytest.mark.long
def test_two_processes_train_as_one_does(track3: ModuleType, tmp_path: Path) -> None:
    alone = track3.main(["--tiny"]).losses
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("track3_processes.py")
    command = [sys.executable, str(script), str(tmp_path), str(port)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert list(first.values()) == pytest.approx(list(alone.values()), abs=1e-3)


def test_the_rate_of_adamw_is_the_tracks(track3: ModuleType, model: ModuleType) -> None:
    network = model.GPT(track3.TINY)
    model.initialise_(network, head_at_zero=True, projections_at_zero=False)
    zeros = [name for name, weight in network.named_parameters() if not weight.any()]
    assert [name for name in zeros if name.endswith("weight")] == ["proj.weight"]
    plan = track3.mm.adapt(network, track3.rules_of(track3.mm.Stiefel(), "adamw"))
    assert len(plan.rows) == 2 * 6
    rates = {name: values["lr"] for name, values in plan.fallbacks().items()}
    assert rates.pop("embed.weight") == 0.3
    assert rates.pop("proj.weight") == 1 / 320
    assert set(rates.values()) == {0.01}


def test_the_schedule_falls_to_zero(track3: ModuleType) -> None:
    factor = track3.stable_then_linear(100)
    assert [factor(step) for step in (0, 30, 65, 100)] == pytest.approx([1.0, 1.0, 0.5, 0.0])


def test_the_model_has_the_tracks_weights(model: ModuleType) -> None:
    with torch.device("meta"):
        network = model.GPT(model.Size())
    block = {
        f"{name}.{kind}"
        for name in ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc", "mlp.proj")
        for kind in ("weight", "bias")
    } | {"norm1.gains", "norm2.gains"}
    names = {f"blocks.{i}.{name}" for i in range(12) for name in block}
    names |= {"embed.weight", "norm1.gains", "norm2.gains", "proj.weight", "proj.bias"}
    assert set(network.state_dict()) == names
    assert sum(p.numel() for p in network.parameters()) == 162_354_816


def test_scores_depend_on_the_distance_alone(model: ModuleType) -> None:
    attention = model.Attention(16, 16)
    q, k = (torch.randn(16).expand(1, 1, 8, 16) for _ in range(2))
    scores = attention._rotated(q) @ attention._rotated(k).mT
    diagonals = [scores[0, 0].diagonal(offset) for offset in range(-7, 8)]
    assert all(torch.allclose(each, each[:1], atol=1e-5) for each in diagonals)
    assert not torch.allclose(scores[0, 0, 0], scores[0, 0, 0, :1], atol=1e-2)


def test_processes_share_a_batch(tokens: ModuleType, tmp_path: Path) -> None:
    for number in (1, 2):
        start = 100 * number
        tokens.write_shard(
            tmp_path / f"x_train_{number}.bin", np.arange(start, start + 20, dtype=np.uint16)
        )
    files = tokens.shards(tmp_path, "train")
    read = [tokens.batches(files, tokens=8, context=2, rank=rank, processes=2) for rank in range(2)]
    for start in (100, 108, 200, 208):
        inputs, targets = zip(*(next(each) for each in read), strict=True)
        assert torch.cat(inputs).flatten().tolist() == list(range(start, start + 8))
        assert torch.equal(torch.cat(targets), torch.cat(inputs) + 1)
    with pytest.raises(SystemExit, match="add shards"):
        next(read[0])


def test_files_that_are_no_shards_are_refused(tokens: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "x_val_0.bin"
    tokens.write_shard(file, np.arange(9, dtype=np.uint16))
    assert tokens.read_shard(file).tolist() == list(range(9))
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(SystemExit, match="must hold 9 tokens, and holds 8"):
        tokens.read_shard(file)
    file.write_bytes(b"text")
    with pytest.raises(SystemExit, match="must begin with 20240520"):
        tokens.read_shard(file)
