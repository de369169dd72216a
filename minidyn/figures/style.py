"""Looks and words: how each system is drawn, names as in a paper, headlines."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from itertools import cycle
from typing import Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from minidyn.compare.comparison import Comparison
from minidyn.compare.report import chance_of
from minidyn.flows import FLOWS
from minidyn.flows.look import PALETTE, Look
from minidyn.simulate.run import Run

PANELS = 6
_TITLED = 48  # letters of a loss that stands in a title
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
    "axes.formatter.limits": (-2, 4), "mathtext.fontset": "dejavusans", "axes.titley": 1.0,
}  # fmt: skip


MAP = Look("#12385c", "-", 2.2, "o")
_READ = "#4a5560"
READINGS = {  # of the map: how each is drawn, and what it is called
    "iterates": (MAP, ""),
    "midpoints": (Look(_READ, (0, (5, 1)), 1.8, "o"), ", mid-points"),
    "projected": (Look(_READ, "-", 2.2, "o"), ", projected on the minima"),
}


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


def look_of(run: Run) -> Look:
    """How one run is drawn."""
    return looks_of({"": run.meta.get("flow", "")})[""] if run.meta.get("kind") == "flow" else MAP


def looks_in(result: Comparison) -> dict[str, Look]:
    """How the map and its flows are drawn."""
    first, *flows = result.runs
    return {first: MAP} | looks_of({label: result.runs[label].meta.get("flow", "") for label in flows})


def looks_by_name(flows: Iterable[str]) -> dict[str, Look]:
    """How flows are drawn of which only the names are known."""
    return looks_of({label: label.partition(" ")[0] for label in flows})


# -- words ---------------------------------------------------------------------------------------------


def reading_label(label: str, reading: str) -> str:
    """What the map is called where it is read so."""
    return label + READINGS[reading][1]


def legend_label(label: str, run: Run) -> str:
    """What a run is called in a legend."""
    return f"{label} (leaves the {run.meta['leaves_out']} out)" if run.meta.get("leaves_out") else label


def power_of_ten(power: int) -> str:
    """A power of ten in Unicode, such as 10⁻⁴."""
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def pretty(name: str) -> str:
    """A name as a mathematician sets it, where that is easy; otherwise as it is, in lines of moderate length."""
    if re.fullmatch(r"[A-Za-z](\s*[+-]\s*[A-Za-z])*", name):
        return f"${name}$"
    if match := re.fullmatch(r"([A-Za-z])[\[_]\{?(\d+(?:,\d+)*)[\]}]?", name):
        return f"${match[1]}_{{{match[2]}}}$"
    if name in _GREEK:
        return rf"$\{name}$"
    return textwrap.fill(_short(_on_paper(name).replace("$", r"\$"), 88), 44)


def _on_paper(text: str) -> str:
    """An expression with powers, products and absolute values as on paper, as far as letters go."""
    plain = re.sub(r"Abs\(([^()]*)\)", r"|\1|", text)
    for raw, set_ in (("**2", "²"), ("**3", "³"), ("**4", "⁴"), ("**", "^"), ("*", "·"), (" - ", " − ")):
        plain = plain.replace(raw, set_)
    return re.sub(r"(^|\()-", r"\1−", plain)


def _short(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """How many points wide a text is."""
    font = FontProperties(size=size, weight=weight)
    return float(TextToPath().get_text_width_height_descent(text, font, ismath=False)[0])


def named(what: str, system: str, model: Any = None) -> tuple[str, str, str]:
    """A title, `valley: SGD`, and below it the loss and the rule; without a model's name the title has the loss."""
    loss, params, samples, rule = parts_of(system)
    if model or not loss:
        subject, below = model, f"loss {loss}, {samples}".removesuffix(", ") if loss else ""
    elif len(loss) <= _TITLED:
        subject, below = loss, samples
    else:
        subject, below = f"a loss of {params}", f"{loss}, {samples}".removesuffix(", ")
    return f"{subject}: {what}" if subject else what, below, rule


def headline_of(result: Comparison) -> tuple[str, str, str]:
    """`named`: the map and its flows, of which many are named by what tells them apart, or counted."""
    first, *flows = result.runs
    names = " and ".join(flows)
    if len(flows) > 2 and all(f.endswith(" flow") for f in flows):
        *most, last = (f.removesuffix(" flow") for f in flows)
        names = f"{', '.join(most)} and {last} flows"
    names = names if len(names) < 70 else f"{len(flows)} flows"
    return named(f"{first} and its {names}", str(result.meta.get("map", "")), result.meta.get("model"))


