"""A flow that the user wrote: drift and diffusion as sympy expressions in the parameters."""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import sympy as sp

from minidyn.common.arrays import ArrayLike, Floats
from minidyn.common.errors import InputError, ManifoldError
from minidyn.common.intake import one_of, ordered, shown
from minidyn.common.locks import cached_property, derived
from minidyn.common.status import Status
from minidyn.compiler import compiled, jit
from minidyn.flows.base import Flow, stay
from minidyn.graph import Converter, Graph, Node, derivatives, walk
from minidyn.kernels import Source, matrix, store
from minidyn.kernels.elimination import solve
from minidyn.kernels.pointers import SIGNATURES
from minidyn.maps.discrete import Map
from minidyn.maps.rule_symbols import K
from minidyn.solvers.schemes import READINGS

_CONSTRAINTS = 0  # where their number stands in `fp`, alone
SIGNATURES |= {
    "symbolic_field": "void(f8[:], f8, f8[:], f8[:], f8[:,:], f8[:], f8[:,:])",  # w, k, hp, c, d, b, f
    "symbolic_slope": "void(f8[:], f8[:], f8, f8[:], f8[:], f8[:,:], f8[:])",  # w, u, k, hp, c, d, out
    "constraint": "void(f8[:], f8[:], f8[:,:], f8[:], f8[:])",  # w, c, d, values, gradients
}


def _field(fns, w, k, hp, c, d, nz, fp, b, f):
    symbolic_field, _ = fns
    symbolic_field(w, k, hp, c, d, b, f)
    return 0


def _jacobian(fns, w, k, hp, c, d, nz, fp, J):
    (symbolic_slope,) = fns
    size = w.shape[0]
    u = np.zeros(size)
    column = np.empty(size)
    for j in range(size):
        u[j] = 1.0
        symbolic_slope(w, u, k, hp, c, d, column)
        u[j] = 0.0
        for i in range(size):
            J[i, j] = column[i]
    return 0


@jit
def _to_constraint(constraint, w, c, d, count):
    """Newton's method in the normal space of the constraints: w -= G^T (G G^T)^-1 values; a status code."""
    size = w.shape[0]
    values = np.empty(count)
    gradients = np.empty(count * size)
    gram = np.empty((count, count))
    turn = np.empty((count, 1))
    before = np.inf
    for _ in range(50):
        constraint(w, c, d, values, gradients)
        for a in range(count):
            turn[a, 0] = values[a]
            for e in range(count):
                total = 0.0
                for i in range(size):
                    total += gradients[a * size + i] * gradients[e * size + i]
                gram[a, e] = total
        if not solve(gram, turn):
            return Status.LEFT_MANIFOLD
        move, scale = 0.0, 0.0
        for i in range(size):
            total = 0.0
            for a in range(count):
                total += gradients[a * size + i] * turn[a, 0]
            w[i] -= total
            move = max(move, abs(total))
            scale = max(scale, abs(w[i]))
        if not move < np.inf:
            return Status.LEFT_MANIFOLD
        if move <= 4e-16 * scale or (move <= 1e-12 * scale and move >= before):
            return 0
        before = move
    return Status.LEFT_MANIFOLD


def _retract(fns, w, hp, c, d, nz, fp):
    _, constraint = fns
    count = np.int64(fp[_CONSTRAINTS])
    if count == 0:
        return 0
    return _to_constraint(constraint, w, c, d, count)


