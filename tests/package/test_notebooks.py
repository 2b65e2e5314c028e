"""Reports in a notebook: the same tables as in print, in HTML; and their figures."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import modular_manifolds as mm
from modular_manifolds.tables import Printable, Table


class Cells(HTMLParser):
    """The texts of all cells and paragraphs, in order, and the names of all tags."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data)


def read(html: str) -> Cells:
    found = Cells()
    found.feed(html)
    return found


@pytest.fixture(scope="module")
def reports() -> dict[str, Printable]:
    generator = torch.Generator().manual_seed(0)
    net = (
        mm.Linear(6, 8, manifold=mm.Stiefel(), norm=mm.Spectral())
        >> mm.ReLU()
        >> mm.Linear(8, 3, manifold=mm.Stiefel(), norm=mm.Spectral())
    )
    point = mm.Stiefel().project(torch.randn(6, 3, generator=generator))
    points, labels = torch.randn(5, 6, generator=generator), torch.tensor([0, 1, 2, 0, 1])
    return {
        "budget": mm.budget(net, lr=0.1),
        "plan": mm.adapt(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))),
        "lipschitz": mm.lipschitz(net),
        "conditioning": mm.conditioning(net),
        "activations": mm.activations(net, radius=2.0),
        "robustness": mm.robustness(net, points, labels, radii=(0.1,)),
        "local": mm.local_lipschitz(net, torch.zeros(6), radius=1e-6),
        "solution": mm.steepest(mm.Stiefel(), mm.Spectral(), point, torch.randn(6, 3)),
        "choice": mm.solvers.select(mm.Stiefel(), mm.Spectral(), (6, 3)),
    }


REPORTS = [
    *("budget", "plan", "lipschitz", "conditioning", "activations"),
    *("robustness", "local", "solution", "choice"),
]


@pytest.mark.parametrize("name", REPORTS)
def test_a_notebook_shows_the_words_and_numbers_of_print(
    name: str, reports: dict[str, Printable]
) -> None:
    report = reports[name]
    html = report._repr_html_()  # pyright: ignore[reportPrivateUsage]
    found = read(html)
    words = " ".join(found.texts).split()
    assert words == [word for word in str(report).split() if set(word) != {"-"} or word == "-"]
    assert ("table" in found.tags) == (name not in ("local", "choice"))
    assert "color:" not in html
    assert "background" not in html


def test_ipython_prints_the_text(reports: dict[str, Printable]) -> None:
    report = reports["budget"]
    bundle = report._repr_mimebundle_(include=None, exclude=None)  # pyright: ignore[reportPrivateUsage]
    assert bundle == {"text/plain": str(report)}


def test_text_of_a_table_is_escaped() -> None:
    table = Table(["<b>"], [["x < y & z"], ["<script>"]])
    assert read(table.to_html()).texts == ["<b>", "x < y & z", "<script>"]
    assert read(table.to_html()).tags == {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("name", ["budget", "plan", "conditioning", "robustness"])
def test_a_figure_names_its_rows(name: str, reports: dict[str, Any]) -> None:
    figure = mm.plot(reports[name])
    (axis,) = figure.axes
    if name == "robustness":
        assert axis.get_title() == "Certified accuracy"
        return
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == [row.name if name == "plan" else row.path for row in reports[name].rows]


def test_plot_is_listed_and_comes_when_it_is_asked_for() -> None:
    assert "plot" in dir(mm)
    assert mm.plot.__module__ == "modular_manifolds.training.plot"
    with pytest.raises(AttributeError, match="has no attribute 'plots'"):
        getattr(mm, "plots")  # noqa: B009


def test_bars_are_as_long_as_the_steps(reports: dict[str, Any]) -> None:
    (axis,) = mm.plot(reports["budget"]).axes
    lengths = [patch.get_width() for patch in axis.patches]  # pyright: ignore[reportAttributeAccessIssue]
    assert lengths == [row.step for row in reports["budget"].rows]


def test_a_weight_without_rank_has_its_place_in_the_figure() -> None:
    net = mm.Linear(4, 3, manifold=mm.Euclidean()) >> mm.Linear(3, 2, manifold=mm.Euclidean())
    with torch.no_grad():
        net.get_parameter("0.weight").zero_()
    (axis,) = mm.plot(mm.conditioning(net)).axes
    assert axis.get_xscale() == "log"
    with torch.no_grad():
        net.get_parameter("1.weight").zero_()
    (axis,) = mm.plot(mm.conditioning(net)).axes
    assert axis.get_xscale() == "linear"


def test_a_run_is_drawn_from_its_folder(tmp_path: Path) -> None:
    run = mm.RunSpec().resolved(64, 10)
    (tmp_path / "run.yaml").write_text(run.to_yaml(), encoding="utf-8")
    with pytest.raises(mm.errors.ArgumentError, match="has taken steps"):
        mm.plot(tmp_path)
    rows = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 1.5},
        {
            **{"step": 2, "epoch": 1, "train_loss": 1.4, "test_loss": 1.6},
            **{"train_accuracy": 0.6, "test_accuracy": 0.5},
        },
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    left, right = mm.plot(str(tmp_path)).axes
    assert list(left.lines[0].get_ydata()) == [2.0, 1.5]  # pyright: ignore[reportArgumentType]
    assert list(right.lines[1].get_ydata()) == [50.0]  # pyright: ignore[reportArgumentType]


def test_what_has_no_figure_is_refused_in_words(reports: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(mm.errors.ArgumentError, match="or a run directory, got LipschitzReport"):
        mm.plot(reports["lipschitz"])
    with pytest.raises(mm.errors.ArgumentError, match="must have a row, got no weights"):
        mm.plot(mm.budget(mm.ReLU()))
    with pytest.raises(mm.errors.CheckpointError, match="must be a run directory"):
        mm.plot(tmp_path)
