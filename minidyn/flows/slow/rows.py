"""What oscillates across the minima above a chart, row by row, in symbols: where each number goes in a step, and which
noise enters it.

Across the minima `H = N^T K N` with `N theta' = 0`, so `y = N dtheta` closes upon itself up to a few averages of the
rule's states.
"""

import sympy as sp

from minidyn.common.errors import FlowError, ManifoldError
from minidyn.common.locks import cached_property
from minidyn.flows.slow.algebra import Form, Letters, Row, add, scaled
from minidyn.flows.slow.ingredients import Q_ROOT, Ingredients, Jets, ingredients, jets
from minidyn.maps.discrete import Map
from minidyn.maps.rule_symbols import THETA
from minidyn.minima.charts import Chart, tidy


class Rows:
    """The numbers that oscillate: `y`, families of states that it listens to, then the states of each coordinate."""

    def __init__(self, system: Map, chart: Chart, accumulators: str = "full"):
        self.map, self.chart, self.self_consistent = system, chart, accumulators == "self-consistent"
        self.ing: Ingredients = ingredients(system, chart)
        self.jets: Jets = jets(system, accumulators)
        self.letters = Letters()
        self.size, self.dim, self.states = len(chart.params), chart.dimension, len(self.jets.names)
        self._geometry()
        self._sort_states()
        self._families()

    # -- geometry -------------------------------------------------------------------------------------
    def _geometry(self) -> None:
        """Tangents, normals `N` with an identity block, `K = H` there, and the rule's numbers by coordinate."""
        L, place, s = self.letters, self.chart.place, self.chart.coordinates
        self.slope = sp.Matrix(self.size, self.dim, lambda i, a: tidy(sp.diff(place[i], s[a])))
        null = self.slope.T.nullspace(simplify=tidy)
        if len(null) != self.size - self.dim:
            raise ManifoldError("the chart is singular: its derivatives in the coordinates are not independent.")
        normals, self.pivots = sp.Matrix([list(v) for v in null]).rref(simplify=tidy, iszerofunc=lambda e: tidy(e) == 0)
        self.N = L.matrix(normals.applyfunc(tidy), "n")
        self.K = L.matrix(self.ing.hessian.extract(list(self.pivots), list(self.pivots)), "h")
        self.h = [
            [L(sum(self.N[a, i] * self.K[a, b] for a in range(self.codim))) for b in range(self.codim)]
            for i in range(self.size)
        ]
        # where q does not vary along the chart its root is a short expression, else a letter
        answers = self.self_consistent and any(self.jets.accumulators)
        self.more = [sp.Symbol(f"e_{i + 1}", positive=True) for i in range(self.size)] if answers else []
        seen = [q + e for q, e in zip(self.ing.q, self.more, strict=True)] if answers else self.ing.q
        roots = [
            sp.sqrt(q) if not answers and not q.free_symbols & set(s) else sp.Symbol(f"r_{i + 1}", positive=True)
            for i, q in enumerate(self.ing.q)
        ]
        self.roots = {r: sp.sqrt(q) for r, q in zip(roots, seen, strict=True) if r.is_Symbol and r != sp.sqrt(q)}
        self.at = [{Q_ROOT: r, THETA: t} for r, t in zip(roots, place, strict=True)]
        self.theta = L.matrix(self.slope, "t")

    @property
    def codim(self) -> int:
        """`D - d`: how many directions lead across the minima."""
        return self.size - self.dim

    def rule(self, e: sp.Expr, i: int) -> sp.Expr:
        """A number of the averaged rule, for coordinate i."""
        return self.letters(self.raw(e, i), "p")

    def raw(self, e: sp.Expr, i: int) -> sp.Expr:
        """The same, without a letter."""
        out = e.xreplace(self.at[i])
        if not out.has(Q_ROOT) and self.ing.q[i] == 0 and e.has(Q_ROOT):
            raise FlowError("the noise vanishes in a coordinate where the rule divides by its size.")
        return out

    def _sort_states(self) -> None:
        """States that lead (they move theta) and states that answer (accumulators, moved by theta through q)."""
        J, n = self.jets.slopes, self.states
        moved = [sp.diff(f, Q_ROOT) != 0 or sp.diff(f, THETA) != 0 for f in self.jets.fixed]
        varies = any(e != 0 for e in self.ing.dq) or any(f.has(THETA) for f in self.jets.fixed)
        self.leads = [b for b in range(n) if not (moved[b] and varies) and any(e != 0 for e in J[1 + b])]
        self.answers = [b for b in range(n) if b not in self.leads and any(e != 0 for e in J[1 + b])]
        outputs = [0, *(1 + b for b in self.leads)]
        if any(J[a][3 + b] != 0 for a in outputs for b in self.answers):
            raise FlowError(
                f"{self.map.rule.name}: the state {self.jets.names[self.answers[0]]} depends on the noise's size and "
                "moves the parameters even where the gradient vanishes; no closed form is known for that: "
                "use the numerical flow."
            )

    def _families(self) -> None:
        """Averages `N diag(w) m` of leading states that `y` listens to, closed under the map."""
        J, every = self.jets.slopes, range(self.size)
        self.families: list[tuple[int, list[sp.Expr]]] = []
        self.family_step: list[dict[int, sp.Expr]] = []
        self.listens: dict[int, tuple[int, sp.Expr]] = {}
        for b in self.leads:
            if J[0][3 + b] != 0:
                self.listens[b] = self._family(b, [self.raw(J[0][3 + b], i) for i in every])
        done = 0
        while done < len(self.families):
            b, w = self.families[done]
            row: dict[int, sp.Expr] = {}
            for c in self.leads:
                if J[1 + b][3 + c] != 0:
                    f, ratio = self._family(c, [w[i] * self.raw(J[1 + b][3 + c], i) for i in every])
                    row[f] = ratio
            self.family_step.append(row)
            done += 1

    def _family(self, b: int, w: list[sp.Expr]) -> tuple[int, sp.Expr]:
        for f, (c, known) in enumerate(self.families):
            if b == c and known[0] != 0:
                ratio = tidy(w[0] / known[0])
                if all(tidy(x - ratio * y) == 0 for x, y in zip(w, known, strict=True)):
                    return f, ratio
        if len(self.families) > 4:
            raise FlowError(
                f"{self.map.rule.name}: its states mix differently in each coordinate; use the numerical flow."
            )
        self.families.append((b, w))
        return len(self.families) - 1, sp.S.One

    # -- the oscillation, row by row ----------------------------------------------------------------------
    @cached_property
    def blocks(self) -> list[list[Row]]:
        """Rows of the oscillation: `y` with the families, then leading states, then answering ones."""
        r, every = range(self.codim), range(self.size)
        core: list[Row] = [("y", a) for a in r] + [("u", f, a) for f in range(len(self.families)) for a in r]
        leads = [[("m", b, i) for b in self.leads] for i in every] if self.leads else []
        answers = [[("m", b, i) for b in self.answers] for i in every] if self.answers else []
        return [core, *leads, *answers]

    @cached_property
    def where(self) -> dict[Row, tuple[int, int]]:
        """Block and place of each row."""
        return {row: (k, j) for k, block in enumerate(self.blocks) for j, row in enumerate(block)}

    def across(self, i: int, scale: sp.Expr) -> Form:
        """`scale` times the change of the gradient's coordinate i."""
        return {("y", b): scale * self.h[i][b] for b in range(self.codim) if self.h[i][b] != 0} if scale != 0 else {}

    def move(self, i: int) -> Form:
        """The change of theta_i in a step, without noise."""
        J = self.jets.slopes[0]
        return add(
            self.across(i, self.rule(J[1], i)),
            {("m", b, i): self.rule(J[3 + b], i) for b in self.leads if J[3 + b] != 0},
        )

    def step(self, row: Row) -> Form:
        """Where a row goes in a step, without noise."""
        J, every = self.jets.slopes, range(self.size)
        if row[0] == "y":
            a = row[1]
            out = add({row: sp.S.One}, *(scaled(self.across(i, self.rule(J[0][1], i)), self.N[a, i]) for i in every))
            return add(out, {("u", f, a): ratio for f, ratio in self.listens.values()})
        if row[0] == "u":
            _, f, a = row
            b, w = self.families[f]
            out = add(
                *(scaled(self.across(i, self.letters(w[i] * self.raw(J[1 + b][1], i))), self.N[a, i]) for i in every)
            )
            return add(out, {("u", g, a): ratio for g, ratio in self.family_step[f].items()})
        _, b, i = row
        out = self.across(i, self.rule(J[1 + b][1], i))
        out = add(out, {("m", c, i): self.rule(J[1 + b][3 + c], i) for c in range(self.states) if J[1 + b][3 + c] != 0})
        pull = self.pull(b, i)
        return add(out, *(scaled(self.move(j), -g) for j, g in pull.items()))

    def pull(self, b: int, i: int) -> dict[int, sp.Expr]:
        """How the fixed value of an answering state changes with theta: its gradient, by coordinate."""
        if b not in self.answers:
            return {}
        fixed = self.jets.fixed[b]
        by_root, by_theta = self.raw(sp.diff(fixed, Q_ROOT) / (2 * Q_ROOT), i), self.raw(sp.diff(fixed, THETA), i)
        out = {j: self.letters(by_root * self.ing.dq[i, j]) for j in range(self.size) if self.ing.dq[i, j] != 0}
        if by_theta != 0:
            out[i] = self.letters(out.get(i, sp.S.Zero) + by_theta)
        return out

    def kick(self, row: Row) -> Form:
        """The noise in a row, as a form in the channels `("xi", i)` and `("sign", i)`."""
        every = range(self.size)
        if row[0] == "y":
            return add(*(scaled(self.enters(0, i), self.N[row[1], i]) for i in every))
        if row[0] == "u":
            b, w = self.families[row[1]]
            return add(*(scaled(self.enters(1 + b, i), self.letters(self.N[row[2], i] * w[i])) for i in every))
        _, b, i = row
        return add(self.enters(1 + b, i), *(scaled(self.enters(0, j), -g) for j, g in self.pull(b, i).items()))

    def enters(self, a: int, i: int) -> Form:
        """The noise in output a of coordinate i."""
        out = {("xi", i): self.rule(self.jets.gain[a], i)}
        if self.jets.sign_gain:
            out["sign", i] = self.rule(self.jets.sign_gain[a], i)
        return {c: e for c, e in out.items() if e != 0}
