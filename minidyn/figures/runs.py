"""Pictures of a run over its steps, and of a map and its flows side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from minidyn.compare.comparison import Comparison
from minidyn.figures.landscape import draw_landscape
from minidyn.figures.panels import draw_quantity, draw_run, mean_in, mean_of
from minidyn.figures.scales import ABOVE, Clock
from minidyn.figures.sheet import Panel, compose
from minidyn.figures.style import (
    PANELS,
    details_of,
    headline_of,
    label_of,
    look_of,
    looks_in,
    pretty,
    title_of,
)
from minidyn.maps.loss import Loss
from minidyn.simulate.run import Run

LANDSCAPE = "landscape"
_BOTH = (1.55, 0.8)  # heights of means and of differences


def plot_comparison(result: Comparison, *, loss: Loss | None = None, path: Any = None, panels: Any = None,
                    size: Any = None, ax: Any = None) -> Figure:  # fmt: skip
    """The picture of a comparison; saved to `path` where one is given (the extension names the format).

    Every quantity over the steps: means and 5-95 % bands of the map and of its flows, and below them the
    difference of means with two standard errors to each side. For two parameters also the landscape: level
    sets and minima (of `loss`, or of the loss that the comparison carries), the ensembles at the last step, and
    a few paths.

    Raises ArchiveError where the file cannot be written, InputError for an unknown format.

    >>> import sympy as sp, minidyn as md
    >>> x, y = sp.symbols("x y")
    >>> sgd = md.Map(md.Loss((1 + x**2) * y**2 / 2, [x, y]), md.SGD(lr=0.05), md.GaussianNoise(0.3))
    >>> result = md.compare(sgd, md.QuasistaticFlow(sgd), w0=[2, 0], steps=200, paths=64, observe="sharpness")
    >>> [ax.get_title(loc="left") for ax in result.plot().axes[1:] if ax.get_title(loc="left")]
    ['$x$', 'sharpness']
    """
    loss = loss if loss is not None else getattr(result, "loss", None)
    looks, names = looks_in(result), list(result.quantities)
    means = [
        mean_of(result.pair(name, label)[0])
        for name in names
        for label in [*result.runs][1:2]
        if result.holds(name, label)
    ]
    clock = Clock.of(result.steps, result.time, means, last_step(result.runs.values()))
    there = [
        Panel(name, partial(draw_quantity, result=result, name=name, looks=looks, clock=clock), _BOTH, False,
              _above(name, clock)) for name in names
    ]  # fmt: skip
    if all(run.w is not None and run.w.shape[-1] == 2 for run in result.runs.values()):
        ground = partial(draw_landscape, runs=result.runs, loss=loss, looks=looks)
        there.insert(0, Panel(LANDSCAPE, ground, plane=True))
    drawn = min(len(names), PANELS)
    title, *made = headline_of(result)
    return compose(
        there, title, [*made, *details_of(result, drawn)], path=path, only=panels, size=size, ax=ax, most=drawn
    )


def last_step(runs: Iterable[Run]) -> int:
    """The last step at which any path of any run was there."""
    return max(int(run.ended.max()) for run in runs)


def _above(name: str, clock: Clock) -> float:
    """Room for a long name, and for an axis of time above."""
    return 0.15 * pretty(name).count("\n") + ABOVE * clock.bent


def plot_run(run: Run, *, quantities: Sequence[str] | None = None, path: Any = None, panels: Any = None,
             size: Any = None, ax: Any = None) -> Figure:  # fmt: skip
    """The parameters and observables of a run over its steps, six panels at most; saved to `path` if given.

    One path is drawn as it is; of many the mean, the 5-95 % and 25-75 % bands and three of the paths.
    `panels` (or `quantities`) chooses what is drawn. Raises InputError for unknown ones, ArchiveError where `path`
    cannot be written.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> run = md.simulate(md.Map(md.Loss(x**2, [x]), md.GD(0.1)), w0=[1.0], steps=30, observe="loss")
    >>> [ax.get_title(loc="left") for ax in run.plot().axes]
    ['$x$', 'loss']
    """
    panels = quantities if panels is None else panels
    every, shown = names_of(run), names_in(run)
    look, (title, *made) = look_of(run), title_of(run)
    chosen = shown if panels is None else [panels] if isinstance(panels, str) else list(panels)
    for name in chosen:
        if name not in every:
            run.quantity(name)  # says what the run holds
    clock = Clock.of(run.steps, run.time, [mean_in(run, name) for name in chosen], last_step([run]))
    there = [Panel(name, partial(draw_run, run=run, name=name, look=look, label=label_of(title), clock=clock),
                   above=_above(name, clock)) for name in [*shown, *(n for n in every if n not in shown)]]  # fmt: skip
    details = [
        *made,
        f"{run.paths:,} paths" if run.paths > 1 else "one path",
        f"{int(run.steps[-1]):,} steps",
        f"seed {run.seed}" if run.seed else "",
    ]
    if panels is None and len(every) > len(shown):
        details.append(f"{len(shown)} of {len(every):,} quantities drawn")
    details += [] if run.finished.all() else [run.describe_status()]
    details += [run.meta["between_saves"]] if run.meta.get("between_saves") else []
    return compose(there, title, details, path=path, only=panels, size=size, ax=ax, most=len(shown))


def names_of(run: Run) -> list[str]:
    """Every quantity that a run holds."""
    parameters = run.names if run.w is not None or not set(run.names).isdisjoint(run.moments) else []
    return list(dict.fromkeys([*parameters, *run.observables, *run.moments]))


def names_in(run: Run) -> list[str]:
    """What a run shows: up to six parameters and its observables, of more parameters what was observed alone."""
    parameters = [n for n in names_of(run) if n in set(run.names)]
    observed = [n for n in names_of(run) if n not in set(run.names)]
    room = 0 if observed and len(parameters) > PANELS else max(PANELS - len(observed), 0)
    return [*parameters[:room], *observed][:PANELS]
