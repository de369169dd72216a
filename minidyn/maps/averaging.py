"""A rule averaged over the noise in its gradient (docs/theory.md 2.2, 2.2b), one coordinate, in symbols.

    accumulators    v' = e(g, m): e + (q/2) (e_gg + sum_ab e_ab P_ab), exact for squares; P q = covariance of memories m
    sign            E sign(g + xi) = erf(g / sqrt(2 q)), Gaussian noise
    other curves    E f(g + xi) = sum_r w_r f(g + sqrt(q) x_r), Gauss-Hermite, Gaussian noise

A sign or a curve may be taken of a running mean `c = alpha m + gamma g` of the gradient: then its noise is all that c
remembers.

Whatever is linear in the gradient is its own average, for any noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import sympy as sp

from minidyn.common.errors import FlowError, said
from minidyn.common.locks import cached_property, shared
from minidyn.graph import Graph, Node
from minidyn.maps import rule_symbols
from minidyn.maps.memories import (
    carried_states,
    memory_covariance,
    noise_of_mean,
    number,
    shares_of_mean,
    shares_of_square,
    squared_memories,
    steps_alike,
)
from minidyn.maps.quadrature import nodes
from minidyn.maps.rule_symbols import NODES, NORMAL, THETA, G
from minidyn.maps.rule_symbols import VARIANCE as _Q
from minidyn.maps.rules import Rule, displaced, settled

if TYPE_CHECKING:
    from minidyn.maps.noise import BoundNoise

_SIGN = sp.Symbol("_sign\x02")
_POWERS = 8  # polynomials of a lower degree are averaged term by term
_KINKS = (sp.Abs, sp.Min, sp.Max, sp.Piecewise, sp.Heaviside)


@dataclass(frozen=True)
class AveragedRule:
    """One coordinate of a rule after averaging over gradient noise of variance `q`.

    outputs : the averaged new theta and states, in the symbols `theta, g, q` and the states.
    gain : how each output answers to the noise in `g` itself.
    sign_gain : how each output answers to the sign of the noise; None for rules without `sign`.
    accumulators : which states see the noise squared.
    cubes, squares : how each output answers to the noise's cube and to its square, where accumulators make both.
    shares : what accumulators of memories square, and curves of memories take, in units of the noise: the shares of
        `E (g + xi)^2`, of `E g s` and of `E s t` for all states s, t, which add up to 1 for noise alone; none where it
        is the gradient itself.
    odd : whether curves are odd in the noise: then they are averaged over the oscillation as over wider noise.
    squared : of accumulators of memories, what `alike` follows from (`memories.squared_memories`).
    curved : outputs as they stand where they are no straight lines in the noise, before they are averaged; else None.
    remembered : what a sign or a curve sees of the noise, in units of its standard deviation: the weight of the fresh
        noise, the correlation of the noise one step apart, and its decay per further step; all 0 but the first
        without memory. The last entry is the number of the state that remembers, -1 for none. In numbers: `memory`.
    breadth : the standard deviation of the noise that a curve sees, in units of that of the gradient's.
    remembers : whether an accumulator squares what is remembered.
    bell : whether an average holds for Gaussian noise only.

    Powers such as `beta^k` have gone to their limit 0; `k` remains only in schedules.
    """

    rule: Rule
    outputs: list[sp.Expr]
    gain: list[sp.Expr]
    sign_gain: list[sp.Expr] | None
    accumulators: tuple[bool, ...]
    curved: list[sp.Expr | None]
    remembered: tuple[sp.Expr, sp.Expr, sp.Expr, int] = (sp.S.Zero, sp.S.Zero, sp.S.Zero, -1)
    remembers: bool = False
    bell: bool = False
    breadth: sp.Expr = sp.S.One
    cubes: tuple[sp.Expr, ...] = ()
    squares: tuple[sp.Expr, ...] = ()
    shares: tuple[sp.Expr, ...] = ()
    squared: tuple[sp.Matrix, ...] = ()
    odd: bool = False

    def of(self, rule: Rule) -> AveragedRule:
        """The same of a rule with other numbers."""
        return replace(self, rule=rule)

    @cached_property
    def memory(self) -> tuple[float, float, float, int]:
        """`remembered` in numbers."""
        *exprs, place = self.remembered
        fresh, first, pole = (number(self.rule, e) for e in exprs)
        return fresh, first, pole, place

    @cached_property
    def alike(self) -> float:
        """Over how many steps what accumulators square stays alike: `sum_l r_l`, the correlations of its squares."""
        return steps_alike(self.rule, self.squared) if self.squared else 1.0

    @property
    def answers(self) -> bool:
        """Whether self-consistent averages differ from those over noise alone: the rule sees its own oscillation."""
        return any(self.accumulators) or self.odd

    @property
    def wide(self) -> bool:
        """Whether an average was taken over Gaussian noise by quadrature."""
        return any(e is not None for e in self.curved)

    @property
    def summed(self) -> bool:
        """Whether that was a sum over nodes, as for all but polynomials."""
        return any(e is not None and not _of_few_terms(e) for e in self.curved)

    @property
    def powers(self) -> int:
        """To how many powers of the noise curves are known to answer, the constant included."""
        return (NODES if self.summed else _POWERS) if self.wide else 0

    def answer(self, e: sp.Expr, k: int) -> sp.Expr:
        """How a curve that is a polynomial answers to the k-th Hermite polynomial of the noise."""
        wide = self.breadth * sp.sqrt(_Q)
        return _quadrature(sp.diff(e, G, k), wide**2) * wide**k / sp.sqrt(sp.factorial(k))

    def known(self) -> AveragedRule:
        """The same with letters that know the signs of the hyperparameters' numbers."""
        known = self.rule.known
        outputs, gain = ([e.xreplace(known) for e in exprs] for exprs in (self.outputs, self.gain))
        signs = None if self.sign_gain is None else [e.xreplace(known) for e in self.sign_gain]
        return replace(self, outputs=outputs, gain=gain, sign_gain=signs)

    @property
    def moved(self) -> list[sp.Expr]:
        """How far theta and the states move, `outputs - (theta, states)`."""
        return [displaced(e, s) for e, s in zip(self.outputs, self._places, strict=True)]

    @property
    def _places(self) -> list[sp.Symbol]:
        return [THETA, *self.rule.letters]

    @property
    def moved_at_a_node(self) -> list[sp.Expr]:
        """The same before curves are averaged, at the noise `NORMAL`."""
        return [
            displaced(m if e is None else e.xreplace(self.noisy), s)
            for e, m, s in zip(self.curved, self.outputs, self._places, strict=True)
        ]

    def nodes(self, graph: Graph, exprs: list[sp.Expr]) -> list[Node]:
        """The expressions as functions of the loads `x = (theta, g, q, states...)`, `hp` and `kk[0] = k`."""
        return self.rule.nodes(graph, exprs)

    def shown(self) -> list[sp.Expr]:
        """The averaged outputs for people, by the names that the user gave."""
        return [self.rule.show(e) for e in self.in_letters()]

    def in_letters(self) -> list[sp.Expr]:
        """The averaged outputs: `q` the variance, `E(...)` the mean over a standard normal `x`."""
        shown = [
            m if e is None else sp.Function("E")(e.xreplace(self.noisy))
            for e, m in zip(self.curved, self.outputs, strict=True)
        ]
        named = {_Q: sp.Symbol("q", positive=True), NORMAL: sp.Symbol("x")}
        return [sp.factor_terms(e.xreplace(named)) for e in shown]

    @property
    def noisy(self) -> dict[sp.Symbol, sp.Expr]:
        """What stands for the gradient in a curve that sees the noise `NORMAL`."""
        return {G: G + self.breadth * sp.sqrt(_Q) * NORMAL}

    def assumed(self) -> str:
        """What the averages assume of the noise, in words."""
        if self.bell:
            return "it is Gaussian in every coordinate, and the rule is averaged over that"
        if any(self.accumulators):
            return "its covariance enters and, through accumulators, its skewness; accumulators stand at their means"
        return "only its covariance enters"


