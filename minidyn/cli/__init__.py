"""The command line: `minidyn run valley` and its siblings.

A command computes, writes its files, and returns what it has to say; only then anything is printed. So a closed pipe
or a full disk behind stdout costs no result.

Exit codes: 0 done, 1 a run failed, 2 wrong usage or input, 130 interrupted. An error is one sentence on stderr.
"""

from __future__ import annotations

import gc
import importlib
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer

if TYPE_CHECKING:
    from minidyn.compare.side_by_side import Comparison
    from minidyn.files.models import Model
    from minidyn.flows.base import Flow


app = typer.Typer(
    name="minidyn", pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Run an optimizer on a toy loss beside the effective dynamics that theory predicts for it.",
)  # fmt: skip


class _Interrupted(BaseException):
    """Ctrl-C: passes through `simulate`, which would return what there is."""


class _Said(NamedTuple):
    """What a command prints in the end, and what went wrong nevertheless."""

    text: str
    failure: Exception | None = None


# -- options -------------------------------------------------------------------------------------------


def _print_version(wanted: bool) -> None:
    if wanted:
        from minidyn import __version__

        typer.echo(f"minidyn {__version__}")
        raise typer.Exit


def _complete_model(typed: str) -> list[str]:
    from minidyn.files.modelfile import list_models

    return [name for name in list_models() if name.startswith(typed)]


