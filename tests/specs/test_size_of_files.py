"""Files of others that ask for more than a machine has are refused before a tensor is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from large import nested
from safetensors.torch import save_file

import modular_manifolds as mm
from modular_manifolds.errors import CheckpointError, DataError
from modular_manifolds.specs import archive, memory
from modular_manifolds.specs.archive import write_archive


class TestFilesOfOthers:
    """`mm.load` of a file that somebody else wrote reads no tensor before its sizes are known to be right."""

    @pytest.fixture(autouse=True)
    def no_tensor_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("a tensor was read")

        monkeypatch.setattr(archive, "_checksum", refuse)

    def write(self, path: Path, content: object, weight: torch.Tensor) -> None:
        text = json.dumps(content)
        label = {"format": 1, "kind": "network", "crc32": 0, "content": text}
        save_file({"weight": weight}, path, metadata={archive.KEY: json.dumps(label)})

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"type": "linear", "in_features": 10**8, "out_features": 10**8}, "entries in its weights"),
            ({"type": "power", "times": 10**6, "module": "relu"}, "at most 10,000 modules"),
            ({"type": "linear", "in_features": 10**30, "out_features": 2}, "below 2^64"),
            ({"type": "linear", "in_features": 2, "out_features": 3}, r"must be a real (3, 2), got torch.float32 (2, 2)"),
            (nested(150), "lists and mappings deep"),
        ],
    )  # fmt: skip
    def test_sizes_that_do_not_fit(self, tmp_path: Path, content: object, message: str) -> None:
        path = tmp_path / "net"
        self.write(path, content, torch.eye(2))
        with pytest.raises(CheckpointError) as caught:
            mm.load(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert message in str(caught.value)

    @pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint8, torch.bool])
    def test_dtypes_that_no_weight_has(self, tmp_path: Path, dtype: torch.dtype) -> None:
        path = tmp_path / "net"
        self.write(
            path, {"type": "linear", "in_features": 2, "out_features": 2}, torch.eye(2).to(dtype)
        )
        with pytest.raises(CheckpointError, match=r"'weight' must be a real \(2, 2\), got "):
            mm.load(path)

    def test_content_that_is_no_json(self, tmp_path: Path) -> None:
        for text in ("{", "[" * 100_000):
            label = {"format": 1, "kind": "network", "crc32": 0, "content": text}
            metadata = {archive.KEY: json.dumps(label)}
            save_file({"weight": torch.eye(2)}, tmp_path / "net", metadata=metadata)
            with pytest.raises(CheckpointError, match="must hold data that JSON can read"):
                mm.load(tmp_path / "net")


def test_a_file_with_bytes_behind_its_end_is_refused(tmp_path: Path) -> None:
    mm.save(mm.Linear(3, 2), tmp_path / "net")
    with (tmp_path / "net").open("ab") as file:
        file.write(b"\0" * 64)
    with pytest.raises(CheckpointError, match="must be a whole safetensors file"):
        mm.load(tmp_path / "net")


def test_a_file_larger_than_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(tmp_path / "a", {"x": torch.zeros(1000)}, kind="checkpoint", content=None)
    monkeypatch.setattr(memory, "machine_memory", lambda: 4000)
    with pytest.raises(CheckpointError, match=r"must fit into the 3\.91 KiB of memory here"):
        archive.read_archive(tmp_path / "a", kind="checkpoint")


def test_a_text_larger_than_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("a" * 5000, encoding="utf-8")
    monkeypatch.setattr(memory, "machine_memory", lambda: 10_000)
    from modular_manifolds.training.data import read_data

    run = mm.RunSpec().override(["data.name=text", f"data.path={tmp_path / 'a.txt'}"])
    with pytest.raises(DataError, match=r"must fit into the 9\.77 KiB of memory here"):
        read_data(run.data)