def averaged(rule: Rule, accumulators: str = "full") -> AveragedRule:
    """Average a rule over its noise: accumulators by its second moments, `sign -> erf`, quadrature in whatever else is
    no straight line in `g`.

    With `"frozen"` the step uses the accumulators as they stand, not as they are updated.
    """
    found: AveragedRule = shared((averaged, rule.form, accumulators), lambda: _averaged(rule, accumulators))
    return found if found.rule is rule else found.of(rule)


def _averaged(rule: Rule, accumulators: str) -> AveragedRule:
    steps = [settled(rule, e) for e in rule.step]
    kinks = {k for e in steps for k in e.atoms(*_KINKS)}
    if any(k.has(G) for k in kinks):
        kink = rule.show(kinks.pop())
        what = f"{rule.name} is not smooth in the gradient ({kink})"
        raise FlowError(f"{what}: no averaged rule is known for it; follow the map itself with {said('md.simulate')}.")
    names = rule.letters
    squares = tuple(_accumulates(e, names) for e in steps[1:])
    marks = {e: sp.Symbol(f"_new_{s}\x02") for e, s, a in zip(steps[1:], rule.states, squares, strict=True) if a}
    plain = [e.xreplace({u: m for u, m in marks.items() if u != e}) for e in steps]
    carried = carried_states(plain, names, squares)
    outputs = [_mean_square(rule, e, carried) if a and squares[a - 1] else e for a, e in enumerate(plain)]
    finish = {
        marks[e]: rule_symbols.state(s) if accumulators == "frozen" else m
        for e, m, s in zip(steps[1:], outputs[1:], rule.states, strict=True)
        if e in marks
    }
    cubes, squared_noise = _powers(plain, marks)
    cubes, squared_noise = ([e.xreplace(finish) for e in exprs] for exprs in (cubes, squared_noise))
    noisy = [G, *carried]
    squared = [sp.diff(e, x) != 0 for e, a in zip(plain[1:], squares, strict=True) if a for x in carried]
    signs = set().union(*(e.atoms(sp.sign) for e in plain))
    signs = {s for s in signs if s.free_symbols & {*noisy, *names}}
    if signs:
        return _signed(rule, plain, outputs, signs, squares, finish, steps)
    bent = [not (a and squares[a - 1]) and _curves(e, noisy) for a, e in enumerate(plain)]
    breadth, memory = _breadth(rule, [e for e, b in zip(plain, bent, strict=True) if b], carried, plain[1:])
    wide = _Q * breadth**2
    outputs = [_quadrature(e, wide) if b else m for e, m, b in zip(plain, outputs, bent, strict=True)]
    gain = [_quadrature(sp.diff(e, G), wide) if b else sp.diff(e, G) for e, b in zip(plain, bent, strict=True)]
    curves = [e for e, b in zip(plain, bent, strict=True) if b]
    odd = bool(curves) and all(_odd(e, noisy) for e in curves)
    if any(squared):
        shares = shares_of_square(names, plain, squares, carried, rule)
    else:
        shares = shares_of_mean(names, curves[0], breadth) if odd and not any(squares) and memory[3] >= 0 else ()
    return AveragedRule(
        rule, [e.xreplace(finish) for e in outputs], [e.xreplace(finish) for e in gain], None, squares,
        [e.xreplace(finish) if b else None for e, b in zip(plain, bent, strict=True)], memory, any(squared),
        any(bent) or any(map(_by_nodes, outputs)), breadth, tuple(cubes), tuple(squared_noise), shares,
        squared_memories(rule, plain, squares, carried) if any(squared) else (), odd,
    )  # fmt: skip


