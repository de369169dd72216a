"""Making a figure, showing it, and writing it, whole or not at all."""

from __future__ import annotations

import os
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minidyn.common.errors import ArchiveError, InputError
from minidyn.common.intake import shown
from minidyn.common.wholefiles import write_whole


class Picture(Figure):
    """A matplotlib figure that Jupyter shows whether or not pyplot was imported, and `show()` in a window."""

    def _repr_png_(self) -> bytes:
        return rendered(self, "png", 110)

    def show(self, warn: bool = True) -> None:
        """Show the picture: below the cell in Jupyter, elsewhere in a window, until that is closed. Where no window can
        be opened, say so and how to save the picture (not with `warn=False`)."""
        if "IPython" in sys.modules:
            from IPython import get_ipython
            from IPython.display import display

            if getattr(get_ipython(), "kernel", None) is not None:
                display(self)
                return
        from matplotlib import pyplot
        from matplotlib._pylab_helpers import Gcf  # a window that pyplot does not know is not waited for
        from matplotlib.backend_bases import FigureManagerBase

        canvas = pyplot.figure().canvas  # of the backend that pyplot finds for this machine
        pyplot.close(canvas.figure)
        if canvas.manager_class is FigureManagerBase:
            if warn:
                print(
                    f'no window can be opened here ({pyplot.get_backend()}); save the picture: plot("name.png")',
                    file=sys.stderr,
                )
            return
        Gcf._set_new_active_manager(type(canvas).new_manager(self, max(pyplot.get_fignums(), default=0) + 1))
        canvas.manager_class.pyplot_show(block=True)
        FigureCanvasAgg(self)  # the window is gone, the picture is not


def new_figure(width: float, height: float) -> Picture:
    """An empty figure of this size in inches, without pyplot."""
    fig = Picture(figsize=(width, height))
    FigureCanvasAgg(fig)
    return fig


def rendered(fig: Figure, kind: str, dpi: float | None = None) -> bytes:
    """The bytes of a file of this kind."""
    image = BytesIO()
    if kind == "png" and isinstance(fig.canvas, FigureCanvasAgg):
        before = fig.dpi
        fig.set_dpi(dpi or before)
        fig.canvas.print_png(image, pil_kwargs={"compress_level": 3})  # `savefig` would draw it twice
        fig.set_dpi(before)
    else:
        fig.savefig(image, format=kind, dpi=dpi or "figure")
    return image.getvalue()


def target_of(path: Any, known: Any, what: str, default: str) -> tuple[Path, str]:
    """The file and its kind, by the extension of its name."""
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"the path of {what} is a file's name, not {shown(path)}.")
    target = Path(path).expanduser()
    target = target if target.suffix[1:2].isalpha() else target.with_name(f"{target.name}.{default}")
    kind = target.suffix[1:].lower()
    if kind not in known:
        raise InputError(f"{what} cannot be written as .{kind}; use one of {', '.join(sorted(known))}.")
    return target, kind


def write_bytes(target: Path, image: bytes, path: Any) -> None:
    """Write a file whole or not at all."""
    try:
        write_whole(target, lambda file: file.write(image), sync=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArchiveError(f"Cannot save `{path}`: {reason}; choose another path.") from error


def write_picture(fig: Figure, path: Any) -> None:
    """Write the figure whole or not at all."""
    if path is not None:
        target, kind = target_of(path, FigureCanvasAgg.get_supported_filetypes(), "a figure", "png")
        write_bytes(target, rendered(fig, kind, 160), path)
