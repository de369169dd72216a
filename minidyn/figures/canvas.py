"""Making a figure and writing it, whole or not at all."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minidyn.common.errors import ArchiveError, InputError
from minidyn.common.wholefiles import write_whole


class Picture(Figure):
    """A matplotlib figure that Jupyter shows whether or not pyplot was imported."""

    def _repr_png_(self) -> bytes:
        return _rendered(self, "png", 110)


def new_figure(width: float, height: float) -> Picture:
    """An empty figure of this size in inches, without pyplot."""
    fig = Picture(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def _rendered(fig: Figure, kind: str, dpi: float | None = None) -> bytes:
    image, engine = BytesIO(), fig.get_layout_engine()
    if engine is not None:  # the layout is found once; left in place, the engine would find it again for every draw
        engine.execute(fig)
        fig.set_layout_engine("none")
    if kind == "png" and isinstance(fig.canvas, FigureCanvasAgg):
        before = fig.dpi
        fig.set_dpi(dpi or before)
        fig.canvas.print_png(image, pil_kwargs={"compress_level": 3})  # `savefig` would draw it twice
        fig.set_dpi(before)
    else:
        fig.savefig(image, format=kind, dpi=dpi or "figure")
    fig.set_layout_engine(engine)
    return image.getvalue()


def write_picture(fig: Figure, path: Any) -> None:
    """Write the figure whole or not at all."""
    if path is None:
        return
    target = Path(path).expanduser()
    target = target if target.suffix[1:2].isalpha() else target.with_name(target.name + ".png")
    kind, known = target.suffix[1:].lower(), FigureCanvasAgg.get_supported_filetypes()
    if kind not in known:
        raise InputError(f"a figure cannot be written as .{kind}; use one of {', '.join(sorted(known))}.")
    image = _rendered(fig, kind, 160)
    try:
        write_whole(target, lambda file: file.write(image), sync=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArchiveError(f"Cannot save `{path}`: {reason}; choose another path.") from error
