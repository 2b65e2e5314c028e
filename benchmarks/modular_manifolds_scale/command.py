"""The command: a model, numbers of ranks and a machine in; a table, JSON or the tables of the page out."""

from __future__ import annotations

import json as json_text
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from modular_manifolds.tables import Table
from modular_manifolds_scale.machine import MACHINES
from modular_manifolds_scale.models import MODELS, build_model
from modular_manifolds_scale.tables import HEADER, TOKENS, cells, refreshed
from modular_manifolds_scale.ways import WAYS

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def scale(
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "gpt2",
    ranks: Annotated[str, typer.Option(help="Numbers of ranks, with commas.")] = "8,64,512",
    device: Annotated[str, typer.Option(help=f"One of {', '.join(MACHINES)}.")] = "h100",
    tokens: Annotated[int, typer.Option(help="Tokens of a rank in a step.")] = TOKENS,
    ranks_per_node: Annotated[int | None, typer.Option(min=1)] = None,
    achieved: Annotated[float | None, typer.Option(help="Fraction of the peaks.")] = None,
    float32: Annotated[float | None, typer.Option(help="Peak in float32, TFLOP/s.")] = None,
    inside: Annotated[float | None, typer.Option(help="Link in a node, GB/s.")] = None,
    between: Annotated[float | None, typer.Option(help="Link between nodes, GB/s.")] = None,
    hop_between: Annotated[float | None, typer.Option(help="Hop between nodes, µs.")] = None,
    whole_heads: Annotated[
        bool, typer.Option("--whole-heads", help="Queries, keys and values as whole matrices.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write inputs and steps as JSON.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write the tables of this page anew, and nothing else.")
    ] = None,
) -> None:
    """Compute the seconds of an optimiser step from stated inputs. Nothing is measured."""
    if page is not None:
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for value, known, option in ((model, MODELS, "--model"), (device, MACHINES, "--device")):
        if value not in known:
            raise typer.BadParameter(
                f"{value!r} is not one of {', '.join(known)}", param_hint=option
            )
    try:
        counts = [int(each) for each in ranks.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise typer.BadParameter(f"{ranks!r} is no list such as 8,64", param_hint="--ranks")
    given: dict[str, Any] = {
        "ranks_per_node": ranks_per_node,
        "achieved": achieved,
        "float32": None if float32 is None else float32 * 1e12,
        "inside": None if inside is None else inside * 1e9,
        "between": None if between is None else between * 1e9,
        "hop_between": None if hop_between is None else hop_between * 1e-6,
    }
    machine = replace(
        MACHINES[device], **{name: value for name, value in given.items() if value is not None}
    )
    network = build_model(model, whole=whole_heads)
    steps = [way(network, machine, each) for way in WAYS.values() for each in counts]
    typer.echo(f"{model}, {machine.name}, {tokens:,} tokens a rank: computed, not measured")
    typer.echo(str(Table(HEADER, [cells(each, network, machine, tokens) for each in steps])))
    if json is not None:
        found = {
            "model": model,
            "tokens": tokens,
            "machine": asdict(machine),
            "steps": [asdict(each) for each in steps],
        }
        json.write_text(json_text.dumps(found, indent=2) + "\n", encoding="utf-8")
