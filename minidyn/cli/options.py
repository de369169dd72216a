"""The options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from minidyn.files.modelfile import list_models


def _complete_model(typed: str) -> list[str]:
    return [name for name in list_models() if name.startswith(typed)]


ModelName = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A name of the library or a TOML file.", autocompletion=_complete_model),
]
ResultFile = Annotated[Path, typer.Argument(metavar="FILE.h5", help="A result that `minidyn run` or `save` wrote.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]  # read in `shell.run`
Seed = Annotated[int | None, typer.Option(min=0, help="Seed; the same seed gives the same bits.")]
Threads = Annotated[int | None, typer.Option(min=1, help="At most so many threads; by default all.")]
Out = Annotated[
    str,
    typer.Option(
        help="Where results go: a folder, or the start of the file names; with .pdf or .svg pictures are such.",
        metavar="PATH",
    ),
]
NoFigure = Annotated[bool, typer.Option("--no-figure", help="Write no picture.")]
Checkpoint = Annotated[
    str,
    typer.Option(help="A folder for the run's state: the same command goes on where it was killed.", metavar="PATH"),
]
