"""Charts: closed-form coordinates `theta = theta(s)` of a manifold of minima, checked before they are used."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import sympy as sp
from sympy.core.random import rng

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.byvalue import ByValue
from minidyn.common.errors import InputError, ManifoldError
from minidyn.common.intake import numbers, ordered, shown, table
from minidyn.common.locks import cached_property
from minidyn.graph import walk
from minidyn.maps.loss import Loss

_SAMPLES = 12  # points of the chart where ranks, and what sympy cannot prove, are checked
_DEEPEST = 100  # layers of a loss that sympy differentiates
_LARGEST = 20_000  # terms of a mean over samples that are still written out


@contextmanager
def repeatable() -> Iterator[None]:
    """sympy factors polynomials with the help of random points: here they are the same every time."""
    before = rng.getstate()
    rng.seed(0)
    try:
        yield
    finally:
        rng.setstate(before)


class Chart(ByValue):
    """Coordinates `s` of the minima, `theta = theta(s)`: that they lie there is proved or checked numerically.

    Parameters
    ----------
    loss : a loss whose parameters are all scalars.
    place : `{parameter: expression in the coordinates and the loss's constants}`, every parameter once.
    coordinates : the symbols `s`, as many as the minima have dimensions.
    gap : the relative size below which an eigenvalue of the Hessian counts as zero.

    `loss` is the loss; `proved` says whether sympy showed that the gradient vanishes on the chart, or it was evaluated
    at points.
    Raises InputError for what does not fit together, ManifoldError where the chart is no chart of the minima.

    >>> import sympy as sp, minidyn as md
    >>> x, y, s = sp.symbols("x y s")
    >>> circle = md.Loss((x**2 + y**2 - 1)**2 / 4, [x, y])
    >>> chart = md.Manifold(circle, chart={x: sp.cos(s), y: sp.sin(s)}, coordinates=[s]).chart
    >>> chart.proved, chart.point([0.0])
    (True, array([1., 0.]))
    """

    _offers = "loss dimension proved evidence point jacobian locate"

    def __init__(self, loss: Loss, place: Mapping[Any, Any], coordinates: Sequence[Any], gap: float = 1e-7):
        self.loss, self.gap, place = loss, gap, table(place, "the chart")
        if any(b.shape for b in loss.blocks):
            raise InputError("a chart needs a loss whose parameters are all scalars; write vectors out as symbols.")
        self.names = ordered(coordinates, "coordinates")
        self._check_names(place)
        taken = {*map(str, loss.params)}
        # real symbols, so that sqrt(s**2) becomes |s|; a coordinate may bear a parameter's name
        self.coordinates = [_real(c, taken) for c in self.names]
        self.constants = {c: _real(c, set()) for c in loss.constants}
        self.params = [_real(p, set()) for p in loss.params]
        here = dict(zip(self.names, self.coordinates, strict=True)) | self.constants
        self.place = [sp.sympify(place[p], strict=True).xreplace(here) for p in loss.params]
        self.proved = False
        self._check_minima()

    def _check_names(self, place: Mapping[Any, Any]) -> None:
        loss = self.loss
        if (
            not self.names
            or not all(isinstance(c, sp.Symbol) for c in self.names)
            or len(set(self.names)) < len(self.names)
        ):
            raise InputError(f"coordinates must be a list of different sympy Symbols, not {shown(self.names)}.")
        missing = [p for p in loss.params if p not in place]
        extra = [p for p in place if p not in loss.params]
        if missing or extra:
            what = f"says nothing about {missing[0]}" if missing else f"speaks of {extra[0]}, which is no parameter"
            raise InputError(f"the chart {what}; it needs an expression for each of {', '.join(loss.param_names)}.")
        known = {*self.names, *loss.constants}
        for p, e in place.items():
            e = walk.expression(e, f"the chart's place for {p}")
            foreign = sorted(str(s) for s in walk.free_symbols(e) - known)
            if foreign:
                apart = " (with the same assumptions)" if foreign[0] in map(str, known) else ""
                raise InputError(
                    f"the chart's place for {p} uses {foreign[0]}; it may use the coordinates "
                    f"{', '.join(map(str, self.names))}{apart} and the constants of the loss."
                )

    # -- the loss in symbols --
    @property
    def dimension(self) -> int:
        """Number of coordinates d."""
        return len(self.coordinates)

    @property
    def values(self) -> dict[Any, float]:
        """The numbers of the loss's constants, by the symbols that stand for them in the chart."""
        return {self.constants[c]: v for c, v in self.loss.constants.items()}

    def on_samples(self, expr: Any) -> list[sp.Expr]:
        """An expression of the loss at each sample (one where there is no data), in the symbols `params`."""
        rename = dict(zip(self.loss.params, self.params, strict=True)) | self.constants
        expr = sp.sympify(expr)
        size, depth = walk.extent(expr)
        if size > _LARGEST or depth > _DEEPEST:
            raise InputError("the loss is too long to be written out in symbols; use the numerical flow.")
        expr, out = expr.doit(), []
        for i in range(self.loss.n_samples or 1):
            numbers: dict[Any, Any] = {}
            for symbol, array in self.loss.data.items():
                if isinstance(symbol, sp.Symbol):
                    numbers[symbol] = exact(array[i])
                else:
                    numbers |= {
                        e: exact(array[(i, *map(int, e.indices))]) for e in expr.atoms(sp.Indexed) if e.base == symbol
                    }
            out.append(expr.xreplace(numbers).xreplace(rename))
        if len(out) * (1 + sp.count_ops(expr)) > _LARGEST:
            raise InputError(
                "the mean over the samples is too long to be written out in symbols; use the numerical flow."
            )
        return out

    @cached_property
    def expression(self) -> sp.Expr:
        """The loss, samples written out."""
        samples = self.on_samples(self.loss.expr)
        return sp.Add(*samples) / len(samples)

    @cached_property
    def gradient(self) -> list[sp.Expr]:
        """`dL/dtheta_i` as expressions in the parameters."""
        return [slope(self.expression, p) for p in self.params]

    def restrict(self, expr: sp.Expr) -> sp.Expr:
        """An expression in the parameters at `theta(s)`."""
        return expr.xreplace(dict(zip(self.params, self.place, strict=True)))

    # -- checks --
    @repeatable()
    def _check_minima(self) -> None:
        rests = [tidy(self.restrict(g)) for g in self.gradient]
        rests = [r if r == 0 else sp.simplify(r) if sp.count_ops(r) < 400 else r for r in rests]
        self.proved = all(r == 0 for r in rests)
        points = self.sample(_SAMPLES, np.random.default_rng(0))
        if not self.proved:
            self._check_residuals(rests, points)
        for s in points:
            self._check_rank(s)

    def _check_residuals(self, rests: list[sp.Expr], points: Floats) -> None:
        for s in points:
            w = self.point(s)
            gradient, table = self._derivatives(w)
            hessian = np.linalg.norm(table)
            for p, rest, g in zip(self.loss.params, rests, gradient, strict=True):
                if abs(g) > 1e-10 * (1e-300 + hessian * (1.0 + np.linalg.norm(w))):
                    raise ManifoldError(
                        f"the chart does not lie in the minima: on it dL/d{p} = {walk.printed(self.public(rest))}, "
                        f"which is {g:.3g} at {self._where(s)}; every point of a chart must have a vanishing gradient."
                    )

    def _check_rank(self, s: Floats) -> None:
        w, d = self.point(s), self.dimension
        sizes = np.linalg.svd(self.jacobian(s), compute_uv=False)
        if len(sizes) < d or not sizes[-1] > self.gap * sizes[0]:
            raise ManifoldError(
                f"the chart is singular: at {self._where(s)} its derivative in the coordinates has rank "
                f"{int((sizes > self.gap * sizes[0]).sum())}, expected {d}; every coordinate must move the parameters."
            )
        values = np.linalg.eigvalsh(np.array(self._derivatives(w)[1], dtype=float))
        top = np.abs(values).max()
        flat = int((np.abs(values) <= self.gap * top).sum())
        if flat != d or top == 0:
            raise ManifoldError(
                f"the chart has {d} coordinate{'s' * (d > 1)}, but at {self._where(s)} the minima have dimension "
                f"{flat if top else len(w)}; give one coordinate for each dimension."
            )
        if values[0] < -self.gap * top:
            raise ManifoldError(
                f"the chart runs along saddles: at {self._where(s)} a Hessian eigenvalue is {values[0]:.3g}."
            )

    def _where(self, s: Floats) -> str:
        return ", ".join(f"{c} = {v:.4g}" for c, v in zip(self.names, s, strict=True))

    # -- numbers --
    @cached_property
    def _functions(self) -> tuple[Any, Any]:
        place = [e.xreplace({c: exact(v) for c, v in self.values.items()}) for e in self.place]
        slopes = [[slope(e, c) for c in self.coordinates] for e in place]
        modules = ["scipy", "numpy"]
        return sp.lambdify([self.coordinates], place, modules), sp.lambdify([self.coordinates], slopes, modules)

    @cached_property
    def _derivatives(self) -> Any:
        """Gradient and Hessian as a function of theta; a few points do not pay for compiled kernels."""
        numbers = {c: exact(v) for c, v in self.values.items()}
        gradient = [g.xreplace(numbers) for g in self.gradient]
        hessian = [[slope(g, p) for p in self.params] for g in gradient]
        return sp.lambdify([self.params], [gradient, hessian], ["scipy", "numpy"], cse=True)

    def point(self, s: ArrayLike) -> Floats:
        """`theta(s)`, shape (..., D), for coordinates of shape (..., d)."""
        return self._apply(self._functions[0], s, (self.loss.dim,))

    def jacobian(self, s: ArrayLike) -> Floats:
        """`d theta_i / d s_a`, shape (..., D, d)."""
        return self._apply(self._functions[1], s, (self.loss.dim, self.dimension))

    def _apply(self, function: Any, s: ArrayLike, tail: tuple[int, ...]) -> Floats:
        array = numbers(s, "s", lambda: [str(c) for c in self.names])
        if array.ndim == 0 or array.shape[-1] != self.dimension:
            raise InputError(f"s has shape {array.shape}, expected (..., {self.dimension}): one number per coordinate.")
        flat = array.reshape(-1, self.dimension)
        out = np.empty((len(flat), *tail))
        with np.errstate(all="ignore"):
            for row, at in zip(out, flat, strict=True):
                row[...] = np.asarray(function(at), dtype=float)
        return out.reshape(*array.shape[:-1], *tail)

    def sample(self, count: int, rng: np.random.Generator) -> Floats:
        """Random coordinates (count, d) where the chart is finite."""
        tries = rng.normal(0.0, 1.5, (20 * count, self.dimension))
        try:
            good = tries[np.isfinite(self.point(tries)).all(axis=-1)][:count]
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise InputError(
                f"the chart could not be evaluated ({error}); write it in real, finite expressions."
            ) from error
        if len(good) < count:
            raise InputError("the chart is not finite at ordinary values of its coordinates.")
        return np.asarray(good)

    def locate(self, w: ArrayLike, *, tolerance: float = 1e-8) -> Floats:
        """Coordinates (..., d) of points (..., D) of the minima, by Gauss-Newton from many starts.

        Where several fit, as with an angle, those nearest to zero. Raises ManifoldError where none does.
        """
        points = self.loss.check(w)
        if not np.isfinite(points).all():
            raise InputError("w contains NaN or Inf; give finite points of the minima.")
        flat = points.reshape(-1, self.loss.dim)
        unique, back = np.unique(flat, axis=0, return_inverse=True)
        found = np.array([self._locate(p, tolerance) for p in unique])
        return found[back.ravel()].reshape(*points.shape[:-1], self.dimension)

    def _locate(self, w: Floats, tolerance: float) -> Floats:
        known = {c: w[i] for i, e in enumerate(self.place) for c in self.coordinates if e == c}
        tries = np.random.default_rng(1).normal(0.0, 1.5, (64, self.dimension))
        tries[0] = 0.1
        for a, c in enumerate(self.coordinates):
            if c in known:
                tries[:, a] = known[c]
        best = None
        for s in tries if len(known) < self.dimension else tries[:1]:
            s = self._gauss_newton(s.copy(), w)
            gap = np.linalg.norm(self.point(s) - w)
            fits = gap <= tolerance * (1.0 + np.linalg.norm(w))
            if fits and (best is None or np.abs(s).sum() < np.abs(best).sum() - 1e-9):
                best = s
        if best is None:
            raise ManifoldError(
                f"the point {np.round(w, 6).tolist()} is not reached by the chart; start on another branch."
            )
        return best

    def _gauss_newton(self, s: Floats, w: Floats) -> Floats:
        for _ in range(60):
            gap, slope = w - self.point(s), self.jacobian(s)
            if not (np.isfinite(gap).all() and np.isfinite(slope).all()):
                return s
            step = np.linalg.lstsq(slope, gap, rcond=None)[0]
            s = s + step
            if np.abs(step).max() <= 1e-15 * (1.0 + np.abs(s).max()):
                return s
        return s

    # -- in words --
    def public(self, expr: Any) -> Any:
        """An expression with the user's own symbols in place of the real ones."""
        back = dict(zip(self.coordinates, self.names, strict=True)) | {v: k for k, v in self.constants.items()}
        return expr.xreplace(back | dict(zip(self.params, self.loss.params, strict=True)))

    @property
    def taken(self) -> list[Any]:
        """The symbols that formulas on this chart may use already."""
        return [*self.names, *self.loss.params, *self.constants]

    @property
    def evidence(self) -> str:
        """How it is known that the chart lies in the minima."""
        if self.proved:
            return "lies in the minima (proved symbolically)"
        return f"lies in the minima (gradient checked numerically at {_SAMPLES} points, not proved)"

    def _repr_latex_(self) -> str:
        """Where each parameter lies, in one formula."""
        places = [
            (walk.latex(p), walk.latex(self.public(e))) for p, e in zip(self.loss.params, self.place, strict=True)
        ]
        return f"${', '.join(f'{p} = {e}' for p, e in places)}$"

    def __repr__(self) -> str:
        parts = ", ".join(f"{p} = {self.public(e)}" for p, e in zip(self.loss.params, self.place, strict=True))
        return f"Chart({parts})"


