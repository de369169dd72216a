"""Looks and words: how each system is drawn, names as in a paper, headlines, legends."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from itertools import cycle
from typing import Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextToPath
from matplotlib.ticker import ScalarFormatter

from minidyn.compare.comparison import Comparison
from minidyn.flows import FLOWS
from minidyn.flows.look import PALETTE, Look
from minidyn.maps.loss import Loss

PANELS = 6
THIN = 3  # paths drawn as thin lines
HUGE = 1e15  # beyond this a path has left every picture
GREY, FAINT, MINIMA = "#5f6670", "#c9ced6", "#8c1d40"
_GREEK = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi
omega""".split()
STYLE: Any = {
    "font.size": 9.0, "axes.titlesize": 9.5, "axes.labelsize": 9.0, "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0, "legend.fontsize": 8.5, "axes.spines.top": False, "axes.spines.right": False,
    "axes.linewidth": 0.7, "axes.edgecolor": GREY, "xtick.color": GREY, "ytick.color": GREY,
    "xtick.labelcolor": "black", "ytick.labelcolor": "black", "xtick.major.width": 0.7, "ytick.major.width": 0.7,
    "axes.formatter.limits": (-2, 4), "mathtext.fontset": "dejavusans",
}  # fmt: skip


MAP = Look("#12385c", "-", 2.2, "o")
READINGS = (MAP, Look("#6d8fb3", (0, (5, 1)), 1.8, "o"), Look("#4a5560", (0, (1.5, 1)), 1.8, "o"))  # of the map


def looks_of(keys: Mapping[str, str]) -> dict[str, Look]:
    """How flows are drawn, label -> key: as each says of itself; a second one of its kind, and one that says nothing,
    in a look that is free in this picture."""
    looks: dict[str, Look] = {}
    for label, key in keys.items():
        look = FLOWS[key].look if key in FLOWS else None
        if look is not None and look not in looks.values():
            looks[label] = look
    free = cycle([look for look in PALETTE if look not in looks.values()] or PALETTE)
    return {label: looks.get(label) or next(free) for label in keys}


def looks_in(result: Comparison) -> dict[str, Look]:
    """How the map and its flows are drawn."""
    first, *flows = result.runs
    return {first: MAP} | looks_of({label: result.runs[label].meta.get("flow", "") for label in flows})


class Numbers(ScalarFormatter):
    """Tick labels without TeX, which takes half a second for a figure; a common power of ten as `×10⁻⁴`."""

    def __init__(self) -> None:
        super().__init__(useOffset=False, useMathText=False)
        self.set_powerlimits((-4, 5))

    def get_offset(self) -> str:
        """The power of ten that all labels share: matplotlib's `1e-4` as `×10⁻⁴`, anything else as it is."""
        found = re.fullmatch(r"1e(.\d+|\d+)", super().get_offset())
        return f"×{power_of_ten(int(found[1].replace('−', '-')))}" if found else super().get_offset()


def power_of_ten(power: int) -> str:
    """A power of ten in Unicode, such as 10⁻⁴."""
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


# -- words ---------------------------------------------------------------------------------------------


def pretty(name: str) -> str:
    """A name as a mathematician sets it, where that is easy; otherwise as it is, in lines of moderate length."""
    if re.fullmatch(r"[A-Za-z](\s*[+-]\s*[A-Za-z])*", name):
        return f"${name}$"
    if match := re.fullmatch(r"([A-Za-z])[\[_]\{?(\d+(?:,\d+)*)[\]}]?", name):
        return f"${match[1]}_{{{match[2]}}}$"
    if name in _GREEK:
        return rf"$\{name}$"
    plain = re.sub(r"Abs\(([^()]*)\)", r"|\1|", name)
    for raw, set_ in (("**2", "²"), ("**3", "³"), ("**", "^"), ("*", "·"), ("$", r"\$")):
        plain = plain.replace(raw, set_)
    return textwrap.fill(_short(plain, 88), 44)


