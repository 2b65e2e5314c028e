"""The notebook runs from top to bottom, and its kept outputs are those of today's code, numbers aside."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
NOTEBOOK = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run(source: str, names: dict[str, Any]) -> tuple[str, Any]:
    """The printed text of a cell, and the value of its last line."""
    *body, last = ast.parse(source).body
    shown = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        else:
            exec(compile(ast.Module([last], []), "cell", "exec"), names)
    return printed.getvalue(), shown


def shape(text: str) -> str:
    """The text with each number as `#`, and with the spaces and dashes of columns as one."""
    text = re.sub(r"\d+(\.\d+)?(e[+-]\d+)?", "#", text)
    return re.sub(r"\s+", " ", re.sub(r"-{2,}", "-", text)).strip()


def kept(cell: dict[str, Any], kind: str) -> str:
    """The text of this kind among the outputs that the notebook keeps."""
    found = [
        output["text"] if kind == "stream" else output["data"].get(kind, "")
        for output in cell["outputs"]
        if (output["output_type"] == "stream") == (kind == "stream")
    ]
    return "".join("".join(each) for each in found)


def test_the_notebook_runs_and_shows_what_it_keeps() -> None:
    state = torch.get_rng_state()
    names: dict[str, Any] = {"__name__": "__main__"}
    figures, tables = 0, 0
    for cell in CODE:
        printed, shown = run("".join(cell["source"]), names)
        assert shape(printed) == shape(kept(cell, "stream"))
        if hasattr(shown, "_repr_svg_"):
            figures += 1
            assert kept(cell, "image/svg+xml").startswith("<?xml")
            assert "<path" in shown._repr_svg_()
        elif shown is not None:
            tables += 1
            assert shape(str(shown)) == shape(kept(cell, "text/plain"))
            assert shape(shown._repr_html_()) == shape(kept(cell, "text/html"))
    torch.set_rng_state(state)
    assert (figures, tables) == (2, 3)
    assert names["step"] == 10
    assert names["loss"].item() < 1


def test_the_notebook_keeps_nothing_of_a_machine() -> None:
    assert set(NOTEBOOK["metadata"]) == {"kernelspec", "language_info"}
    assert NOTEBOOK["metadata"]["language_info"] == {"name": "python"}
    for number, cell in enumerate(CODE, start=1):
        assert cell["metadata"] == {}
        assert cell["execution_count"] == number
        kinds = {kind for output in cell["outputs"] for kind in output.get("data", {})}
        assert kinds <= {"text/plain", "text/html", "image/svg+xml"}
        for kind in ("stream", "text/plain", "text/html"):
            assert not re.search(r"(?<![<\w])/\w+/|[A-Z]:\\|0x[0-9a-f]{6}", kept(cell, kind))