def slope(e: sp.Expr, x: sp.Symbol) -> sp.Expr:
    """The derivative, branch by branch: what sits in a kink alone is left out."""
    return sp.diff(e, x).replace(sp.DiracDelta, lambda *_: sp.S.Zero)


@repeatable()
def tidy(e: sp.Expr, limit: int = 1000) -> sp.Expr:
    """A shorter form of an expression: one fraction, factored; it comes back as it is where multiplying out would
    take more than `limit` terms."""
    e = sp.sympify(e)
    if e.is_Atom or max(terms(e)) > limit:
        return e
    try:
        short = _on_circles(e) if e.has(sp.sin, sp.cos, sp.tan) else sp.factor(sp.cancel(sp.together(e)))
    except (sp.PolynomialError, NotImplementedError, ZeroDivisionError):
        return e
    return short if short == 0 or sp.count_ops(short) <= sp.count_ops(e) else e


def terms(e: sp.Expr) -> tuple[float, float]:
    """Terms of numerator and denominator if an expression were multiplied out, at most."""
    if e.is_Pow and e.exp.is_Integer:
        top, bottom = (min(x ** abs(int(e.exp)), 1e9) for x in terms(e.base))
        return (top, bottom) if e.exp > 0 else (bottom, top)
    if e.is_Mul:
        pairs = [terms(a) for a in e.args]
        return min(math.prod(p[0] for p in pairs), 1e9), min(math.prod(p[1] for p in pairs), 1e9)
    if e.is_Add:
        parts = [(terms(a), sp.fraction(a)[1]) for a in e.args]
        bottoms = {below: size for (_, size), below in parts}
        common = min(math.prod(bottoms.values()), 1e9)
        return sum(top * common / bottom for (top, bottom), _ in parts), common
    return 1.0, 1.0


def _on_circles(e: sp.Expr) -> sp.Expr:
    """The same with sines and cosines, of which no sine remains squared."""
    e = e.replace(sp.tan, lambda u: sp.sin(u) / sp.cos(u))
    angles = sorted({u for f in e.atoms(sp.sin, sp.cos) for u in f.args}, key=str)
    pairs = [(u, sp.Dummy("S"), sp.Dummy("C")) for u in angles]
    names = {f(u): x for u, *both in pairs for f, x in zip((sp.sin, sp.cos), both, strict=True)}
    top, bottom = sp.fraction(sp.cancel(sp.together(e.xreplace(names))))
    for _, S, C in pairs:
        top, bottom = (sp.rem(p, S**2 + C**2 - 1, S) for p in (top, bottom))
    back = {x: f for f, x in names.items()}
    return sp.factor(sp.cancel(top / bottom)).xreplace(back)


def exact(number: float) -> sp.Rational:
    """A float as the decimal fraction that is printed for it."""
    return sp.Rational(repr(float(number)))


def _real(symbol: Any, taken: set[str]) -> sp.Symbol:
    name = str(symbol)
    while name in taken:
        name += "_"
    return sp.Symbol(name + "\x03", real=True)  # a mark that nobody types: no letter of a derivation is called so
