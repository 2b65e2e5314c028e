"""Arguments and an exit code that several subcommands share. None means the default of the subcommand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, get_args

import typer

from modular_manifolds.specs.data import DataName

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, as in shells: 128 plus the signal's number."""

RunFile = Annotated[
    Path | None, typer.Argument(help="A run file (YAML or JSON). Default: the default run.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set one value, such as optimizer.lr=0.3; repeatable."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(get_args(DataName)), help="The data set; the bundled digits by default."
    ),
]
DataPath = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR|FILE|hf:NAME",
        help="Your images or text: a folder, a file, or a data set of the Hugging Face hub; "
        "or the folder with CIFAR-10's Parquet files, which are downloaded without it.",
    ),
]
