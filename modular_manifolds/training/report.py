"""The report of a run: one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jinja2

from modular_manifolds.specs.whole import write_whole
from modular_manifolds.tables import Table
from modular_manifolds.training import figures
from modular_manifolds.training.data import DataSet
from modular_manifolds.training.guarantees import (
    Guarantees,
    certified_predictions,
    guarantees,
)
from modular_manifolds.training.loop import Trainer
from modular_manifolds.training.sampling import TEMPERATURE, write
from modular_manifolds.training.text import Text

POINTS = 1000
"""Test examples whose predictions are certified for the report."""


def write_report(trainer: Trainer, watch: Callable[[str], None] = lambda _: None) -> Guarantees:
    """Write `report.html` of a run as it stands and its pictures as files; return the evidence in it.

    Of a run on text also `sample.txt`, what the network writes. `watch` is told of each stage before it begins.
    """
    session = trainer.session
    net, data = trainer.network, session.data
    points, predictions, sample = None, None, None
    if isinstance(data, DataSet):
        watch("certified predictions")
        points = data.test.images
        predictions = certified_predictions(net, data, points=POINTS)
    elif isinstance(data, Text):
        watch("a sample of text")
        sample = write(net, data.spec, seed=session.spec.seed)
        write_whole(trainer.directory.sample, sample)
    watch("bounds of the network")
    found = guarantees(net, session.spec.optimizer.lr, points)
    watch("pictures")
    metrics = trainer.directory.read_metrics()
    last = next((row for row in reversed(metrics) if "test_accuracy" in row), None)
    drawn = {
        "learning": figures.learning(metrics),
        "singular_values": figures.singular_values(trainer.initial, net),
        "split": figures.split(found.budget),
        "bounds": figures.bounds(found.lipschitz, found.activations),
    }
    if predictions is not None:
        drawn["certified"] = figures.certified(predictions)
    pictures = {name: figures.as_svg(figure) for name, figure in drawn.items()}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("modular_manifolds.training", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        spec=session.spec,
        steps=session.finished,
        all_steps=session.steps,
        version=version("modular-manifolds"),
        train_examples=len(data.train_sample),
        test_examples=len(data.test),
        train_loss=_number(last, "train_loss"),
        test_loss=_number(last, "test_loss"),
        train_accuracy=_percent(last, "train_accuracy"),
        test_accuracy=_percent(last, "test_accuracy"),
        guarantees=found,
        figures={name: _inline(svg) for name, svg in pictures.items()},
        budget=Table(found.budget.header(), found.budget.cells()),
        verdict=found.budget.verdict.split("; "),
        conditioning=Table(found.conditioning.header(), found.conditioning.cells()),
        predictions=predictions and Table(predictions.header(), predictions.cells()),
        certified_notes=predictions and predictions.notes(),
        lipschitz=Table(found.lipschitz.header(), found.lipschitz.cells()),
        activations=Table(found.activations.header(), found.activations.cells()),
        sample=sample,
        unit=data.spec.unit if isinstance(data, Text) else None,
        temperature=TEMPERATURE,
        run_yaml=session.spec.to_yaml(),
    )
    trainer.directory.pictures.mkdir(exist_ok=True)
    for name, svg in pictures.items():
        write_whole(trainer.directory.pictures / f"{name}.svg", svg)
    write_whole(trainer.directory.report, html)
    return found


def _number(row: dict[str, Any] | None, key: str) -> str:
    return "–" if row is None else f"{row[key]:.4f}"


def _percent(row: dict[str, Any] | None, key: str) -> str:
    return "–" if row is None else f"{100 * row[key]:.1f} %"


def _inline(svg: str) -> str:
    """As an image, so that the ids of one picture cannot meet those of another."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
