"""One file of tensors and data, written whole or not at all, read without unpickling."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from modular_manifolds.errors import CheckpointError
from modular_manifolds.specs.whole import written_whole

FORMAT: Final = 1
KEY: Final = "modular_manifolds"
"""Where in the metadata of the safetensors file our part stands."""


def write_archive(
    path: str | Path, tensors: Mapping[str, Tensor], *, kind: str, content: object
) -> None:
    """Write a safetensors file: the tensors, and `content` as JSON in its metadata.

    The file is written under a temporary name beside `path` and renamed, so that `path` holds the old
    file or the new one at any time, also when the writing is interrupted.

    Args:
        tensors: any dtype that safetensors knows; copied to the CPU.
        kind: what the file is, in one word; `read_archive` asks for it.
        content: anything JSON can hold.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    copies = {
        name: each.detach().to("cpu", copy=True).contiguous() for name, each in tensors.items()
    }
    text = json.dumps(content, allow_nan=False)
    label = {"format": FORMAT, "kind": kind, "crc32": _checksum(copies, text), "content": text}
    try:
        with written_whole(path) as temporary:
            mode = temporary.stat().st_mode
            save_file(copies, temporary, metadata={KEY: json.dumps(label)})
            # safetensors leaves a file that only its owner can read; give it the mode of any new file.
            temporary.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            str(path), "must be a path that can be written", _reason(error), "Check the folder."
        ) from None


def read_archive(path: str | Path, *, kind: str) -> tuple[dict[str, Tensor], Any]:
    """The tensors, on the CPU, and the content of a file that `write_archive` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind or of another format.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            label = _label(path, file.metadata(), kind)
            names = file.keys()
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except OSError as error:
        raise CheckpointError(
            str(path), "must be a readable file", _reason(error), "Check the path."
        ) from None
    except SafetensorError as error:
        remedy = "Use an earlier one, or check the path."
        raise CheckpointError(
            str(path), "must be a whole safetensors file", _reason(error), remedy
        ) from None
    if _checksum(tensors, label["content"]) != label["crc32"]:
        raise CheckpointError(
            str(path),
            "must hold the bytes that were saved",
            "another checksum",
            "The file is damaged: use an earlier one.",
        )
    return tensors, json.loads(label["content"])


def _label(path: str | Path, metadata: Mapping[str, str] | None, kind: str) -> dict[str, Any]:
    remedy = "Pass a file that this library saved."
    try:
        label = json.loads((metadata or {})[KEY])
        found = label["format"], label["kind"]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            str(path), f"must be a {kind} file", "no such metadata", remedy
        ) from None
    if found[0] != FORMAT:
        remedy = "Read it with the version of the library that wrote it."
        raise CheckpointError(str(path), f"must be of format {FORMAT}", found[0], remedy)
    if found[1] != kind:
        raise CheckpointError(str(path), f"must be a {kind} file", f"a {found[1]} file", remedy)
    if not isinstance(label.get("content"), str) or "crc32" not in label:
        raise CheckpointError(str(path), "must name its content", "a damaged label", remedy)
    return label


def _checksum(tensors: Mapping[str, Tensor], text: str) -> int:
    """CRC-32 of the content and of every tensor's name, dtype, shape and bytes."""
    total = zlib.crc32(text.encode())
    for name in sorted(tensors):
        each = tensors[name]
        total = zlib.crc32(f"{name} {each.dtype} {tuple(each.shape)}".encode(), total)
        total = zlib.crc32(each.reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def _reason(error: OSError | SafetensorError) -> str:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split()).rstrip(".")