def _odd(e: sp.Expr, noisy: list[sp.Symbol]) -> bool:
    """Whether what an expression makes of the noise changes sign with it."""
    there, here = ({s: x * s for s in noisy} for x in (-1, 0))
    return vanishes(e + e.xreplace(there) - 2 * e.xreplace(here))


def _powers(plain: list[sp.Expr], marks: dict[sp.Expr, sp.Symbol]) -> tuple[list[sp.Expr], list[sp.Expr]]:
    """How outputs answer to the cube of the noise and to its square, through accumulators that have its square."""
    kick = {m: sp.diff(e, G, 2) / 2 for e, m in marks.items()}
    cubes = [sp.Add(*(h * sp.diff(e, G, m) for m, h in kick.items())) for e in plain]
    return cubes, [sp.diff(e, G, 2) / 2 + sp.Add(*(h * sp.diff(e, m) for m, h in kick.items())) for e in plain]


def vanishes(e: sp.Expr) -> bool:
    """Whether an expression is zero whatever its letters: by its values, in 30 digits, at two odd places."""
    if e.is_number:
        return bool(e == 0)
    for shift in (1, 2):
        at = {
            s: sp.sqrt(sp.prime(3 * i + shift)) / 11 + sp.Rational(shift, 7)
            for i, s in enumerate(sorted(e.free_symbols, key=str))
        }
        if abs(e.evalf(30, subs=at)) > 1e-15:
            return False
    return True


