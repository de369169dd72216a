"""The commands: each computes, writes its files, and returns what it has to say."""

import contextlib
import importlib
import shlex
import threading
import time
from dataclasses import replace
from typing import Annotated, Any

import typer

from minidyn import __version__, load
from minidyn.cli.options import Checkpoint, Debug, ModelName, NoFigure, Out, ResultFile, Seed, Threads
from minidyn.cli.outputs import picture_at, results_at, write
from minidyn.cli.shell import Said, stop_if_asked
from minidyn.common.errors import ArchiveError, InputError, ManifoldError, MinidynError, SolverError, printable
from minidyn.common.reports import Table, as_text, fold, folded
from minidyn.compare.comparison import Comparison
from minidyn.compare.scaling import WORK
from minidyn.files.modelfile import list_models, read_model
from minidyn.files.models import Model, load_model, model_of_text, noise_of, rule_of
from minidyn.flows import FLOWS
from minidyn.flows.base import Flow
from minidyn.kernels import cache as kernels
from minidyn.minima.stability import stability as verdict
from minidyn.minima.stability import stability_diagram
from minidyn.simulate import simulate
from minidyn.simulate.run import Run

app = typer.Typer(
    name="minidyn",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Run an optimizer on a toy loss beside the effective dynamics that theory predicts for it.",
)


# -- options -------------------------------------------------------------------------------------------


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"minidyn {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Run an optimizer on a toy loss beside the effective dynamics that theory predicts for it."""


# -- commands ------------------------------------------------------------------------------------------


@app.command()
def models(debug: Debug = False) -> Said:
    """List the models of the library."""
    table = [["model", "title; parameters, rule, noise"]]
    for name in list_models():
        spec = read_model(name)  # no loss need be built
        count = f"{spec.loss.dimension} parameter{'s' * (spec.loss.dimension > 1)}"
        table += [[name, spec.title], ["", f"  {count}, {rule_of(spec)}, {noise_of(spec) or 'no noise'}"]]
    return Said(as_text([Table(table, 2)]))