def _short(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def headline_of(result: Comparison) -> str:
    """The model, the map and its flows, of which many are named by what tells them apart, or counted."""
    first, *flows = result.runs
    model = result.meta.get("model")
    named = " and ".join(flows)
    if len(flows) > 2 and all(f.endswith(" flow") for f in flows):
        *most, last = (f.removesuffix(" flow") for f in flows)
        named = f"{', '.join(most)} and {last} flows"
    named = named if len(named) < 70 else f"{len(flows)} flows"
    return f"{model}: " * bool(model) + f"{first} and its {named}"


def details_of(result: Comparison) -> list[str]:
    """The lines below a headline: what ran, how many paths and steps, and how paths ended."""
    meta = result.meta
    system = str(meta.get("map", ""))
    system = system[4:-1] if system.startswith("Map(") and system.endswith(")") else system
    paths = int(meta.get("paths", 0))
    clock = f"{paths:,} path{'s' * (paths != 1)}, {meta.get('steps', 0):,} steps"
    noise = "same noise for both" if meta.get("coupled") else "independent noise"
    noise = "" if system.endswith("no noise") else noise
    runs = result.runs.items()
    ended = [f"{label}: {run.describe_status()}" for label, run in runs if not run.finished.all()]
    ended += ["panels: over the paths that map and flow both still have"] if ended and meta.get("coupled") else []
    readings, first = list(map_looks(result)), next(iter(result.runs.values()))
    where = _PANELS[readings[0]] if len(readings) == 1 else ""
    plane = len(first.names) == 2 and first.w is not None and "midpoints" in readings
    where = "; ".join(filter(None, [where, "landscape: iterates" if plane else ""]))
    phases = first.meta.get("between_saves", "")
    more = len(result.quantities) - PANELS
    cut = f"{PANELS} of {len(result.quantities)} quantities drawn" if more > 0 else ""
    zero = sorted({name for names in meta.get("zero", {}).values() for name in names})
    left = [name for name in zero if name not in result.quantities]
    others = [name for name in zero if name in result.quantities]
    said = [f"zero on the minima, not drawn: {', '.join(left)}" if left else "",
            f"zero on the minima, drawn for the other flows alone: {', '.join(others)}" if others else ""]  # fmt: skip
    return [part for part in (system, clock, noise, where, *said, cut, phases, *ended) if part]


_PANELS = {
    "iterates": "", "midpoints": "panels: mid-points of the map's iterates",
    "projected": "panels: after projection on the minima",
}  # fmt: skip


def map_looks(result: Comparison) -> dict[str, Look]:
    """How the map is drawn in each of the readings that flows ask for."""
    readings = dict.fromkeys(result.reading(label) for label in list(result.runs)[1:])
    return dict(zip(readings, READINGS, strict=False))


# -- head and legend -----------------------------------------------------------------------------------


def draw_head(fig: Figure, title: str, details: list[str]) -> None:
    """A title and what was run, left aligned above everything else."""
    width, height = fig.get_size_inches()
    lines = [""]
    for part in details:
        longer = f"{lines[-1]}  ·  {part}" if lines[-1] else part
        if len(longer) <= width * 14.5:
            lines[-1] = longer
        else:
            lines += textwrap.wrap(part, int(width * 14.5))
    text = "\n".join(line for line in lines if line)
    fig.text(0.1 / width, 1 - 0.1 / height, title, va="top", fontsize=12, fontweight="bold", parse_math=False)
    style: dict[str, Any] = {"fontsize": 8.5, "color": GREY, "linespacing": 1.35, "parse_math": False}
    fig.text(0.1 / width, 1 - 0.36 / height, text, va="top", **style)
    engine = fig.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(h_pad=0.03, hspace=0.0, rect=(0, 0, 1, 1 - (0.45 + 0.165 * (text.count("\n") + 1)) / height))


def draw_legend(fig: Figure, handles: list[Any]) -> None:
    """A legend below everything, as wide as the figure allows."""
    labels, room, columns = [h.get_label() for h in handles], 72 * fig.get_figwidth(), len(handles)
    while columns > 1 and _legend_width(labels, columns) > room:
        columns -= 1
    close: dict[str, Any] = {"columnspacing": 1.4, "handlelength": 1.7, "handletextpad": 0.6, "frameon": False}
    fig.legend(handles=handles, loc="outside lower center", ncols=columns, **close)


def _legend_width(labels: list[str], columns: int) -> float:
    """How many points wide a legend is: the widest label of each column, its handle, and what lies between."""
    size, tall = float(STYLE["legend.fontsize"]), len(labels) % columns
    font, measure = FontProperties(size=size), TextToPath().get_text_width_height_descent
    widths = [measure(label, font, ismath=False)[0] for label in labels]
    each = [len(labels) // columns + (n < tall) for n in range(columns)]
    return sum(max(widths[sum(each[:n]) :][:count]) for n, count in enumerate(each)) + 3.7 * size * (columns + 0.3)


def legend_handles(looks: dict[str, Look], maps: dict[str, Look], paths: int, plane: bool, loss: Loss | None,
                   ) -> list[Any]:  # fmt: skip
    """What the legend explains."""
    handles: list[Any] = []
    named = {"iterates": "", "midpoints": ", mid-points", "projected": ", projected on the minima"}
    first, *flows = looks
    shown = {first + (named[r] if len(maps) > 1 else ""): look for r, look in maps.items()} or {first: looks[first]}
    for label, look in (shown | {label: looks[label] for label in flows}).items():
        style = {"color": look.colour, "ls": look.dash, "lw": look.width, "marker": look.marker if plane else ""}
        handles.append(Line2D([], [], ms=4, label=label, **style))
    if paths > 1:
        handles.append(Patch(color=MAP.colour, alpha=0.17, lw=0, label="5–95 % of paths"))
        handles += [Patch(color=looks[label].colour, alpha=0.27, lw=0, label="±2 s.e. of the difference")
                    for label in flows[:1]]  # fmt: skip
    if plane:
        if loss is not None:
            handles.append(Line2D([], [], color=MINIMA, lw=1.3, label="minima"))
        handles.append(Line2D([], [], ls="", marker="X", ms=6.5, mfc="white", mec="black", label="start"))
    return handles