_ModelName = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A name of the library or a TOML file.", autocompletion=_complete_model),
]
_File = Annotated[Path, typer.Argument(metavar="FILE.h5", help="A result that `minidyn run` or `save` wrote.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]  # read in `call`


_Seed = Annotated[int | None, typer.Option(min=0, help="Seed; the same seed gives the same bits.")]
_Threads = Annotated[int | None, typer.Option(min=1, help="At most so many threads; by default all.")]
_Out = Annotated[str, typer.Option(help="Where results go: a folder, or the start of the file names.", metavar="PATH")]
_NoFigure = Annotated[bool, typer.Option("--no-figure", help="Write no picture.")]
_Checkpoint = Annotated[
    str,
    typer.Option(help="A folder for the run's state: the same command goes on where it was killed.", metavar="PATH"),
]


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Run an optimizer on a toy loss beside the effective dynamics that theory predicts for it."""


# -- commands ------------------------------------------------------------------------------------------


@app.command()
def models(debug: _Debug = False) -> _Said:
    """List the models of the library."""
    from rich import box
    from rich.table import Table

    from minidyn.files.models import list_models, load_model

    table = Table("name", "title", "parameters", "rule", "noise", box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[2].justify = "right"
    table.columns[0].no_wrap = True
    for name in list_models():
        model = load_model(name)
        table.add_row(name, model.title, str(model.loss.dim), str(model.map.rule), str(model.map.noise or "none"))
    console = _console(wide=True)
    with console.capture() as shown:
        console.print(table)
    return _Said(shown.get().rstrip("\n"))


@app.command()
def run(
    context: typer.Context,
    model: _ModelName,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of steps k.")] = None,
    paths: Annotated[int | None, typer.Option(min=1, help="Number of independent paths.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    seed: _Seed = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="Steps between two saves.")] = None,
    threads: _Threads = None,
    checkpoint: _Checkpoint = "",
    out: _Out = "",
    no_figure: _NoFigure = False,
    debug: _Debug = False,
) -> _Said:
    """Run a model's map and its flows, compare them, and write the figure and the data."""
    from minidyn.files.models import load_model

    known = load_model(model)
    chosen = known.with_overrides(lr=lr, steps=steps, paths=paths, save_every=save_every, seed=seed)
    stem = _stem(out, chosen.name)
    outputs = _outputs(stem, no_figure)
    began = time.perf_counter()
    if not chosen.spec.experiment.flows:
        return _run_map(chosen, threads, checkpoint, outputs, context.obj or [])
    introduction = _introduction(chosen)
    _stop_if_asked()
    _load_meanwhile("minidyn.files.results", *[] if no_figure else ["minidyn.figures"])
    result = chosen.run(threads=threads, checkpoint=checkpoint or None)
    _stop_if_asked()
    result.meta["command"] = shlex.join(["minidyn", *(context.obj or [])])
    took = f"total {time.perf_counter() - began:.2f} s, compilation included"
    wrote, failure = _write(outputs, result.save, lambda path: result.plot(loss=chosen.loss, path=path))
    text = f"{introduction}\n{result.summary()}\n{took}\n\n{wrote}"
    return _Said(text, failure or _nothing_finished(result))


def _run_map(model: Model, threads: int | None, checkpoint: str, outputs: list[Path], arguments: list[str]) -> _Said:
    """A model without flows: its map alone."""
    from minidyn.common.errors import SolverError
    from minidyn.simulate import simulate

    result = simulate(model.map, model.w0, model.steps, paths=model.paths, save_every=model.save_every,
                      observe=model.observe, rng=model.seed, threads=threads,
                      checkpoint=checkpoint or None)  # fmt: skip
    _stop_if_asked()
    result.meta |= {"model": model.name, "model_text": model.text, "command": shlex.join(["minidyn", *arguments])}
    wrote, failure = _write(outputs, result.save, lambda path: result.plot(path=path))
    if failure is None and not result.finished.any():
        failure = SolverError(f"no path finished: {result.describe_status()}; try a smaller --lr or fewer --steps.")
    head = f"{model.name}: {model.title}\nrunning {model.map.rule}: {_paths(model.paths)}, {model.steps:,} steps"
    return _Said(f"{head}\n\n{result!r}\n\n{wrote}", failure)


@app.command()
def scale(
    context: typer.Context,
    model: _ModelName,
    lrs: Annotated[str, typer.Option(help="Learning rates, such as 0.1,0.05,0.025.", metavar="LR,LR,...")] = "",
    time: Annotated[float | None, typer.Option(help="End of every run: t = lr k.")] = None,
    slow_time: Annotated[float | None, typer.Option(help="End of every run: lr^2 k.")] = None,
    precision: Annotated[float, typer.Option(help="Wanted relative error of the differences.")] = 0.1,
    paths: Annotated[int | None, typer.Option(min=1, help="Paths at every lr; planned if not given.")] = None,
    max_paths: Annotated[int, typer.Option(min=1, help="Plan at most so many paths.")] = 100_000,
    seed: _Seed = None,
    threads: _Threads = None,
    checkpoint: _Checkpoint = "",
    out: _Out = "",
    no_figure: _NoFigure = False,
    debug: _Debug = False,
) -> _Said:
    """Measure the order of a model's flows in the learning rate.

    Without --lrs the model's own rate, half, a quarter and an eighth of it; without --time or --slow-time the model's
    own length: at fixed slow time for a quasistatic flow, at fixed time for others.
    """
    from minidyn.files.models import load_model

    chosen = load_model(model).with_overrides(seed=seed)
    rates = _rates(lrs) if lrs else [chosen.map.lr() / 2**n for n in range(4)]
    outputs = _outputs(_stem(out, f"{chosen.name}-scaling"), no_figure)
    if time is None and slow_time is None:
        slow = any(flow.slow for flow in chosen.flows(charted=False))
        span = chosen.map.lr() ** (2 if slow else 1) * chosen.steps
        time, slow_time = (None, span) if slow else (span, None)
    study = chosen.scale(rates, time=time, slow_time=slow_time, precision=precision, paths=paths, max_paths=max_paths,
                         threads=threads, checkpoint=checkpoint or None)  # fmt: skip
    study.meta["command"] = shlex.join(["minidyn", *(context.obj or [])])
    wrote, failure = _write(outputs, study.save, lambda path: study.plot(path=path))
    return _Said(f"{study.summary()}\n\n{wrote}", failure)


def _rates(text: str) -> list[float]:
    from minidyn.common.errors import InputError

    try:
        return [float(part) for part in text.replace(" ", ",").split(",") if part]
    except ValueError:
        raise InputError(f"--lrs takes learning rates such as 0.1,0.05,0.025, not {text!r}.") from None


@app.command()
def derive(
    model: _ModelName,
    latex: Annotated[bool, typer.Option("--latex", help="Equations in LaTeX.")] = False,
    debug: _Debug = False,
) -> _Said:
    """Print the equations of a model's flows, with their assumptions, their validity at its start, and sources."""
    from minidyn.files.models import load_model

    chosen = load_model(model)
    return _Said("\n\n".join(_described(flow, chosen.w0, latex) for flow in chosen.flows()))


def _described(flow: Flow, w0: Any, latex: bool) -> str:
    """A flow's description at a start; without a place where it has no state there."""
    from minidyn.common.errors import MinidynError

    try:
        return flow.describe(latex, flow.start(w0))
    except MinidynError:
        return flow.describe(latex)


@app.command("who-wins")
def who_wins(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models at the edge; by default all of them.")
    ] = None,
    out: Annotated[str, typer.Option(help="The report, a Markdown file.", metavar="PATH")] = "who_wins.md",
    debug: _Debug = False,
) -> _Said:
    """Compare every flow with the discrete run at the edge of stability; without MODEL also over rules and lr."""
    from minidyn.cli.contest import report

    target = Path(out)
    _check_writable(target)
    rows: list[str] = []
    text = report(models or (), say=rows.append)
    wrote, failure = _write([target], lambda path: _write_text(text, path))
    return _Said("\n".join([*rows, wrote]), failure)


def _write_text(text: str, target: Path) -> None:
    from minidyn.common.wholefiles import write_whole

    write_whole(target, lambda file: file.write(text.encode()))


@app.command()
def stability(
    model: _ModelName,
    lr: Annotated[list[float] | None, typer.Option(help="Learning rate; repeat it for several.")] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=0, help="Batch size, 0 for the full batch; repeat it for several.")
    ] = None,
    starts: Annotated[int, typer.Option(min=1, help="Points from which minima are searched.")] = 24,
    spread: Annotated[float, typer.Option(min=0, help="Spread of those points around the model's start.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of those points.")] = 0,
    out: Annotated[str, typer.Option(help="The picture, or a folder for it.", metavar="PATH")] = "",
    no_figure: Annotated[bool, typer.Option("--no-figure", help="Write no picture.")] = False,
    debug: _Debug = False,
) -> _Said:
    """Report which minima of a model its optimizer can stay in, and draw them."""
    from minidyn.common.errors import ManifoldError
    from minidyn.files.models import load_model
    from minidyn.minima.stability import stability as verdict
    from minidyn.minima.stability import stability_diagram

    known = load_model(model)
    stem = _stem(out, f"{known.name}_stability")
    target = stem if stem.suffix in (".pdf", ".svg") else stem.with_name(stem.name + ".png")
    if not no_figure:
        _check_writable(target)
    minima = known.minima(starts, spread=spread, seed=seed)
    if not len(minima):
        raise ManifoldError(f"no minimum of {known.name} was found; try more --starts or another --spread.")
    system = known.map.with_lr(lr[0]) if lr else known.map
    report = verdict(system, minima[0])
    sizes = None if not batch else [b or None for b in batch]
    diagram = stability_diagram(system, minima, lrs=lr or None, batches=sizes)
    wrote, failure = _write([] if no_figure else [target], diagram.plot)
    lines = [
        f"{known.name}: {known.title}\n\nminimum 0, near the model's start", report.summary() + "\n",
        f"{len(minima)} minima from {starts} starts: verdict, and growth of second moments per step",
        diagram.summary(), *filter(None, [wrote]),
    ]  # fmt: skip
    return _Said("\n".join(lines), failure)


