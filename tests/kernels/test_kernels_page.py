"""The page on the kernels shows what its commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from modular_manifolds.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs/kernels.md").read_text()
BLOCKS = re.findall(r"^```console\n\$ (modular-manifolds [^\n]*)\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.mark.parametrize(("command", "shown"), BLOCKS, ids=[command for command, _ in BLOCKS])
def test_the_page_shows_what_is_printed(
    command: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(shlex.split(command)[1:]) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.rstrip().splitlines()]
    assert shown.rstrip().splitlines() == printed


def test_the_page_shows_the_report_and_the_counts() -> None:
    assert len(BLOCKS) == 2