def _accumulates(e: sp.Expr, states: list[sp.Symbol]) -> bool:
    """Whether an update is even in the gradient, and so in what states remember of it, without being free of it."""
    if not e.has(G) or e.has(sp.sign):
        return False
    linear = [s for s in states if sp.diff(e, s, 2) != 0 or sp.diff(e, s, G) != 0]
    return e.diff(G, 2) != 0 and vanishes(e - e.xreplace({s: -s for s in (G, *linear)}))


def _curves(e: sp.Expr, noisy: list[sp.Symbol]) -> bool:
    """Whether an expression is no straight line in the noise."""
    return any(not vanishes(sp.diff(e, x, y)) for i, x in enumerate(noisy) for y in noisy[: i + 1])


def _mean_square(rule: Rule, e: sp.Expr, carried: dict[sp.Symbol, list]) -> sp.Expr:
    """An accumulator's update, averaged over the stationary law of the fresh noise and the memories."""
    noisy = [G, *(s for s in carried if sp.diff(e, s) != 0)]
    second = {(x, y): sp.expand(sp.diff(e, x, y)) for x in noisy for y in noisy}
    square = not any(v.free_symbols & {G, *rule.letters} for v in second.values())
    if len(noisy) == 1:
        return e + _Q / 2 * second[G, G] if square else _quadrature(e)
    if not square:
        raise FlowError(
            f"{rule.name} accumulates more than squares of what it remembers ({rule.show(e)}): no averaged rule is "
            f"known for it; follow the map itself with {said('md.simulate')}."
        )
    P = memory_covariance(rule, carried)
    extra = sum(second[x, y] * P[x, y] for x in noisy[1:] for y in noisy[1:])
    return e + _Q * sp.factor((second[G, G] + extra) / 2)


def _breadth(
    rule: Rule,
    curves: list[sp.Expr],
    carried: dict[sp.Symbol, list],
    updates: list[sp.Expr],
) -> tuple[sp.Expr, tuple[sp.Expr, sp.Expr, sp.Expr, int]]:
    """The standard deviation of the noise that curves see, for unit noise in the gradient, and its `remembered`.

    They may bend in one running mean `g + ratio m`, and in nothing else that remembers."""
    means = set[sp.Expr]()
    for e in curves:
        bending = [s for s in carried if any(not vanishes(sp.diff(e, s, t)) for t in (G, *carried))]
        ratios = {s: sp.diff(e, s) / sp.diff(e, G) for s in bending}
        if not all(vanishes(sp.diff(r, s)) for r in ratios.values() for s in (THETA, G, *rule.letters)):
            raise FlowError(
                f"{rule.name} bends in what it remembers ({', '.join(str(rule.show(s)) for s in ratios)}): averaging "
                "knows curves of the gradient or of one running mean of it, and squares in accumulators; follow the "
                f"map itself with {said('md.simulate')}."
            )
        means.add(G + sp.Add(*(sp.simplify(r) * s for s, r in ratios.items())))
    if len(means) > 1:
        what = f"{rule.name} bends in {len(means)} different means of the gradient"
        raise FlowError(f"{what}, and averaging handles one; follow the map itself with {said('md.simulate')}.")
    return noise_of_mean(rule, means.pop(), updates) if means else (sp.S.One, AveragedRule.remembered)