@app.command()
def show(file: _File, debug: _Debug = False) -> _Said:
    """Print what a result file holds: its table and what made it."""
    from minidyn.common.errors import printable

    result = _load(file)
    lines = [repr(result)]
    runs = list(result.runs.values()) if hasattr(result, "runs") else [result]
    meta = runs[0].meta | result.meta
    makers = ("minidyn", "python", "numpy", "llvmlite", "scipy", "sympy")
    lines.append("made with " + ", ".join(f"{name} {meta[name]}" for name in makers if name in meta))
    if "command" in meta:
        lines.append(f"made by {meta['command']}")
    return _Said(printable("\n".join(lines), keep="\n"))


@app.command()
def plot(
    file: _File,
    out: Annotated[
        str, typer.Option(help="The picture: .png, .pdf or .svg; FILE.png by default.", metavar="PATH")
    ] = "",
    debug: _Debug = False,
) -> _Said:
    """Draw a result file."""
    from minidyn.common.errors import ArchiveError

    target = Path(out) if out else file.with_suffix(".png")
    result = _load(file)
    if target.exists() and target.samefile(file):
        raise ArchiveError(f"the picture would replace the result {file} itself; give another --out.")
    _check_writable(target)
    known = {"loss": _loss_of(result)} if hasattr(result, "runs") else {}
    return _Said(*_write([target], lambda path: result.plot(path=path, **known)))


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete the compiled kernels.")] = False,
    debug: _Debug = False,
) -> _Said:
    """Say where compiled kernels are kept, or delete them."""
    from minidyn.kernels import cache as kernels

    before = kernels.info()
    if not clear:
        return _Said(str(before))
    kernels.clear()
    return _Said(f"deleted {before}")


