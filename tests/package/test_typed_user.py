"""The typed program of a user runs: its types are the checkers' to judge, its calls are tried here."""

from __future__ import annotations

from pathlib import Path

import typed_user


def test_the_typed_program_runs(tmp_path: Path) -> None:
    typed_user.main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"net.safetensors", "plan.png"}