def _quadrature(e: sp.Expr, q: sp.Expr = _Q) -> sp.Expr:
    """`E e(g + sqrt(q) x)`, x standard normal, by Gauss and Hermite; a polynomial in g keeps its few terms."""
    if _of_few_terms(e):
        return sp.Add(*(sp.diff(e, G, 2 * r) * q**r / (2**r * sp.factorial(r)) for r in range(_POWERS // 2)))
    x, w = nodes()
    return sp.Add(*(sp.Float(a) * e.xreplace({G: G + sp.sqrt(q) * sp.Float(b)}) for a, b in zip(w, x, strict=True)))


def _of_few_terms(e: sp.Expr) -> bool:
    return e.is_polynomial(G) and sp.degree(e, G) < _POWERS


def _by_nodes(e: sp.Expr) -> bool:
    return e.has(sp.sqrt(_Q)) or sp.degree(e, _Q) > 1 if e.has(_Q) else False


def _signed(
    rule: Rule,
    plain: list[sp.Expr],
    outputs: list[sp.Expr],
    signs: set,
    squares: tuple[bool, ...],
    finish: dict,
    steps: list[sp.Expr],
) -> AveragedRule:
    """A rule that takes a sign, averaged over Gaussian noise."""
    if len(signs) > 1:
        what = f"{rule.name} takes the sign of {len(signs)} different quantities"
        raise FlowError(f"{what}, and averaging handles one; follow the map itself with {said('md.simulate')}.")
    (sign,) = signs
    free = [e.xreplace({sign: _SIGN}) for e in outputs]
    moving = {THETA, G, *rule.letters, _SIGN}
    mixed = [
        a
        for a, e in enumerate(free)
        if not (a and squares[a - 1]) and (sp.diff(e, G, 2) != 0 or sp.diff(e, _SIGN).free_symbols & (moving - {THETA}))
    ]
    if mixed:
        raise FlowError(
            f"{rule.name} mixes a sign with other curves of the gradient ({rule.show(steps[mixed[0]])}): averaging "
            f"knows a sign that is multiplied by numbers; follow the map itself with {said('md.simulate')}."
        )
    spread, memory = noise_of_mean(rule, sign.args[0], plain[1:])
    step = sp.erf(sign.args[0] / (spread * sp.sqrt(2 * _Q)))
    gain, sign_gain = [sp.diff(e, G) for e in free], [sp.diff(e, _SIGN) for e in free]
    return AveragedRule(
        rule,
        [e.xreplace({_SIGN: step}).xreplace(finish) for e in free],
        [e.xreplace(finish) for e in gain],
        [e.xreplace(finish) for e in sign_gain],
        squares,
        [None] * len(free),
        memory,
        bell=True,
    )


def check_noise(rule: AveragedRule, bound: BoundNoise) -> None:
    """Refuse averages over noise that they do not hold for."""
    name = rule.rule.name
    if rule.bell and not bound.gaussian:
        curve = "takes signs of the gradient" if rule.sign_gain is not None else "is no straight line in the gradient"
        raise FlowError(
            f"{name} {curve}, and {bound.noise} is not Gaussian: where such a rule rests, and how it moves, depends on "
            "the whole law of the noise, not on its covariance; "
            f"use {said('md.GaussianNoise')}, or follow the map itself with {said('md.simulate')}."
        )