# -- what commands share -------------------------------------------------------------------------------


def _paths(count: int) -> str:
    return f"{count:,} path{'s' * (count != 1)}"


def _load_meanwhile(*modules: str) -> None:
    """Import modules, and the large packages that they need, while compiled code runs."""
    threading.Thread(target=lambda: [*map(importlib.import_module, modules)], daemon=True).start()


def _introduction(model: Model) -> str:
    """What is about to run, in two lines."""
    flows = " and ".join(flow.name for flow in model.flows(charted=False))
    return (
        f"{model.name}: {model.title}\n"
        f"running {model.map.rule} beside its {flows}: {_paths(model.paths)}, {model.steps:,} steps\n"
    )


def _stem(out: str, name: str) -> Path:
    """Where results go, without an extension: `out` is a folder, or the start of a file name."""
    path = Path(out).expanduser()
    if not out or out.endswith(("/", "\\")) or path.is_dir():
        return path / name
    return path.with_suffix("") if path.suffix in (".h5", ".png") else path


def _outputs(stem: Path, no_figure: bool) -> list[Path]:
    """The files that will be written, known to be writable."""
    outputs = [stem.with_name(stem.name + end) for end in ([".h5"] if no_figure else [".h5", ".png"])]
    for output in outputs:
        _check_writable(output)
    return outputs


def _write(outputs: list[Path], *writers: Callable[[Path], Any]) -> tuple[str, Exception | None]:
    """Write each file, whatever becomes of the others; what was written, and the first thing that went wrong."""
    wrote, failures = [], []
    for output, write in zip(outputs, writers, strict=False):
        try:
            write(output)
            wrote.append(str(output))
        except Exception as error:
            failures.append(error)
    return "wrote " * bool(wrote) + " and ".join(wrote), failures[0] if failures else None


def _check_writable(target: Path) -> None:
    """Refuse a file that could not be written later, before the work is done; leaves nothing behind."""
    from minidyn.common.errors import ArchiveError

    if target.is_dir():
        raise ArchiveError(f"cannot write {target}: it is a folder; give another --out.")
    folder = target.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        if not folder.is_dir():
            raise NotADirectoryError(20, f"{folder} is not a folder")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ArchiveError(f"cannot write {target}: {error.strerror}; give another --out.") from error


def _load(file: Path) -> Any:
    from minidyn.files import results

    return results.load(file)


def _loss_of(result: Comparison) -> Any:
    """The loss of a comparison read from a file, by the text of its model; None without one, or without its data."""
    from minidyn.common.errors import MinidynError
    from minidyn.files.models import model_of_text

    try:
        return model_of_text(result.meta.get("model_text", ""), result.meta.get("model", "")).loss
    except MinidynError:
        return None