def title_of(run: Run) -> tuple[str, str, str]:
    """`named`: the rule of a map, or a flow and the rule that it belongs to."""
    system = str(run.meta.get("system", ""))
    name = re.sub(r"\(.*", "", parts_of(system)[-1], flags=re.DOTALL) or "a run"
    if run.meta.get("kind") == "flow":
        flow = re.sub(r"\(.*", "", system, flags=re.DOTALL)
        name = f"{re.sub(r'(?<!^)(?=[A-Z])', ' ', flow).lower()} of {name}"
    return named(name, system, run.meta.get("model"))


def label_of(title: str) -> str:
    """What a title says behind the model or the loss."""
    return title.rpartition(": ")[2]


def parts_of(system: str) -> tuple[str, str, str, str]:
    """A map's text as the loss, in letters as on paper, its parameters, its samples, and the rule with its noise."""
    found = re.search(r"Map\(Loss\((.*?); ([^;]*?)(?:; ([^;]*?))?\), (.*?)\)*$", system, flags=re.DOTALL)
    if not found:
        return "", "", "", system
    loss, params, samples, rest = found.groups()
    rest += ")" * (rest.count("(") - rest.count(")"))
    return _on_paper(loss), params, samples or "", rest


def details_of(result: Comparison, drawn: int) -> list[str]:
    """What follows loss and rule below a headline: how many paths and steps, and how paths ended."""
    meta = result.meta
    paths = int(meta.get("paths", 0))
    chance = chance_of(result)
    count = f"{paths:,} path{'s' * (paths != 1)}, " * (paths > 1) + f"{meta.get('steps', 0):,} steps"
    noise = "" if chance == "no noise" else chance  # which stands beside the rule
    ended = [f"{label}: {run.describe_status()}" for label, run in result.runs.items() if not run.finished.all()]
    ended += ["panels: over the paths that map and flow both still have"] if ended and meta.get("coupled") else []
    phases = result.runs[result.map_label].meta.get("between_saves", "")
    every = len(result.quantities)
    cut = f"{drawn} of {every} quantities drawn" if drawn < every else ""
    zero = dict.fromkeys(name for names in meta.get("zero", {}).values() for name in names)
    left = [name for name in zero if name not in result.quantities]
    others = [name for name in zero if name in result.quantities]
    said = [
        f"zero on the minima, not drawn: {', '.join(left)}" if left else "",
        f"zero on the minima, drawn for the other flows alone: {', '.join(others)}" if others else "",
    ]
    missing = [f"{label} is not there" for label in meta.get("missing", {})]
    return [part for part in (count, noise, *said, cut, phases, *missing, *ended) if part]


# -- legends -------------------------------------------------------------------------------------------


def draw_legend(fig: Figure, handles: list[Any]) -> float:
    """A legend below everything, as wide as the figure allows; how tall it is."""
    if not handles:
        return 0.0
    room, columns, labels = 72 * fig.get_figwidth() - 10, len(handles), [h.get_label() for h in handles]
    while columns > 1 and _legend_width(labels, columns) > room:
        columns -= 1
    close: dict[str, Any] = {"columnspacing": 1.4, "handlelength": 2.6, "handletextpad": 0.6, "frameon": False}
    fig.legend(handles=handles, loc="lower center", bbox_to_anchor=(fig.get_figwidth() / 2, 0.05), ncols=columns,
               bbox_transform=fig.dpi_scale_trans, borderaxespad=0, borderpad=0, **close)  # fmt: skip
    return 0.19 * -(-len(handles) // columns)


def _legend_width(labels: list[str], columns: int) -> float:
    """How many points wide a legend is: the widest label of each column, its handle, and what lies between."""
    size, tall = float(STYLE["legend.fontsize"]), len(labels) % columns
    widths = [text_width(label, size) for label in labels]
    each = [len(labels) // columns + (n < tall) for n in range(columns)]
    return sum(max(widths[sum(each[:n]) :][:count]) for n, count in enumerate(each)) + 4.7 * size * (columns + 0.3)
