"""`modular-manifolds lipschitz`: bounds of a trained or a declared network, and certified predictions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from modular_manifolds.cli.console import open_console
from modular_manifolds.cli.robustness import Question, check_predictions, show
from modular_manifolds.composition.space import Space, VectorNorm, check_vector_norm, conversion
from modular_manifolds.errors import ArgumentError
from modular_manifolds.specs.data import ImagesName

if TYPE_CHECKING:
    from modular_manifolds.certificates import LipschitzReport, RobustnessReport
    from modular_manifolds.nn import Module
    from modular_manifolds.specs import RunSpec


def lipschitz(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="A run directory, or a run file (YAML or JSON). Default: the default run."
        ),
    ] = None,
    input_norm: Annotated[
        str | None, typer.Option(help="rms, l2, l1 or linf. Default: the network's own.")
    ] = None,
    output_norm: Annotated[
        str | None, typer.Option(help="rms, l2, l1 or linf. Default: the network's own.")
    ] = None,
    input_radius: Annotated[
        float | None,
        typer.Option(
            help="The largest norm of an input, in the input norm; the bounds hold for such inputs."
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.svg",
            help="Draw the measured and certified slope and size of each module.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(get_args(ImagesName)),
            help="Certify predictions on the test examples of this data set. Default: the run's own.",
        ),
    ] = None,
    data_path: Annotated[
        Path | None, typer.Option(help="A folder with the data's Parquet files.")
    ] = None,
    radius: Annotated[
        list[str] | None,
        typer.Option(
            help="An l2 radius such as 0.5, in addition to 36/255, 72/255 and 108/255; repeatable."
        ),
    ] = None,
    points: Annotated[
        int | None, typer.Option(help="The number of test examples. Default: the first 1000.")
    ] = None,
    attack: Annotated[
        bool | None,
        typer.Option(
            "--attack/--no-attack",
            help="Whether to attack the points as well, which takes most of the time. Default: attack.",
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the reports as JSON.")
    ] = None,
) -> None:
    """Print a network's Lipschitz bounds: declared, certified, and the largest slope found.

    The network comes from the last checkpoint of a run directory, or has new random weights for a run file. With
    --data, or another option about predictions, the command also prints certified accuracies at l2 radii.
    """
    from modular_manifolds.certificates import lipschitz as bounds
    from modular_manifolds.certificates.bounds import check_radius
    from modular_manifolds.cli.runs import read_run_spec
    from modular_manifolds.cli.tables import show_table
    from modular_manifolds.specs.size import TO_BUILD
    from modular_manifolds.training.checkpoint import load_trained
    from modular_manifolds.training.run_directory import RunDirectory

    _check_files(json, figure)
    if input_radius is not None:
        check_radius(input_radius, argument="--input-radius")
    if run is not None and run.is_dir():
        directory = RunDirectory(run)
        spec = directory.read_run()
        net = load_trained(directory)
    else:
        spec = read_run_spec(run, []).resolved()
        assert spec.network is not None
        spec.network.check_size(spec.limits, "network", bytes_each=TO_BUILD)
        net = spec.network.build_aside("network")
    report = bounds(
        net,
        input_norm=_norm(input_norm, "--input-norm"),
        output_norm=_norm(output_norm, "--output-norm"),
        radius=_radius(input_radius, spec),
    )
    # Before anything is printed, so that a wrong option prints its error only.
    question = Question(data, data_path, tuple(radius or ()), points, attack)
    predictions = check_predictions(net, spec, question) if question.is_asked else None
    console = open_console()
    show_table(console, "Lipschitz bounds", report.header(), report.cells())
    for line in str(report).splitlines()[2 + len(report.rows) :]:
        console.print(line, soft_wrap=True)
    if predictions is not None:
        show(console, predictions)
    if json is not None:
        _write(json, "--json", _as_json(report, predictions))
        console.print(f"report    {json}", soft_wrap=True)
    if figure is not None:
        _write(figure, "--figure", _picture(net, report))
        console.print(f"figure    {figure}", soft_wrap=True)


def _as_json(bounds: LipschitzReport, predictions: RobustnessReport | None) -> str:
    from modular_manifolds.training.files import as_json

    found = {
        "lipschitz": dataclasses.asdict(bounds),
        "robustness": predictions and dataclasses.asdict(predictions),
    }
    return as_json(found, indent=2) + "\n"


def _picture(net: Module, slopes: LipschitzReport) -> str:
    from modular_manifolds.certificates import activations
    from modular_manifolds.training.figures import as_svg, bounds

    radius = slopes.radius
    if radius is not None:
        assert isinstance(net.source, Space)
        radius *= conversion(slopes.input_norm, net.source.norm, net.source.size)
    return as_svg(bounds(slopes, activations(net, radius=radius)))


def _write(file: Path, option: str, text: str) -> None:
    from modular_manifolds.specs.whole import write_whole, writing

    with writing(option, file):
        write_whole(file, text)


def _check_files(json: Path | None, figure: Path | None) -> None:
    """Refuse files that cannot be written, before the work begins."""
    from modular_manifolds.specs.whole import check_writable

    if figure is not None and figure.suffix not in ("", ".svg"):
        raise ArgumentError(
            "--figure", "must be a file .svg", str(figure), "Figures are drawn as SVG only."
        )
    named = {"--json": json, "--figure": figure}
    files = {option: file for option, file in named.items() if file is not None}
    if json is not None and json == figure and not json.is_char_device():
        raise ArgumentError(
            "--figure", "must be another file than that of --json", str(figure), "Name another."
        )
    for option, file in files.items():
        check_writable(file, argument=option)


def _radius(given: float | None, run: RunSpec) -> float | None:
    """The given radius; 1 for text, because a one-hot token has norm 1 in every norm but rms."""
    from modular_manifolds.specs.data import TextSpec

    return 1.0 if given is None and isinstance(run.data, TextSpec) else given


def _norm(name: str | None, argument: str) -> VectorNorm | None:
    return None if name is None else check_vector_norm(name, argument=argument)
