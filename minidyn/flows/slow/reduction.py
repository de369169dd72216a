"""The quasistatic flow in the coordinates of a chart, derived in symbols for any update rule.

With `z*(s)` the fixed points above the chart, `R = dz*/ds` spans the neutral space and `l`, `l A = l`, `l R = I`, reads
the coordinates off a displacement. The formula of `quasistatic` becomes, per step,

    drift      l F2[W_SS + W_SN + W_SN^T] / 2 - l z*''[C] / 2 + l p         covariance   C = l Q l^T

(the second term is Ito's). The stationary covariance is solved for in the smallest block of `rows` first, then in the
states of each coordinate, block by block. Intermediate results get letters (see `algebra`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import sympy as sp

from minidyn.common.errors import FlowError
from minidyn.common.locks import cached_property
from minidyn.flows.slow.algebra import Form, Row, add, eliminate, expand, invert, lyapunov, scaled
from minidyn.flows.slow.rows import Rows
from minidyn.maps.discrete import Map
from minidyn.minima.charts import Chart, repeatable, tidy


@dataclass(frozen=True)
class ChartForm:
    """Drift (d) and covariance (d, d) per step, in the coordinates, the hyperparameters and the noise.

    letters : definitions that the formulas use, in order; empty where they could be written out.
    noise : (d, r) factor of the covariance on the map's own normals, None where noise is not all Gaussian.
    feedback : how far covariances across the minima keep themselves up through noise that multiplies them, one row and
        column for each pair of `pairs`; second moments die out where its spectral radius is below one.
    cloud : the covariances across the minima, pair by pair, where curves of the noise may make them negative.
    seen : what accumulators see beside the noise at the minima, which must be the symbols `e_1, e_2, ...` in the rest
        of the formulas; empty where no state does.
    core : the matrix that carries the oscillation across the minima from step to step; its spectral radius is below
        one where the minimum is stable.  metric : the metric in which drifts of this rule are gradients.
    """

    drift: sp.Matrix
    covariance: sp.Matrix
    noise: sp.Matrix | None
    core: sp.Matrix
    metric: sp.Matrix
    feedback: sp.Matrix
    cloud: sp.Matrix
    seen: sp.Matrix
    letters: dict[sp.Symbol, sp.Expr]
    values: dict[sp.Symbol, float]


class Reduction(Rows):
    """One derivation: `Reduction(map, chart, accumulators).form()`."""

    def __init__(self, system: Map, chart: Chart, accumulators: str = "full"):
        super().__init__(system, chart, accumulators)
        self._blocks: dict[tuple[int, int], sp.Matrix] = {}
        self._meet()

    # -- the noise that the oscillation meets ---------------------------------------------------------------
    def _meet(self) -> None:
        """Noise that multiplies the oscillation, `S = Sigma + sum_p N_p x_p` with x the covariances of `y`: they are
        solved for in the smallest block, `x = base + feedback x`."""
        self.noise, self.parts, self.pairs, self.feedback = self.ing.sigma, [self.ing.sigma], [], sp.zeros(0, 0)
        self.cloud: list[sp.Expr] = []
        if self.ing.bends is None or self.jets.sign_gain:
            return
        self.pairs = [(a, b) for a in range(self.codim) for b in range(a + 1)]
        added = [self._added(a, b, self.ing.bends) for a, b in self.pairs]
        self.parts += added
        _ = self.slow_kick
        if any(self.lag) and not self.slow_noise and self._meets_tangents():
            raise FlowError(
                f"{self.map.rule.name} remembers noise along the minima that multiplies its own displacement; no "
                "closed form is known for that: use the numerical flow."
            )
        rows = self.blocks[0]
        place = [(rows.index(("y", a)), rows.index(("y", b))) for a, b in self.pairs]
        base = self._across(self.letters.matrix(self.ing.sigma))
        self.feedback = self._kept_up(added, place)
        x = eliminate(self.feedback, [base[at] for at in place], self.letters)
        if self.ing.slopes is not None:  # they alone decide whether displacements die out
            self.feedback = self._kept_up([self._added(a, b, self.ing.slopes) for a, b in self.pairs], place)
            self.cloud = x
        self.noise = self.letters.matrix(
            self.ing.sigma + sum((v * m for v, m in zip(x, added, strict=True)), sp.zeros(self.size, self.size)), "s"
        )

    def _kept_up(self, added: list[sp.Matrix], place: list[tuple[int, int]]) -> sp.Matrix:
        """What the oscillation under the noise that each covariance adds makes of all of them."""
        kept = [self._across(self.letters.matrix(m)) for m in added]
        return sp.Matrix(len(place), len(place), lambda p, r: kept[r][place[p]])

    def _added(self, a: int, b: int, bends: list[list[sp.Matrix]]) -> sp.Matrix:
        """What a covariance one of the rows a, b of `y` adds to the noise, (D, D)."""
        u, v = self.back[:, a], self.back[:, b]
        twice = 1 if a == b else 2
        return sp.Matrix(self.size, self.size, lambda i, j: twice * (u.T * bends[i][j] * v)[0])

    def _meets_tangents(self) -> bool:
        """Whether a displacement along the minima changes what noise a displacement meets."""
        bends = self.ing.bends or []
        return any(not (m * self.slope).applyfunc(tidy).is_zero_matrix for row in bends for m in row)

    def _across(self, S: sp.Matrix) -> sp.Matrix:
        """Stationary covariance of the smallest block under gradient noise of covariance S."""
        rows = self.blocks[0]
        known = sp.Matrix(len(rows), len(rows), lambda a, b: self.letters(sum((
            x * y * S[c[1], e[1]] for c, x in self.kicks[rows[a]].items() for e, y in self.kicks[rows[b]].items()
        ), sp.S.Zero)))  # fmt: skip
        left = self.diagonal(0)
        return self.letters.matrix(lyapunov(left, left, known, symmetric=True))

    @property
    def seen(self) -> list[sp.Expr]:
        """What accumulators see beside the noise at the minima, `diag(N + H C H)`: it must be `more`."""
        every = range(self.codim)
        return [self.letters(self.noise[i, i] - self.ing.sigma[i, i] + sum(
            self.h[i][a] * self.h[i][b] * self.between(("y", a), ("y", b)) for a in every for b in every
        )) for i in range(self.size)] if self.more else []  # fmt: skip

    def channel(self, c: Row, e: Row, S: sp.Matrix) -> sp.Expr:
        """Covariance of two noise channels, for gradient noise of covariance S."""
        i, j = c[1], e[1]
        if c[0] == e[0] == "xi":
            return S[i, j]
        if c[0] == e[0]:
            return 2 / sp.pi * sp.asin(S[i, j] / sp.sqrt(S[i, i] * S[j, j])) if i != j else sp.S.One
        if c[0] == "sign":
            i, j = j, i
        return sp.sqrt(2 / sp.pi) * S[i, j] / sp.sqrt(S[j, j])

    @cached_property
    def channels(self) -> dict[tuple[Row, Row], sp.Expr]:
        """Covariance of every pair of channels, a letter each, under the noise that the oscillation meets."""
        names = self._channel_names
        return {(c, e): self.letters(self.channel(c, e, self.noise), "s") for c in names for e in names}

    def noise_between(self, f: Form, g: Form) -> sp.Expr:
        """Covariance of two forms in the channels, such as two kicks."""
        return sum((x * y * self.channels[c, e] for c, x in f.items() for e, y in g.items()), sp.S.Zero)

    # -- stationary covariances ---------------------------------------------------------------------------
    def block(self, i: int, j: int) -> sp.Matrix:
        """Stationary covariance between two blocks of rows: `X = A X A^T + Q`, block by block."""
        if j > i:
            return self.block(j, i).T
        if (i, j) not in self._blocks:
            self._blocks[i, j] = self._solve(i, j)
        return self._blocks[i, j]

    @cached_property
    def steps(self) -> dict[Row, Form]:
        """`step` of every row."""
        return {row: self.step(row) for block in self.blocks for row in block}

    @cached_property
    def kicks(self) -> dict[Row, Form]:
        """`kick` of every row."""
        return {row: self.kick(row) for block in self.blocks for row in block}

    def _solve(self, i: int, j: int) -> sp.Matrix:
        rows, columns = self.blocks[i], self.blocks[j]
        known = sp.zeros(len(rows), len(columns))
        for a, row in enumerate(rows):
            for b, column in enumerate(columns):
                total = self.noise_between(self.kicks[row], self.kicks[column])
                for p, x in self.steps[row].items():
                    for u, y in self.steps[column].items():
                        if (self.where[p][0], self.where[u][0]) != (i, j):
                            total += x * y * self.between(p, u)
                known[a, b] = self.letters(total)
        left, right = self.diagonal(i), self.diagonal(j)
        return self.letters.matrix(lyapunov(left, right, known, symmetric=i == j))

    def diagonal(self, i: int) -> sp.Matrix:
        """The block of the step on the diagonal."""
        rows = self.blocks[i]
        table = [[self.letters(self.steps[row].get(column, sp.S.Zero)) for column in rows] for row in rows]
        return sp.Matrix(table)

    def between(self, p: Row, u: Row) -> sp.Expr:
        """Stationary covariance of two rows."""
        (i, a), (j, b) = self.where[p], self.where[u]
        return self.block(i, j)[a, b]

    def _reaches_along(self) -> bool:
        """Whether what the oscillation adds to the noise has a component along the minima."""
        flat = [tidy(sum(self.slope[i, a] * m[i, j] for i in range(self.size)))
                for m in self.parts[1:] for a in range(self.dim) for j in range(self.size)]  # fmt: skip
        return any(e != 0 and not self._vanishes(e) for e in flat)

    # -- slow and fast together -----------------------------------------------------------------------------
    @cached_property
    def reads(self) -> sp.Matrix:
        """`l` on theta, (d, D): the coordinates are read off along the rule's own metric."""
        e = self.effective
        self.metric = sp.Matrix(self.dim, self.dim, lambda a, b: self.letters(
            sum(self.theta[i, a] * self.theta[i, b] / e[i] for i in range(self.size)), "G"))  # fmt: skip
        inverse = self.letters.matrix(invert(self.metric), "G")
        return self.letters.matrix(inverse * sp.Matrix(self.dim, self.size, lambda a, i: self.theta[i, a] / e[i]), "l")

    @cached_property
    def lag(self) -> list[dict[int, sp.Expr]]:
        """How far theta_i still moves for each leading state, `J_theta,m (I - J_m,m)^-1`."""
        J, n = self.jets.slopes, len(self.leads)
        inner = sp.Matrix(n, n, lambda a, b: (1 if a == b else 0) - J[1 + self.leads[a]][3 + self.leads[b]])
        row = sp.Matrix(1, n, lambda _, b: J[0][3 + self.leads[b]])
        total = (row * invert(inner)).applyfunc(tidy) if n else row
        self.total_lag = dict(zip(self.leads, total, strict=True)) if n else {}
        return [{b: self.rule(total[k], i) for k, b in enumerate(self.leads)} for i in range(self.size)]

    @cached_property
    def effective(self) -> list[sp.Expr]:
        """How far theta_i moves in the end for one gradient."""
        _ = self.lag
        return [
            self.rule(self._through([self.jets.slopes[a][1] for a in range(1 + self.states)]), i)
            for i in range(self.size)
        ]

    def _through(self, column: list[sp.Expr]) -> sp.Expr:
        """A column of the rule's outputs, seen by `l`: theta's entry and those of the leading states."""
        return tidy(column[0] + sum(m * column[1 + b] for b, m in self.total_lag.items()))

    @cached_property
    def slow_kick(self) -> list[Form]:
        """`l` on the noise, by coordinate; exactly zero where noise does not reach the tangent space."""
        _ = self.lag
        J = self.jets
        gain = [self._through(J.gain), self._through(J.sign_gain) if J.sign_gain else sp.S.Zero]
        ratio = [[self.raw(tidy(g / self._effective_raw), i) for g in gain] for i in range(self.size)]
        kinds = [(kind, name) for kind, name in enumerate(("xi", "sign")) if any(r[kind] != 0 for r in ratio)]
        tangent = [
            [
                tidy(sum(
                    self.slope[i, a] * ratio[i][kind] * self.channel((name, i), other, S)
                    for i in range(self.size) for kind, name in kinds
                ))
                for other in self._channel_names for S in self.parts
            ]
            for a in range(self.dim)
        ]  # fmt: skip
        self.slow_noise = all(e == 0 or self._vanishes(e) for row in tangent for e in row)
        if self.slow_noise:
            return [{} for _ in range(self.dim)]
        return [
            {(name, i): self.letters(self.reads[a, i] * self.rule(g, i)) for i in range(self.size)
             for g, name in zip(gain, ("xi", "sign"), strict=True) if g != 0} for a in range(self.dim)
        ]  # fmt: skip

    @property
    def _effective_raw(self) -> sp.Expr:
        return self._through([self.jets.slopes[a][1] for a in range(1 + self.states)])

    @property
    def _channel_names(self) -> list[Row]:
        names: list[Row] = [("xi", i) for i in range(self.size)]
        return names + ([("sign", i) for i in range(self.size)] if self.jets.sign_gain else [])

    def _vanishes(self, e: sp.Expr) -> bool:
        return sp.count_ops(e) < 400 and sp.simplify(e if self.more else e.xreplace(self.roots)) == 0

    @cached_property
    def covariance(self) -> sp.Matrix:
        """`C = l Q l^T`, (d, d)."""
        kick = self.slow_kick
        return sp.Matrix(self.dim, self.dim, lambda a, b: self.letters(self.noise_between(kick[a], kick[b]), "C"))

    @cached_property
    def response(self) -> dict[Row, list[sp.Expr]]:
        """Covariance of the rows with the coordinates' own noise, `(I - A)_S^-1 Pi_S Q l^T`, (d) numbers each."""
        slow = self.slow_kick
        rows = [row for block in self.blocks for row in block]
        if self.slow_noise:
            return {row: [sp.S.Zero] * self.dim for row in rows}
        out: dict[Row, list[sp.Expr]] = {}
        for block in self.blocks:
            rest = sp.Matrix([[self.noise_between(self.kicks[row], k) + sum(
                x * out[p][a] for p, x in self.steps[row].items() if p in out) for a, k in enumerate(slow)]
                for row in block])  # fmt: skip
            table = sp.Matrix([[self.steps[row].get(column, sp.S.Zero) for column in block] for row in block])
            solved = invert(self.letters.matrix(sp.eye(len(block)) - table)) * self.letters.matrix(rest)
            for row, values in zip(block, solved.tolist(), strict=True):
                out[row] = [self.letters(v) for v in values]
        return out

    def displacement(self, j: int) -> tuple[Form, list[sp.Expr]]:
        """theta_j as a form in the rows (its stable part) and in the coordinates (its neutral part)."""
        fast: Form = {("y", b): self.back[j, b] for b in range(self.codim) if self.back[j, b] != 0}
        for i in range(self.size):
            tangent = self.letters(sum(self.theta[j, a] * self.reads[a, i] for a in range(self.dim)), "P")
            if tangent != 0:
                fast = add(fast, {("m", b, i): -tangent * m for b, m in self.lag[i].items() if m != 0})
        return fast, [self.theta[j, a] for a in range(self.dim)]

    @cached_property
    def back(self) -> sp.Matrix:
        """(D, D - d): where theta stands when only `y` differs from zero."""
        e = self.effective
        wide = sp.Matrix(self.size, self.codim, lambda i, b: e[i] * self.N[b, i])
        return self.letters.matrix(wide * invert(self.letters.matrix(self.N * wide)), "b")

    def pair(self, f: tuple[Form, list[sp.Expr]], g: tuple[Form, list[sp.Expr]]) -> sp.Expr:
        """Covariance of two forms: `W_SS + W_SN + W_SN^T`."""
        total = sum((x * y * self.between(p, u) for p, x in f[0].items() for u, y in g[0].items()), sp.S.Zero)
        if not self.slow_noise:
            for (fast, _), (_, slow) in ((f, g), (g, f)):
                total += sum(
                    (x * self.response[p][a] * slow[a] for p, x in fast.items() for a in range(self.dim)), sp.S.Zero
                )
        return total

    @cached_property
    def spread(self) -> sp.Matrix:
        """Covariance of theta, (D, D)."""
        forms = [self.displacement(j) for j in range(self.size)]
        _ = self.slow_kick
        table = {
            (j, k): self.letters(self.pair(forms[j], forms[k]), "W") for j in range(self.size) for k in range(j + 1)
        }
        return sp.Matrix(self.size, self.size, lambda j, k: table[max(j, k), min(j, k)])

    def drift(self) -> sp.Matrix:
        """The drift of the coordinates, per step."""
        C, s, W = self.covariance, self.chart.coordinates, self.spread
        pushes = [self.letters(self._push(i, W)) for i in range(self.size)]
        bends = []
        for i, e in enumerate(self.chart.place):
            bend = sum(C[a, b] * sp.diff(e, s[a], s[b]) for a in range(self.dim) for b in range(self.dim))
            for b, lag in self.lag[i].items():
                f = self.jets.fixed[b].xreplace(self.at[i]).xreplace(self.roots)
                bend += lag * sum(C[a, c] * sp.diff(f, s[a], s[c]) for a in range(self.dim) for c in range(self.dim))
            bends.append(self.letters(bend))
        weak = [self.rule(self.jets.weak, i) for i in range(self.size)]
        moved = [(push - bend) / 2 + slip for push, bend, slip in zip(pushes, bends, weak, strict=True)]
        return sp.Matrix([sum(self.reads[a, i] * moved[i] for i in range(self.size)) for a in range(self.dim)])

    def _push(self, i: int, W: sp.Matrix) -> sp.Expr:
        """`F2[W]` of coordinate i as `l` sees it: the loss's third derivative, q's second, the rule's curvature."""
        J, every = self.jets, range(self.size)
        total = self.effective[i] * sum(self.ing.third[i][j, k] * W[j, k] for j in every for k in every)
        by_q = self._through([J.slopes[a][2] for a in range(1 + self.states)])
        if by_q != 0:
            total += self.rule(by_q, i) * sum(self.ing.ddq[i][j, k] * W[j, k] for j in every for k in every)
        for p, u, curve in self._curves():
            total += self.rule(curve, i) * self.pair(self._input(p, i), self._input(u, i))
        return total

    def _curves(self) -> Iterator[tuple[int, int, sp.Expr]]:
        width = 3 + self.states
        for p in range(width):
            for u in range(width):
                curve = self._through([self.jets.curves[a][p][u] for a in range(1 + self.states)])
                if curve != 0:
                    yield p, u, curve

    def _input(self, p: int, i: int) -> tuple[Form, list[sp.Expr]]:
        """Input p of coordinate i of the rule (theta, g, q, states) as a form."""
        if p == 0:
            return self.displacement(i)
        if p == 1:
            return self.across(i, sp.S.One), [sp.S.Zero] * self.dim
        if p == 2:
            return self._along({j: self.ing.dq[i, j] for j in range(self.size) if self.ing.dq[i, j] != 0})
        fast, slow = self._along(self.pull(p - 3, i))
        return add(fast, {("m", p - 3, i): sp.S.One}), slow

    def _along(self, direction: dict[int, sp.Expr]) -> tuple[Form, list[sp.Expr]]:
        fast: Form = {}
        slow = [sp.S.Zero] * self.dim
        for j, g in direction.items():
            more, neutral = self.displacement(j)
            fast = add(fast, scaled(more, g))
            slow = [x + g * y for x, y in zip(slow, neutral, strict=True)]
        return fast, slow

    # -- the result ---------------------------------------------------------------------------------------
    @repeatable()
    def form(self) -> ChartForm:
        """Everything, written out where that is short enough."""
        drift, noise, _ = self.drift(), self._factor(), self.reads
        parts = [drift, self.covariance, self.diagonal(0), self.metric, self.feedback]
        parts += [sp.Matrix(self.cloud), sp.Matrix(self.seen), *([noise] if noise is not None else [])]
        parts, letters = expand(parts, self.letters.meaning, self.roots)
        drift, covariance, core, metric, feedback, cloud, seen = parts[:7]
        factor = parts[7] if noise is not None else None
        return ChartForm(drift, covariance, factor, core, metric, feedback, cloud, seen, letters, self.ing.values)

    def _factor(self) -> sp.Matrix | None:
        """`l B sigma`, (d, r): how the map's normals drive the coordinates."""
        sigma = self.ing.factor
        if sigma is None or self.jets.sign_gain or (self.pairs and not self.slow_noise and self._reaches_along()):
            return None
        kick = self.slow_kick
        return sp.Matrix(
            self.dim, sigma.cols, lambda a, r: sum((x * sigma[c[1], r] for c, x in kick[a].items()), sp.S.Zero)
        )