class SymbolicFlow(Flow):
    """`dw = drift dt + diffusion dW` as you wrote it, on the clock `t = lr k` of a map.

    Parameters
    ----------
    system : the map whose clock, parameters and constants the flow shares.
    drift : D expressions in the parameters and constants of the loss, and in the step number `k` (1, 2, ...: it
        stays the same while a step lasts); per unit of `t`.
    diffusion : a matrix of D rows, one column per independent noise, or a list of D expressions for diagonal noise;
        None for no noise.
    reading : "ito" or "stratonovich".
    reads : how `compare` reads the map beside it: "iterates", "midpoints" where the equation is one of mid-points
        `(theta_k + theta_{k+1}) / 2`, "projected" where it lives on the minima.
    constraint : expressions that stay zero, `[x**2 + y**2 - 1]`: after every step the state is put back there. The
        drift must keep the constraint (in the Ito reading, with its second-order part).

    `expressions`, `factor` and `coordinates` are drift, diffusion (a matrix) and parameters as they were understood.
    `noise_kind` says which schemes fit (see `docs/solvers.md`); it is found by differentiating the diffusion.
    Raises InputError for shapes or symbols that do not fit.

    >>> import sympy as sp, minidyn as md
    >>> x = sp.Symbol("x")
    >>> sgd = md.Map(md.Loss(x**2 / 2, [x]), md.SGD(0.1), md.GaussianNoise(1.0))
    >>> flow = md.SymbolicFlow(sgd, drift=[-x], diffusion=[sp.sqrt(0.1)])
    >>> flow.noise_kind, flow.drift([2.0])
    ('additive', array([-2.]))
    """

    _offers = "coordinates expressions factor constraint"
    noisy = True  # as far as its author says so
    name: ClassVar[str] = "symbolic flow"
    reference: ClassVar[str] = "your own"
    needs: ClassVar[tuple[str, ...]] = ("symbolic_field", "constraint")
    jacobian_needs: ClassVar[tuple[str, ...]] = ("symbolic_slope",)
    field: ClassVar[Any] = staticmethod(_field)
    retract: ClassVar[Any] = staticmethod(_retract)
    jacobian: ClassVar[Any] = staticmethod(_jacobian)
    reasons: ClassVar[dict[int, str]] = {
        Status.LEFT_MANIFOLD: (
            "the state cannot be put back on the constraint; take smaller steps or look at its gradient."
        )
    }

    def __init__(
        self,
        system: Map,
        drift: Any = (),
        diffusion: Any = None,
        *,
        reading: str = "ito",
        constraint: Sequence[Any] = (),
        reads: str = "iterates",
    ):
        super().__init__(system)
        self.reading = one_of(reading, "reading", tuple(READINGS))
        self.reads = one_of(reads, "reads", ("iterates", "midpoints", "projected"))
        self.expressions = [self._own(e) for e in _vector("drift", drift, self.dim)]
        self.factor = _matrix(diffusion, self.dim).applyfunc(self._own)
        self.constraint = [self._own(_expression("constraint", e)) for e in ordered(constraint, "constraint")]
        self.source  # noqa: B018 - unknown symbols are reported now

    def of(self, system: Map) -> Flow:
        """The same flow of another map; of one that differs in numbers alone nothing is read again."""
        if system.form != self.map.form:
            return super().of(system)
        flow = copy.copy(self)
        flow.map, vars(flow)["form"] = system, self.form
        return flow

    def _own(self, e: sp.Expr) -> sp.Expr:
        """An expression in the parameters, the constants and the step number, which any symbol called k is."""
        self.loss.refuse_data("a symbolic flow", [e])
        named = {s for s in walk.free_symbols(e) if str(s) == K.name}
        taken = {s for s in [*self.loss.params, *self.loss.constants] if str(s) == K.name}
        if named - taken and taken:
            raise InputError(
                "the flow uses another symbol k than the one declared: sympy tells symbols with different assumptions "
                "(real=True, ...) apart; use the same object in both places."
            )
        return e.xreplace({s: K for s in named - taken})

    @property
    def columns(self) -> int:  # type: ignore[override]
        """Number of independent noises."""
        return int(self.factor.shape[1])

    @cached_property
    def coordinates(self) -> list[Any]:
        """The parameters one by one, in the order of `w`."""
        out: list[Any] = []
        for b in self.loss.blocks:
            out += [b.symbol[key] for key in np.ndindex(*b.shape)] if b.shape else [b.symbol]
        return out

    @derived
    def noise_kind(self) -> str:  # type: ignore[override]
        """ "additive", "diagonal", "commutative" or "general"."""
        g, x = self.factor.applyfunc(lambda e: sp.nsimplify(e, rational=True)), self.coordinates
        slopes = [[[_simple(sp.diff(e, q)) for q in x] for e in g.row(i)] for i in range(self.dim)]
        if all(s == 0 for row in slopes for e in row for s in e):
            return "additive"
        square = g.shape[0] == g.shape[1]
        own = all(g[i, r] == 0 for i in range(self.dim) for r in range(self.columns) if i != r)
        if square and own and all(slopes[i][i][q] == 0 for i in range(self.dim) for q in range(self.dim) if q != i):
            return "diagonal"
        for j in range(self.columns):
            for r in range(j):
                for i in range(self.dim):
                    along = [g[q, j] * slopes[i][r][q] - g[q, r] * slopes[i][j][q] for q in range(self.dim)]
                    if _simple(sp.Add(*along)) != 0:
                        return "general"
        return "commutative"

    # -- kernels --
    def _converter(self, graph: Graph) -> tuple[Converter, Node]:
        """sympy -> nodes, and the learning rate of the step."""
        names = list(self.map.rule.hyper)
        lr = graph.load("hp", names.index("lr")) if "lr" in names else graph.const(1.0)
        step = {K: graph.load("hp", len(names))}
        return self.loss.converter(graph, step if self._k_is_free else None), lr

    @property
    def _k_is_free(self) -> bool:
        """Whether `k` is the number of the step here, not a parameter or a constant."""
        return K not in self.coordinates and K not in self.loss.constants

    @property
    def own_clock(self) -> bool:
        """Whether the number of the step stands in the expressions."""
        return self._k_is_free and any(e.has(K) for e in (*self.expressions, *self.factor))

    def speeds(self, numbers: Floats) -> Floats | None:
        """The learning rates (N,); None where the step number stands in the equations, or the rule has no lr."""
        names = list(self.map.rule.hyper)
        return None if self.own_clock or "lr" not in names else numbers[:, names.index("lr")]

    def _lines(self, stores: list[Node]) -> list[str]:
        places = matrix("f", self.columns) | {"k": "k", "d": "d[0, {}]"}
        return self.loss.emitter(stores, places=places).lines()

    @property
    def _chosen(self) -> tuple[Any, ...]:
        return tuple(self.expressions), sp.ImmutableMatrix(self.factor), tuple(self.constraint)

    @derived
    def source(self) -> Source:
        """`symbolic_field`, the slope of its drift along u (`symbolic_slope`), and `constraint` with its gradients.

        Field and slope are per step: drift times lr, diffusion times its root; lr is 1 where the rule has none.
        """
        src = Source(f"symbolic flow on {self.loss}")
        g = Graph()
        convert, lr = self._converter(g)
        root = g.unary("sqrt", lr)
        drift = [lr * convert(e) for e in self.expressions]
        stores = _stores(g, drift, "b") + _stores(g, [root * convert(e) for e in self.factor], "f")
        src.add("symbolic_field", "w, k, hp, c, d, b, f", self._lines(stores), fma=True)
        slopes = derivatives.forward(drift, "w", "u")
        src.add("symbolic_slope", "w, u, k, hp, c, d, out", self._lines(_stores(g, slopes, "out")))
        g = Graph()
        convert, _ = self._converter(g)
        values = [convert(e) for e in self.constraint]
        slopes = [convert(sp.diff(e, q)) for e in self.constraint for q in self.coordinates]
        stores = _stores(g, values, "values") + _stores(g, slopes, "gradients")
        src.add("constraint", "w, c, d, values, gradients", self._lines(stores))
        return src

    @cached_property
    def inlined(self) -> tuple[Any, Any, tuple[Any, ...]] | None:
        """Without a constraint, whose Newton's method takes its time on each path, the expressions themselves."""
        if self.constraint:
            return None
        return compiled(_field), compiled(stay), (self.kernels.symbolic_field, self.kernels.constraint)

    # -- starting points --
    def stochastic(self, w0: Floats) -> bool:
        """Whether there is a diffusion at all."""
        return not self.factor.is_zero_matrix

    def numbers(self, w0: Floats) -> Floats:
        """How many expressions stay zero, (1,), whatever the starting points."""
        return np.array([float(len(self.constraint))])

    def start(self, w0: ArrayLike) -> Floats:
        """Theta; on the constraint where there is one, and refused where it is far from it."""
        points = self.theta(w0)
        if not self.constraint:
            return points
        flat = np.ascontiguousarray(points.reshape(-1, self.dim)).copy()
        m, (_, retract, fns) = self.map, self.pointers
        for w in flat:
            before = w.copy()
            code = retract(fns, w, m.hyper_at(), m.loss.c, m.loss.rows, m.bound.numbers, self.numbers(flat))
            if code or not np.linalg.norm(w - before) <= 0.1 * (1 + np.linalg.norm(w)):
                raise ManifoldError(
                    f"w0 = {np.round(before, 6).tolist()} does not satisfy the constraint and is not near a point "
                    "that does; start on it."
                )
        return flat.reshape(points.shape)

    def _describe(self, latex: bool, w: ArrayLike | None = None) -> str:
        """Equations, state, clock and reference; nothing is known of its validity, at `w` or elsewhere."""
        if w is not None:
            self._point(w)

        def show(e: Any) -> str:
            return walk.latex(walk.shortened(e)) if latex else walk.named(e)

        noise = f"{self.noise_kind} noise, {READINGS[self.reading]}" if self.stochastic(np.zeros(0)) else "no noise"
        lines = []
        for i, name in enumerate(self.coordinates):
            parts = [f"({show(self.expressions[i])}) dt"]
            parts += [f"({show(e)}) dW{r + 1}" for r, e in enumerate(self.factor.row(i)) if e != 0]
            lines.append(f"d{show(name)} = {' + '.join(parts)}")
        if latex:
            lines = [f"${line}$" for line in lines]
        kept = [f"kept at zero: {', '.join(map(show, self.constraint))}"] if self.constraint else []
        return "\n".join(
            [
                f"Symbolic flow beside {self.map.rule}",
                *lines,
                *kept,
                f"state: w; clock: t = lr k; {noise}",
                "valid: an equation of your own, of which nothing is assumed",
                f"reference: {self.reference}",
            ]
        )


