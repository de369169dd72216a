"""Pictures of a scaling study: differences over the learning rate, and the powers that fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from minidyn.compare.order import ScalingRow, ScalingStudy
from minidyn.figures.scales import grid, set_limits, tidy
from minidyn.figures.sheet import Panel, compose
from minidyn.figures.style import PANELS, Look, looks_of, named, pretty

_LINE = 0.16  # inches for each flow's order above the axes


def plot_scaling(study: ScalingStudy, *, path: Any = None, panels: Any = None, size: Any = None, ax: Any = None,
                 ) -> Figure:  # fmt: skip
    """The differences of a scaling study over the learning rate, on logarithmic axes, one panel per quantity.

    Points carry two standard errors to each side; a difference that is not seen is an arrow down from what could
    have been. Lines are the fitted powers; the orders stand above a panel. Saved to `path` if given.
    Raises ArchiveError where `path` cannot be written.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> gd = md.Map(md.Loss(x**4 / 4, [x]), md.GD(0.1))
    >>> study = md.scaling_study(gd, md.GradientFlow, lrs=[0.04, 0.02], w0=[1.0], time=1.0)
    >>> [ax.get_title(loc="left") for ax in study.plot().axes]
    ['$x$']
    """
    names = list(dict.fromkeys(r.quantity for r in study.rows))
    plain = [name for name in names if not _empty(study, name)] or names
    keys = study.meta.get("keys", {})
    looks = looks_of({r.flow: keys.get(r.flow, "") for r in study.rows})
    above = _LINE * len(looks) + 0.15 * max(pretty(name).count("\n") for name in names)
    there = [
        Panel(name, partial(_draw_orders, study=study, name=name, looks=looks), (2.1,), False, above) for name in names
    ]
    meta = study.meta
    drawn = plain[:PANELS] if panels is None else [panels] if isinstance(panels, str) else list(panels)
    notes = [f"{len(drawn)} of {len(names)} quantities drawn"] if len(drawn) < len(names) else []
    notes += [f"{name}: exact" for name in names if name not in drawn and name not in plain] + _undrawn(study, drawn)
    kind = "slow time lr² k" if meta.get("clock") != "time" else "time t"
    clock = f"at {kind} = {meta.get('span', np.nan):.6g}"
    title, *made = named(
        "difference of map and flow over the learning rate", str(meta.get("map", "")), meta.get("model")
    )
    details = [*made, clock, meta.get("start", ""), str(meta.get("planned", "")), *notes, *meta.get("remarks", [])]
    return compose(there, title, details, path=path, only=drawn if panels is None else panels, size=size, ax=ax)


def _draw_orders(ax: Axes, study: ScalingStudy, name: str, looks: Mapping[str, Look]) -> None:
    """The differences of all flows in one quantity."""
    rows = [r for r in study.rows if r.quantity == name]
    seen: list[Any] = []
    place = max(float(ax.get_window_extent().height / ax.figure.dpi), 0.1)
    said = []
    for flow, look in looks.items():
        mine = [r for r in rows if r.flow == flow]
        if mine:
            seen += _draw_order(ax, study, mine, look)
            style: dict[str, Any] = {"color": look.colour, "ls": look.dash, "marker": look.marker, "ms": 4}
            said.append(Line2D([], [], label=f"{flow}: {_words(study, flow, name)}", **style))
    ax.legend(handles=said, loc="lower left", bbox_to_anchor=(0, 1 + 0.04 / place), borderaxespad=0, borderpad=0,
              frameon=False, fontsize=8, labelspacing=0.25, handlelength=2.6)  # fmt: skip
    ax.set_xscale("log")
    set_limits(ax, seen, {}, True, decades=40)
    rates = sorted({r.lr for r in rows})
    ax.set_xlim(rates[0] / 1.15, rates[-1] * 1.15)
    ax.xaxis.set_major_locator(FixedLocator(rates))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(rates, [f"{rate:.3g}" for rate in rates])
    ax.set_xlabel("learning rate")
    ax.set_ylabel("".join(["|flow − map|", *tidy(ax.yaxis)]), labelpad=1)
    grid(ax)
    ax.set_title(pretty(name), loc="left", y=1 + (0.08 + _LINE * len(said)) / place, pad=0)


def _words(study: ScalingStudy, flow: str, name: str) -> str:
    """The order of one flow in one quantity."""
    fit = study.fit(flow, name)
    if not fit.resolved:
        return study.unseen(fit)
    known = f" ({fit.low:.2f} to {fit.high:.2f})" if np.isfinite(fit.high - fit.low) else ""
    return f"order {fit.order:.2f}{known}".replace("-", "\N{MINUS SIGN}")


def _draw_order(ax: Axes, study: ScalingStudy, rows: list[ScalingRow], look: Look) -> list[Any]:
    """The differences of one flow in one quantity, and the power that fits them; all that is drawn."""
    lr, gap, error = (np.array([getattr(r, n) for r in rows]) for n in ("lr", "difference", "standard_error"))
    gap, error = np.abs(gap), np.nan_to_num(error)
    seen, hidden = (gap > 2 * error) & (gap > 0), (gap <= 2 * error) & (error > 0)
    fit = study.fit(rows[0].flow, rows[0].quantity)
    if fit.resolved:
        line = np.geomspace(lr.min(), lr.max(), 50)
        ax.plot(line, fit.constant * line**fit.order, color=look.colour, ls=look.dash, lw=look.width)
    if seen.any():
        below = np.minimum(2 * error, 0.999 * gap)[seen]
        ax.plot(lr[seen], gap[seen], color=look.colour, ls="", marker=look.marker, ms=4.5)
        if error[seen].max() > 0:
            bars: dict[str, Any] = {"ecolor": look.colour, "fmt": "none", "capsize": 2, "elinewidth": 1.0}
            known = "± 2 standard errors" in ax.get_legend_handles_labels()[1]
            ax.errorbar(
                lr[seen], gap[seen], [below, 2 * error[seen]], **bars, label="_" if known else "± 2 standard errors"
            )
    limits = (gap + 2 * error)[hidden]
    if hidden.any():
        known = "difference not seen: at most" in ax.get_legend_handles_labels()[1]
        ax.plot(lr[hidden], limits, color=look.colour, ls="", marker="v", mfc="white", ms=5.5,
                label="_" if known else "difference not seen: at most")  # fmt: skip
    return [gap[seen], (gap + 2 * error)[seen], limits, (gap - 2 * error)[seen & (gap > 4 * error)]]


def _empty(study: ScalingStudy, name: str) -> bool:
    """Whether no flow differs from the map in a quantity, at any rate."""
    rows = [r for r in study.rows if r.quantity == name]
    return all(_exact(r) or _lost(r) for r in rows) and any(map(_exact, rows))


def _exact(r: ScalingRow) -> bool:
    return r.difference == 0 and not r.standard_error > 0


def _lost(r: ScalingRow) -> bool:
    return not np.isfinite(r.difference)


def _undrawn(study: ScalingStudy, names: Sequence[str]) -> list[str]:
    """What logarithmic axes cannot show: exact agreement, and rates at which no path is left; a note per reason, which
    names quantities and flows where it does not hold for all of them."""
    found: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for name in names:
        mine = [r for r in study.rows if r.quantity == name]
        flows = list(dict.fromkeys(r.flow for r in mine))
        for reason, holds in (("exact", _exact), ("no path left", _lost)):
            rates = {f: tuple(f"{r.lr:.3g}" for r in mine if r.flow == f and holds(r)) for f in flows}
            for gone in dict.fromkeys(filter(None, rates.values())):
                whose = [f for f in flows if rates[f] == gone]
                found.setdefault(("" if len(whose) == len(flows) else ", ".join(whose), reason, gone), []).append(name)
    out = []
    for (named_flows, reason, gone), quantities in found.items():
        what = "" if len(quantities) == len(names) and named_flows else ", ".join(quantities)
        out.append(f"{', '.join(filter(None, [what, named_flows]))}: {reason} at lr {', '.join(gone)}, not drawn")
    return out
