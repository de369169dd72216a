"""What each scheme for flows with noise promises, and what it is not for."""

from dataclasses import dataclass

from minidyn.common.errors import InputError
from minidyn.compiler import Function
from minidyn.solvers import sde

KINDS = ("additive", "diagonal", "commutative", "general")
READINGS = {"ito": "Ito", "stratonovich": "Stratonovich"}
_KIND = {
    "additive": "additive noise (a noise factor that does not depend on the state)",
    "diagonal": "diagonal noise (the noise of a coordinate is its own and depends on that coordinate alone)",
    "commutative": "noises that commute (sum_i f_ij d_i f_kr is symmetric in j and r)",
    "general": "general noise",
}


@dataclass(frozen=True)
class Scheme:
    """A scheme: strong order and weak order for each kind of noise that it is for, and how it reads the equation.

    step : the compiled step.  strong, weak : {kind of noise: order}.
    reading : "ito" or "stratonovich".  areas, coins : what it draws beside the increments.
    cost : evaluations of the field per step for m columns of noise, in words.
    """

    name: str
    step: Function
    reading: str
    strong: dict[str, float]
    weak: dict[str, float]
    cost: str
    source: str
    areas: bool = False
    coins: bool = False
    square: bool = False

    @property
    def adaptive(self) -> tuple[str, ...]:
        """Kinds of noise for which adaptive steps converge to the right limit: those with strong order 1 at least."""
        return tuple(kind for kind, order in self.strong.items() if order >= 1.0)


_ALL_HALF = {"additive": 1.0, "diagonal": 0.5, "commutative": 0.5, "general": 0.5}
SCHEMES = {
    s.name: s
    for s in (
        Scheme("euler-maruyama", sde.euler, "ito", _ALL_HALF, dict.fromkeys(KINDS, 1.0), "1", "Maruyama (1955)"),
        Scheme("milstein", sde.milstein, "ito", dict.fromkeys(KINDS[:3], 1.0), dict.fromkeys(KINDS[:3], 1.0),
               "1 + m", "Milstein (1974)"),
        Scheme("diagonal", sde.diagonal, "ito", dict.fromkeys(KINDS[:2], 1.0), dict.fromkeys(KINDS[:2], 1.0),
               "2", "Kloeden, Platen (1992), 11.1", square=True),
        Scheme("heun", sde.heun, "stratonovich", {**dict.fromkeys(KINDS[:3], 1.0), "general": 0.5},
               dict.fromkeys(KINDS, 1.0), "2", "Rumelin (1982)"),
        Scheme("sra1", sde.additive, "ito", {"additive": 1.5}, {"additive": 2.0}, "3", "Roessler (2010)", areas=True),
        Scheme("weak2", sde.weak, "ito", {**dict.fromkeys(KINDS[:3], 1.0), "general": 0.5}, dict.fromkeys(KINDS, 2.0),
               "2 + 4 m", "Platen; Kloeden, Platen (1992), 15.1", coins=True),
    )
}  # fmt: skip


def fitting(name: str, reading: str, noise: str, flow: str, square: bool, adaptive: bool) -> Scheme:
    """The scheme of this name, or an InputError where it is not for this flow.

    reading, noise : the flow's ("ito" or "stratonovich"; one of `KINDS`).  square : whether there are as many columns
    of noise as coordinates.
    """
    scheme = SCHEMES[name]

    def hint() -> str:
        others = [s.name for s in SCHEMES.values() if s.reading == reading and noise in s.strong]
        return f"use {' or '.join(repr(o) for o in others)}"

    if scheme.reading != reading and noise != "additive":
        raise InputError(
            f"{name!r} reads an equation as {READINGS[scheme.reading]} and the {flow} is meant as "
            f"{READINGS[reading]}: it would converge to another limit; {hint()}."
        )
    if noise not in scheme.strong or (scheme.square and not square):
        raise InputError(
            f"{name!r} is for {_KIND[list(scheme.strong)[-1]]}, and the {flow} has {noise} noise"
            f"{'' if noise not in scheme.strong else ' that is no square matrix'}; {hint()}."
        )
    if adaptive and noise not in scheme.adaptive:
        able = [s.name for s in SCHEMES.values() if s.reading == reading and noise in s.adaptive]
        raise InputError(
            f"adaptive steps need strong order 1 to be unbiased, and {name!r} has {scheme.strong[noise]} for {noise} "
            f"noise; {'use ' + ' or '.join(map(repr, able)) if able else 'no scheme has it: use fixed substeps'}."
        )
    return scheme