def _stores(graph: Graph, nodes: Sequence[Node], array: str) -> list[Node]:
    return [store(graph, n, array, i) for i, n in enumerate(nodes)]


def _simple(e: Any) -> Any:
    return sp.simplify(e) if e != 0 else e


def _expression(what: str, e: Any) -> sp.Expr:
    try:
        out = sp.sympify(e, strict=True)
    except (sp.SympifyError, TypeError, ValueError):
        out = None
    if not isinstance(out, sp.Expr):
        raise InputError(f"the {what} must be sympy expressions, not {shown(e)}.")
    return out


def _vector(what: str, values: Any, size: int) -> list[sp.Expr]:
    listed = [values] if isinstance(values, sp.Expr) else ordered(values, f"the {what}")
    if len(listed) != size:
        raise InputError(f"the {what} has {len(listed)} expressions, expected {size}: one for each parameter.")
    return [_expression(what, e) for e in listed]


def _matrix(diffusion: Any, size: int) -> sp.Matrix:
    if diffusion is None:
        return sp.zeros(size, 0)
    if isinstance(diffusion, sp.MatrixBase):
        rows = [list(diffusion.row(i)) for i in range(diffusion.rows)]
    else:
        rows = [diffusion] if isinstance(diffusion, sp.Expr) else ordered(diffusion, "the diffusion")
        if not any(isinstance(r, (list, tuple, np.ndarray)) for r in rows):
            return sp.diag(*_vector("diffusion", rows, size))
        rows = [ordered(r, "a row of the diffusion") for r in rows]
    if len(rows) != size or len({len(r) for r in rows}) != 1:
        raise InputError(f"the diffusion must have {size} rows of equal length, one row for each parameter.")
    return sp.Matrix([[_expression("diffusion", e) for e in r] for r in rows])