@app.command()
def run(
    context: typer.Context,
    model: ModelName,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of steps k.")] = None,
    paths: Annotated[int | None, typer.Option(min=1, help="Number of independent paths.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    seed: Seed = None,
    save_every: Annotated[
        str | None, typer.Option(help="Steps between two saves, or log.", metavar="INTEGER|log")
    ] = None,
    threads: Threads = None,
    checkpoint: Checkpoint = "",
    out: Out = "",
    no_figure: NoFigure = False,
    debug: Debug = False,
) -> Said:
    """Run a model's map beside its flows and say which is right.

    Writes the data (.h5) and a picture.
    """
    every: Any = save_every
    with contextlib.suppress(ValueError, TypeError):  # "log", nothing, or what is refused where it is read
        every = int(every)
    chosen = load_model(model).with_overrides(lr=lr, steps=steps, paths=paths, save_every=every, seed=seed)
    outputs = results_at(out, chosen.name, no_figure)
    began = time.perf_counter()
    head, alone = _introduction(chosen), not chosen.spec.experiment.flows
    stop_if_asked()
    _load_meanwhile("minidyn.files.results", *[] if no_figure else ["minidyn.figures"])
    result = (_run_map if alone else Model.run)(chosen, threads=threads, checkpoint=checkpoint or None)
    stop_if_asked()
    result.meta["command"] = command_of(context)
    took = "" if alone else f"total {time.perf_counter() - began:.2f} s, compilation included\n"
    known = {} if alone else {"loss": chosen.loss}
    wrote, failure = write(outputs, result.save, lambda path: result.plot(path=path, **known))
    return Said(f"{head}\n\n{result!r}\n{took}\n{wrote}", failure or _nothing_finished(result))


def _run_map(model: Model, **options: Any) -> Run:
    """A model without flows: its map alone."""
    run = simulate(
        model.map,
        model.w0,
        model.steps,
        paths=model.paths,
        save_every=model.save_every,
        observe=model.observe,
        rng=model.seed,
        **options,
    )
    run.meta |= {"model": model.name, "model_text": model.text}
    return run


def command_of(context: typer.Context) -> str:
    """What was typed."""
    return shlex.join(["minidyn", *(context.obj or [])])


@app.command()
def scale(
    context: typer.Context,
    model: ModelName,
    lrs: Annotated[str, typer.Option(help="Learning rates, such as 0.1,0.05,0.025.", metavar="LR,LR,...")] = "",
    time: Annotated[float | None, typer.Option(help="End of every run: t = lr k.")] = None,
    slow_time: Annotated[float | None, typer.Option(help="End of every run: lr^2 k.")] = None,
    precision: Annotated[float, typer.Option(help="Wanted relative error of the differences.")] = 0.1,
    paths: Annotated[int | None, typer.Option(min=1, help="Paths at every lr; planned if not given.")] = None,
    max_paths: Annotated[int, typer.Option(min=1, help="Plan at most so many paths.")] = 100_000,
    work: Annotated[
        float, typer.Option(help="Plan at most so much: paths times steps times the gradients of a step.")
    ] = WORK,
    seed: Seed = None,
    threads: Threads = None,
    checkpoint: Checkpoint = "",
    out: Out = "",
    no_figure: NoFigure = False,
    debug: Debug = False,
) -> Said:
    """Measure the order of a model's flows in the learning rate.

    Without --lrs, --time and --slow-time as [scaling] of the model file says; else the model's own rate and three
    smaller ones with twice the steps each, for the model's own length: at fixed slow time for a quasistatic flow, at
    fixed time for others; shorter where that would take long.
    """
    chosen = load_model(model).with_overrides(seed=seed)
    rates = _rates(lrs) if lrs else None
    if not chosen.spec.experiment.flows:
        raise InputError(flowless(chosen, "whose order could be measured"))
    outputs = results_at(out, f"{chosen.name}-scaling", no_figure)
    study = chosen.scale(
        rates,
        time=time,
        slow_time=slow_time,
        precision=precision,
        paths=paths,
        max_paths=max_paths,
        work=work,
        threads=threads,
        checkpoint=checkpoint or None,
    )
    study.meta["command"] = command_of(context)
    wrote, failure = write(outputs, study.save, lambda path: study.plot(path=path))
    return Said(f"{study.summary()}\n\n{wrote}", failure)


def _rates(text: str) -> list[float]:
    try:
        return [float(part) for part in text.replace(" ", ",").split(",") if part]
    except ValueError:
        raise InputError(f"--lrs takes learning rates such as 0.1,0.05,0.025, not {text!r}.") from None


@app.command()
def derive(
    model: ModelName,
    latex: Annotated[bool, typer.Option("--latex", help="Equations in LaTeX.")] = False,
    debug: Debug = False,
) -> Said:
    """Print the equations of a model's flows.

    With their assumptions, their order, their validity at the model's start, and sources.
    """
    chosen = load_model(model)
    flows = chosen.flows()
    if not flows:
        return Said(folded(flowless(chosen, "to derive")))
    return Said(folded("\n\n".join(_described(flow, chosen.w0, latex) for flow in flows)))


def flowless(model: Model, purpose: str) -> str:
    """That a model's file names no flows, and how it would."""
    known = ", ".join(FLOWS)
    return (
        f"{model.name} has no flows {purpose}: its file names none. Give it some, such as "
        f'flows = ["gradient"] below [experiment]; there are {known}.'
    )


def _described(flow: Flow, w0: Any, latex: bool) -> str:
    """A flow's description at a start; without a place where it has no state there."""
    try:
        return flow.describe(latex, flow.start(w0))
    except MinidynError:
        return flow.describe(latex)


@app.command()
def stability(
    model: ModelName,
    lr: Annotated[list[float] | None, typer.Option(help="Learning rate; repeat it for several.")] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=0, help="Batch size, 0 for the full batch; repeat it for several.")
    ] = None,
    starts: Annotated[int, typer.Option(min=1, help="Points from which minima are searched.")] = 24,
    spread: Annotated[float, typer.Option(min=0, help="Spread of those points around the model's start.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of those points.")] = 0,
    out: Annotated[str, typer.Option(help="The picture: .png, .pdf or .svg, or a folder for it.", metavar="PATH")] = "",
    no_figure: Annotated[bool, typer.Option("--no-figure", help="Write no picture.")] = False,
    debug: Debug = False,
) -> Said:
    """Report which minima of a model its rule can stay in."""
    known = load_model(model)
    targets = [] if no_figure else [picture_at(out, f"{known.name}_stability")]
    minima = known.minima(starts, spread=spread, seed=seed)
    if not len(minima):
        raise ManifoldError(f"no minimum of {known.name} was found; try more --starts or another --spread.")
    system = known.map.with_lr(lr[0]) if lr else known.map
    report = verdict(system, minima[0])
    sizes = None if not batch else [b or None for b in batch]
    diagram = replace(stability_diagram(system, minima, lrs=lr or None, batches=sizes), model=known.name)
    wrote, failure = write(targets, diagram.plot)
    count = f"{len(minima)} minim{'um' if len(minima) == 1 else 'a'} from {starts} start{'s' * (starts > 1)}"
    lines = [
        *fold(f"{known.name}: {known.title}"),
        "\nminimum 0, near the model's start:",
        report.summary() + "\n",
        f"{count}:",
        diagram.summary(),
        *filter(None, ["\n" + wrote if wrote else ""]),
    ]
    return Said("\n".join(lines), failure)


