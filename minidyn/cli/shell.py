"""A command run from a shell: what it prints, its exit code, Ctrl-C, and errors of one sentence."""

import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any, NamedTuple

import typer

from minidyn.cli.wording import names_for
from minidyn.common.errors import FlowError, ManifoldError, MinidynError, SolverError, advice, speaking
from minidyn.common.reports import fold


def run(app: typer.Typer, arguments: list[str]) -> int:
    """Run one command; its exit code. Errors become one sentence on stderr."""
    _asked_to_stop.clear()
    previous = signal.signal(signal.SIGINT, _interrupt)
    names: dict[str, str] = {}
    try:
        command = typer.main.get_command(app)
        options: dict[str, Any] = {"prog_name": "minidyn", "standalone_mode": False, "obj": arguments}
        names = names_for(_options(command, arguments))
        with speaking(names):
            said = command.main(arguments or ["--help"], **options)
        if not isinstance(said, Said):
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
        give_up(sys.stdout)
        return 0
    except Exception as error:
        if _asked_to_stop.is_set():  # the interrupt came out of the compiler as another error
            return _say("interrupted; nothing more was written.", 130)
        if "--debug" in arguments:
            traceback.print_exc()
        with speaking(names):
            return _explain(error)
    finally:
        signal.signal(signal.SIGINT, previous)


class _Interrupted(BaseException):
    """Ctrl-C: passes through `simulate`, which would return what there is."""


class Said(NamedTuple):
    """What a command prints in the end, and what went wrong nevertheless."""

    text: str
    failure: Exception | None = None


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
        give_up(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise _Unprintable(error.strerror or str(error)) from error


def give_up(stream: Any) -> None:
    """Whatever a stream still holds goes nowhere: Python would complain about it when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_asked_to_stop = threading.Event()


def _interrupt(*_: object) -> None:
    _asked_to_stop.set()
    raise _Interrupted


def stop_if_asked() -> None:
    """Ctrl-C inside a callback of compiled code can be lost; it is not lost here."""
    if _asked_to_stop.is_set():
        raise _Interrupted


def _options(app: Any, arguments: list[str]) -> dict[str, str]:
    """The options of the command that was typed, by the names of its parameters."""
    command = next((app.commands[word] for word in arguments if word in app.commands), None)
    options = (param for param in command.params if param.opts[0].startswith("--")) if command else ()
    return {param.name: param.opts[0] for param in options}


def _explain(error: Exception) -> int:
    """One sentence for an error, and its exit code."""
    if hasattr(error, "format_message"):  # wrong usage, found by typer
        context = getattr(error, "ctx", None)
        where = f"; see `{context.command_path} --help`." if context else "."
        return _say(str(error.format_message()).rstrip(".") + where, 2)
    if isinstance(error, MinidynError):
        return _say(str(error), 1 if isinstance(error, (FlowError, ManifoldError, SolverError)) else 2)
    if isinstance(error, OSError):
        return _say(f"cannot read or write: {advice(error)}.", 1)
    if isinstance(error, MemoryError):
        return _say("not enough memory; take fewer --paths or a larger --save-every.", 1)
    return _say(f"this should not happen ({type(error).__name__}: {error}); --debug shows where.", 1)


def _say(sentence: str, code: int) -> int:
    text = "minidyn: " + " ".join(sentence.split())
    try:
        print("\n".join(fold(text)) if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)
    return code
