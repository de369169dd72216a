"""Pictures that move: paths on the landscape of two parameters, or quantities growing over the steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.animation import FFMpegWriter, PillowWriter
from matplotlib.axes import Axes
from PIL import Image

from minidyn.common.errors import ArchiveError, InputError
from minidyn.common.intake import between
from minidyn.compare.comparison import Comparison
from minidyn.figures.canvas import target_of, write_bytes
from minidyn.figures.landscape import draw_floor
from minidyn.figures.panels import mean_in
from minidyn.figures.runs import last_step, names_in
from minidyn.figures.scales import Clock
from minidyn.figures.sheet import Panel, compose
from minidyn.figures.style import (
    HUGE,
    STYLE,
    Look,
    headline_of,
    label_of,
    legend_label,
    look_of,
    looks_in,
    pretty,
    title_of,
)
from minidyn.simulate.run import Run

_FRAMES, _PATHS, _TAIL = 120, 50, 12  # at most; saves that a path's tail is long


def animate(result: Run | Comparison, path: Any, *, seconds: float = 8.0, size: Any = None, loss: Any = None) -> Path:
    """Write a film of a run or a comparison, `.gif` or (where ffmpeg is installed) `.mp4`, of so many seconds.

    With two parameters paths move on the landscape (of `loss`, or of the loss that a comparison carries); otherwise the
    quantities, means over the paths, grow over the steps. Returns the file.

    Raises InputError for another format, and where ffmpeg is not there; ArchiveError where `path` cannot be written, or
    ffmpeg fails.
    """
    target, kind = target_of(path, ("gif", "mp4"), "a film", "gif")
    seconds = between(seconds, "seconds", 0, 600)
    if kind == "mp4" and not FFMpegWriter.isAvailable():
        raise InputError("an .mp4 needs the program ffmpeg, which is not installed here; write a .gif, or install it.")
    if isinstance(result, Comparison):
        (title, *below), runs, looks = headline_of(result), result.runs, looks_in(result)
    else:
        title, *below = title_of(result)
        runs, looks = {label_of(title): result}, {label_of(title): look_of(result)}
    steps = next(iter(runs.values())).steps
    shown = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _FRAMES)).round().astype(int))
    advance: list[Callable[[int], list[Any]]] = []
    plane = all(run.w is not None and run.w.shape[2] == 2 for run in runs.values())
    if plane:
        loss = loss if loss is not None else getattr(result, "loss", None)
        panels = [Panel("landscape", lambda ax: advance.append(_on_landscape(ax, runs, loss, looks)), plane=True)]
    else:
        names = names_in(next(iter(runs.values())))
        panels = [Panel(name, _growing(name, runs, looks, advance)) for name in names]
    with rc_context(STYLE), TemporaryDirectory() as folder:
        fig = compose(panels, title, [*below, f"{int(steps[-1]):,} steps"], size=size)
        artists = [artist.set_animated(True) or artist for move in advance for artist in move(0)]
        made, fps = Path(folder) / f"film.{kind}", max(1, round(len(shown) / seconds))
        writer = FFMpegWriter(fps=fps) if kind == "mp4" else _Redrawn(artists, fps=fps)
        try:
            with writer.saving(fig, str(made), dpi=fig.dpi):
                for place in shown:
                    for move in advance:
                        move(int(place))
                    writer.grab_frame()
        except (CalledProcessError, BrokenPipeError) as error:  # not an ffmpeg, or one without this codec
            raise ArchiveError(f"ffmpeg could not make the film `{path}`; write a .gif, or mend ffmpeg.") from error
        write_bytes(target, made.read_bytes(), path)
    return target


class _Redrawn(PillowWriter):
    """Draws what stands still once, and into each frame only what moves: a tenth of the time."""

    def __init__(self, artists: list[Any], **options: Any):
        super().__init__(**options)
        self.artists, self.still = artists, None

    def grab_frame(self, **options: Any) -> None:
        """Keep the figure as it is now."""
        canvas: Any = self.fig.canvas
        if self.still is None:
            canvas.draw()
            self.still = canvas.copy_from_bbox(self.fig.bbox)
        canvas.restore_region(self.still)
        for artist in self.artists:
            artist.axes.draw_artist(artist)
        frame = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
        self._frames.append(frame.convert("RGB"))  # type: ignore[attr-defined]


def _on_landscape(ax: Axes, runs: dict[str, Run], loss: Any, looks: dict[str, Look]) -> Callable[[int], list[Any]]:
    """Level sets and minima; paths with their tails, up to a save."""
    first = next(iter(runs.values()))
    draw_floor(ax, runs, loss)
    drawn = []
    for order, (label, run) in enumerate(runs.items()):
        assert run.w is not None
        look, w = looks[label], run.w[:_PATHS]
        w = np.where(np.abs(w) < HUGE, w, np.nan)
        thin: dict[str, Any] = {"color": look.colour, "lw": 0.8, "alpha": 0.5, "zorder": 4 + order}
        tails = [ax.plot([], [], **thin)[0] for _ in w]
        style: dict[str, Any] = {
            "color": look.colour,
            "marker": look.marker,
            "label": legend_label(label, run),
            "zorder": 10 + order,
        }
        size = 18 if len(w) > 1 else 45
        marks = ax.scatter(w[:, 0, 0], w[:, 0, 1], size, edgecolors="white", linewidths=0.4, **style)
        drawn.append((w, tails, marks))

    def move(place: int) -> list[Any]:
        for w, tails, marks in drawn:
            marks.set_offsets(w[:, place])
            for tail, points in zip(tails, w[:, max(0, place - _TAIL) : place + 1], strict=True):
                tail.set_data(*points.T)
        said = ax.set_title(f"step {int(first.steps[place]):,}", loc="left")
        return [*(tail for _, tails, _ in drawn for tail in tails), *(marks for *_, marks in drawn), said]

    return move


def _growing(name: str, runs: dict[str, Run], looks: dict[str, Look], advance: list[Callable[[int], list[Any]]]) -> Any:
    """A panel in which the means of one quantity grow."""

    def draw(ax: Axes) -> None:
        first = next(iter(runs.values()))
        held = {label: run for label, run in runs.items() if name in [*run.names, *run.observables, *run.moments]}
        means = {label: mean_in(run, name) for label, run in held.items()}
        values = np.concatenate(list(means.values()))
        values = values[np.isfinite(values)]
        low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        ax.set_ylim(low - margin, high + margin)
        lines = []
        for label, mean in means.items():  # whole at first: legends name what has points
            look, steps = looks[label], held[label].steps
            said = legend_label(label, held[label])
            (line,) = ax.plot(steps, mean, color=look.colour, ls=look.dash, lw=look.width, label=said)
            lines.append((line, steps, mean))
        Clock.of(first.steps, first.time, list(means.values()), last_step(runs.values())).put(ax)
        ax.set_title(pretty(name), loc="left")

        def move(place: int) -> list[Any]:
            for line, steps, mean in lines:
                line.set_data(steps[: place + 1], mean[: place + 1])
            return [line for line, _, _ in lines]

        advance.append(move)

    return draw