@app.command()
def show(file: ResultFile, debug: Debug = False) -> Said:
    """Print what a result file holds: its table and what made it."""
    result = load(file)
    lines = [repr(result)]
    runs = list(result.runs.values()) if hasattr(result, "runs") else [result]
    meta = runs[0].meta | result.meta
    makers = ("minidyn", "python", "numpy", "llvmlite", "scipy", "sympy")
    lines += fold("made with " + ", ".join(f"{name} {meta[name]}" for name in makers if name in meta))
    lines += fold(f"made by {meta['command']}") if "command" in meta else []
    return Said(printable("\n".join(lines), keep="\n"))


@app.command()
def plot(
    file: ResultFile,
    out: Annotated[
        str,
        typer.Option(help="The picture: .png, .pdf or .svg, or a folder for it; FILE.png by default.", metavar="PATH"),
    ] = "",
    debug: Debug = False,
) -> Said:
    """Draw a result file."""
    target = picture_at(out or str(file.with_suffix(".png")), file.stem)
    result = load(file)
    if target.exists() and target.samefile(file):
        raise ArchiveError(f"the picture would replace the result {file} itself; give another --out.")
    known = {"loss": loss_of(result)} if hasattr(result, "runs") else {}
    return Said(*write([target], lambda path: result.plot(path=path, **known)))


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete the compiled kernels.")] = False,
    debug: Debug = False,
) -> Said:
    """Say where compiled kernels are kept, or delete them."""
    before = kernels.info()
    if not clear:
        return Said(str(before))
    kernels.clear()
    return Said(f"deleted {before}")


def _load_meanwhile(*modules: str) -> None:
    """Import modules, and the large packages that they need, while compiled code runs."""
    threading.Thread(target=lambda: [*map(importlib.import_module, modules)], daemon=True).start()


def _introduction(model: Model) -> str:
    """What is about to run, in two lines or three."""
    names = [flow.name for flow in model.flows(charted=False)]
    flows = ", ".join(names[:-1]) + " and " * (len(names) > 1) + "".join(names[-1:])
    beside = f" beside its {flows}" if flows else ""
    alone = model.map.noise is None
    count = "one path, for it has no noise" if alone else f"{model.paths:,} path{'s' * (model.paths != 1)}"
    said = [f"{model.name}: {model.title}", f"running {model.map.rule}{beside}: {count}, {model.steps:,} steps"]
    return folded("\n".join(said))


def loss_of(result: Comparison) -> Any:
    """The loss of a comparison read from a file, by the text of its model; None without one, or without its data."""
    try:
        return model_of_text(result.meta.get("model_text", ""), result.meta.get("model", "")).loss
    except MinidynError:
        return None


def _nothing_finished(result: Comparison | Run) -> Exception | None:
    """An error where a run has no path left, or a flow does not exist."""
    runs = {"": result} if isinstance(result, Run) else {f" of the {n}": run for n, run in result.runs.items()}
    failed = [
        f"no path{whose} finished: {run.describe_status()}" for whose, run in runs.items() if not run.finished.any()
    ]
    failed += [f"the {label} does not exist here" for label in result.meta.get("missing", ())]
    return SolverError("; ".join(failed) + "; try a smaller --lr or fewer --steps.") if failed else None