def _nothing_finished(result: Comparison) -> Exception | None:
    from minidyn.common.errors import SolverError

    failed = [
        f"no path of the {label} finished: {run.describe_status()}"
        for label, run in result.runs.items() if not run.finished.any()
    ] + [f"the {label} does not exist here" for label in result.meta["missing"]]  # fmt: skip
    return SolverError("; ".join(failed) + "; try a smaller --lr or fewer --steps.") if failed else None


def _console(wide: bool = False) -> Any:
    """A rich console on stdout; a pipe gets long lines instead of broken ones."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal or not wide else Console(highlight=False, width=180)


# -- the door ------------------------------------------------------------------------------------------


def main() -> NoReturn:
    """Run the command line and exit."""
    gc.set_threshold(200_000, 50, 50)  # a short process: looking for cycles would take a tenth of its time
    stream: Any
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # none, or none of Python's own
            stream.reconfigure(errors="replace")
    code = call(sys.argv[1:])
    try:
        sys.stdout.flush()
    except (OSError, AttributeError):
        _give_up(sys.stdout)
    gc.freeze()  # nor are there cycles to look for while everything goes
    sys.exit(code)


def call(arguments: list[str]) -> int:
    """Run one command; its exit code. Errors become one sentence on stderr."""
    _asked_to_stop.clear()
    previous = signal.signal(signal.SIGINT, _interrupt)
    try:
        command = typer.main.get_command(app)
        options: dict[str, Any] = {"prog_name": "minidyn", "standalone_mode": False, "obj": arguments}
        said = command.main(arguments or ["--help"], **options)
        if not isinstance(said, _Said):
            return said if isinstance(said, int) else 0
        _print(said.text)
        if said.failure is not None:
            raise said.failure
        return 0
    except _Unprintable as error:
        return _say(f"cannot print: {error}; files are written before anything is printed.", 1)
    except (_Interrupted, KeyboardInterrupt, typer.Abort):
        return _say("interrupted; nothing more was written.", 130)
    except (BrokenPipeError, SystemExit):  # nobody reads the help, and click would make an error of it
        _give_up(sys.stdout)
        return 0
    except Exception as error:
        if _asked_to_stop.is_set():  # the interrupt came out of the compiler as another error
            return _say("interrupted; nothing more was written.", 130)
        if "--debug" in arguments:
            traceback.print_exc()
        return _explain(error)
    finally:
        signal.signal(signal.SIGINT, previous)


class _Unprintable(Exception):
    """Stdout takes no text: its disk is full, or it is no place to write to."""


def _print(text: str) -> None:
    """Text on stdout. That nobody reads on is no error; what could not be written is not tried again."""
    if not text or sys.stdout is None:
        return
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        _give_up(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise _Unprintable(error.strerror or str(error)) from error


def _give_up(stream: Any) -> None:
    """Whatever a stream still holds goes nowhere: Python would complain about it when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_asked_to_stop = threading.Event()


def _interrupt(*_: object) -> None:
    _asked_to_stop.set()
    raise _Interrupted


def _stop_if_asked() -> None:
    """Ctrl-C inside a callback of compiled code can be lost; it is not lost here."""
    if _asked_to_stop.is_set():
        raise _Interrupted


def _explain(error: Exception) -> int:
    """One sentence for an error, and its exit code."""
    if hasattr(error, "format_message"):  # wrong usage, found by typer
        context = getattr(error, "ctx", None)
        where = f"; see `{context.command_path} --help`." if context else "."
        return _say(str(error.format_message()).rstrip(".") + where, 2)
    from minidyn.common.errors import FlowError, ManifoldError, MinidynError, SolverError, advice

    if isinstance(error, MinidynError):
        return _say(str(error), 1 if isinstance(error, (FlowError, ManifoldError, SolverError)) else 2)
    if isinstance(error, OSError):
        return _say(f"cannot read or write: {advice(error)}.", 1)
    if isinstance(error, MemoryError):
        return _say("not enough memory; take fewer --paths or a larger --save-every.", 1)
    return _say(f"this should not happen ({type(error).__name__}: {error}); --debug shows where.", 1)


def _say(sentence: str, code: int) -> int:
    try:
        print("minidyn: " + " ".join(sentence.split()), file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)
    return code


if __name__ == "__main__":
    main()
