"""`minidyn sweep`, and what its `--over` says."""

from typing import Annotated

import numpy as np
import typer

from minidyn.cli.commands import app, command_of, flowless
from minidyn.cli.options import Checkpoint, Debug, ModelName, NoFigure, Out, Seed, Threads
from minidyn.cli.outputs import results_at, write
from minidyn.cli.shell import Said
from minidyn.common.arrays import Floats
from minidyn.common.errors import InputError
from minidyn.common.intake import shown
from minidyn.files.models import load_model

_SAYS = "--over takes lr=0.01,0.1 or lr=0.01:1:50 or lr=0.01:1:50:log"
_MOST = 10**6


@app.command()
def sweep(
    context: typer.Context,
    model: ModelName,
    over: Annotated[
        list[str],
        typer.Option(
            help="What varies: lr=0.01:1:50:log (50 values, evenly in the logarithm), x=-1:1:20 or batch=1,2,4; repeat "
            "it for a grid.",
            metavar="NAME=VALUES",
        ),
    ],
    against: Annotated[bool, typer.Option("--against", help="Hold the model's flows against the map.")] = False,
    reduce: Annotated[
        str, typer.Option(help="What is kept of each path: last, end, min, max.", metavar="WHAT,WHAT,...")
    ] = "last",
    steps: Annotated[int | None, typer.Option(min=1, help="Number of steps k.")] = None,
    paths: Annotated[int | None, typer.Option(min=1, help="Number of paths at each setting.")] = None,
    seed: Seed = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that share the work.")] = None,
    threads: Threads = None,
    checkpoint: Checkpoint = "",
    out: Out = "",
    no_figure: NoFigure = False,
    debug: Debug = False,
) -> Said:
    """Run a model's map at many settings at once.

    Names are hyperparameters, sigma, label_std, batch, constants of the loss, and parameters (where they start).
    """
    chosen = load_model(model).with_overrides(steps=steps, paths=paths, seed=seed)
    if against and not chosen.spec.experiment.flows:
        raise InputError(flowless(chosen, "to hold against the map"))
    asked = values_of(over)
    outputs = results_at(out, f"{chosen.name}-sweep", no_figure)
    found = chosen.sweep(
        asked,
        against=against,
        reduce=[part for part in reduce.replace(" ", ",").split(",") if part],
        executor=workers,
        threads=threads,
        checkpoint=checkpoint or None,
    )
    found.meta["command"] = command_of(context)
    wrote, failure = write(outputs, found.save, lambda path: found.plot(path=path))
    return Said(f"{found.summary()}\n\n{wrote}", failure)


def values_of(texts: list[str]) -> dict[str, Floats]:
    """Values by name.

    >>> values_of(["lr=0.1:1:3:log", "batch=1,2"])
    {'lr': array([0.1       , 0.31622777, 1.        ]), 'batch': array([1., 2.])}
    """
    out: dict[str, Floats] = {}
    for text in texts:
        name, equals, given = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InputError(f"{_SAYS}, not {shown(text)}.")
        if name in out:
            raise InputError(f"--over gives {name} twice.")
        out[name] = _range(text, given) if ":" in given else _list(text, given)
    return out


def _list(text: str, given: str) -> Floats:
    try:
        return np.array([float(part) for part in given.split(",") if part.strip()])
    except ValueError:
        raise InputError(f"{_SAYS}, not {shown(text)}.") from None


def _range(text: str, given: str) -> Floats:
    ends = given.split(":")
    log = len(ends) == 4 and ends[3].strip() == "log"
    try:
        low, high, count = float(ends[0]), float(ends[1]), int(ends[2])
    except (ValueError, IndexError):
        raise InputError(f"{_SAYS}, not {shown(text)}.") from None
    if len(ends) != 3 + log or not 2 <= count <= _MOST or not np.isfinite([low, high]).all():
        raise InputError(f"{_SAYS}, with 2 values to {_MOST:,}, not {shown(text)}.")
    if log and not min(low, high) > 0:
        raise InputError(f"--over {shown(text)}: a logarithmic range lies above zero.")
    return np.geomspace(low, high, count) if log else np.linspace(low, high, count)
