"""The time loop of a map as generated code: draw noise, take the step, for many paths side by side.

    advance(blocks, streams, alive, orders, first, last, paths, k0, steps, hp, c, d, nz)

carries the blocks `first .. last-1` through `steps` steps after `k0`. A block holds 64 paths: component `q` of
lane `j` is `s[q*64 + j]`; `alive[j]` counts the steps that were finite. A state of a few numbers stays in
registers from step to step; a longer one stays in memory, and the gradient is a function of its own.
What depends on the step number alone (schedules, bias corrections) is tabulated ahead of the steps. Numbers that differ
from path to path (`maps.settings`) are further components, behind the state; what the table has of them each lane works
out for itself by the same text, and so to the same bits.
"""

from collections.abc import Sequence
from functools import partial

from minidyn.graph import SAMPLE, Graph, Index, Node, reachable
from minidyn.kernels import Emitter, Places, Source, coordinate, store, store_gradient
from minidyn.kernels.rewrite import balanced, dependence, replaced, without_divisions
from minidyn.maps.loss import Loss
from minidyn.maps.loss.compiled import IN_REGISTERS
from minidyn.maps.noise import BoundNoise, place
from minidyn.maps.rules import Rule

_CHUNK = 256  # steps between two looks at memory, and rows of the table
_TABLE: Places = {"table": lambda place: f"table[{place * _CHUNK} + t]"}
_PATHS = "s[({})*64 + lane]"  # an element of a state that lies in memory
Spot = tuple[str, int]  # an array that kernels read numbers from, and a place in it
_ARGS = "blocks, streams, alive, orders, first, last, paths, k0, steps, hp, c, d, nz"


def add_advance(src: Source, loss: Loss, rule: Rule, bound: BoundNoise, spots: Sequence[Spot] = ()) -> None:
    """Add `advance` for this loss, rule and noise to a module; what is at `spots` differs from path to path."""
    src.line("from minidyn.compiler import lanes, side_by_side")
    src.line(
        "from minidyn.kernels.random import few_without_replacement, half_pair, next_pair, next_word, normals, "
        "shuffle, signs, with_replacement, without_replacement"
    )
    if any(law.words > 1 for law, *_ in bound.draws):
        src.line("from minidyn.kernels.heavytails import stable, student")
    if loss.dim * (1 + len(rule.states)) <= IN_REGISTERS and loss.straight and not bound.of_batches:
        _add_fused(src, loss, rule, bound, spots)
    else:
        _add_called(src, loss, rule, bound, spots)


# -- what differs from path to path --


def _lane_places(spots: Sequence[Spot], element: str, loops: bool) -> Places:
    """How kernels read the numbers that differ: number j of them is `element` with j in its braces; with `loops` also
    by a place that is an expression."""
    hyper = {place: j for j, (array, place) in enumerate(spots) if array == "hp"}
    places: Places = {}
    if hyper:
        places["hp"] = lambda q: element.format(hyper[q]) if q in hyper else f"hp[{q}]"
    for array in {array for array, _ in spots} - {"hp"}:  # every place, in order
        first = spots.index((array, 0))
        places[array] = element.replace("{}", f"{first} + {{}}") if loops else partial(_after, element, first)
    return places


def _after(element: str, first: int, place: int) -> str:
    return element.format(first + place)


# -- what depends on the step alone --


def _tabulate(outputs: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """The outputs with everything that depends on the step alone read from `table[j]`, and the table's entries."""
    made = without_divisions(outputs, dependence(outputs, ["hp"], ["kk"]))
    kinds = dependence(made, ["hp"], ["kk"])
    wanted = {n.id: n for n in made if kinds[n.id] == "step"}
    for n in reachable(made):
        wanted |= {a.id: a for a in n.args if kinds[a.id] == "step" and kinds[n.id] == "path"}
    place = {node: ("table", j) for j, node in enumerate(wanted)}
    return balanced(replaced(made, place), ["hp", "table"]), list(wanted.values())


def _entry_lines(rule: Rule, entries: list[Node], places: Places) -> list[str]:
    """The entries of the table at step `kk`: one text, wherever they go."""
    stores = [store(n.graph, n, "table", j) for j, n in enumerate(entries)]
    return Emitter(stores, places=places | {"kk": "kk"}, names=_hyper_names(rule)).lines()


def _of_lanes(rule: Rule, entries: list[Node], spots: Sequence[Spot], places: Places) -> tuple[list[str], Places]:
    """Lines that work out, in step `t` of a lane, what the table has of numbers that differ; how the table is read."""
    apart = {j for j, n in enumerate(entries) if any(_differs(node, spots) for node in reachable([n]))}
    if not apart:
        return [], _TABLE
    own: Places = {"table": lambda j: f"e_{j}"}
    both: Places = {"table": lambda j: f"e_{j}" if j in apart else f"table[{j * _CHUNK} + t]"}
    return ["kk = float(k + 1 + t)", *_entry_lines(rule, entries, places | own)], both


def _differs(n: Node, spots: Sequence[Spot]) -> bool:
    return n.op == "load" and n.data[:2] in spots


def _add_table(src: Source, rule: Rule, entries: list[Node]) -> None:
    """Add `tabulate(table, k, count, hp)`, which fills the table for the next `count` steps."""
    if not entries:
        return
    body = _entry_lines(rule, entries, _TABLE)
    lines = ["for t in side_by_side(count):", "    kk = float(k + 1 + t)", *["    " + line for line in body]]
    src.add("tabulate", "table, k, count, hp", lines, "what depends on the step alone", fma=True)


def _hyper_names(rule: Rule) -> dict[tuple[str, int], str]:
    return {("hp", i): f"h_{h}" for i, h in enumerate(rule.hyper)}


def _chunked(entries: list[Node], block: list[str], before: list[str]) -> list[str]:
    """The loop over chunks of steps around the loop over blocks."""
    table = [f"table = np.empty({len(entries) * _CHUNK})"] if entries else []
    return [
        "n = d.shape[0]", *before, *table, "k = k0", "while k < k0 + steps:",
        f"    count = min({_CHUNK}, k0 + steps - k)", *(["    tabulate(table, k, count, hp)"] if entries else []),
        "    for block in range(first, last):", "        s = blocks[block]", "        r = streams[block]",
        "        ok = alive[block]", *["        " + line for line in block], "    k += count",
    ]  # fmt: skip


# -- a few numbers: the whole step in registers --


def _add_fused(src: Source, loss: Loss, rule: Rule, bound: BoundNoise, spots: Sequence[Spot]) -> None:
    g, size, states = Graph(), loss.dim, len(rule.states)
    gradient = {e.data[1]: d for e, d in bound.gradient(g)}
    new: list[Node] = []
    for p in range(size):
        grad = gradient.get(p, g.const(0.0))
        for sigma, z in bound.sigma_terms(g, p):
            grad = grad + sigma * z
        aux = [g.load("aux", a * size + p) for a in range(states)]
        new += rule.update(g, g.load("w", p), grad, aux, g.load("kk", 0))
    new, entries = _tabulate(new)
    g = new[0].graph
    stores = []
    for q, node in enumerate(new):
        p, a = divmod(q, 1 + states)
        stores.append(store(g, node, "aux" if a else "w", (a - 1) * size + p if a else p))

    lane = _lane_places(spots, "v_{}", loops=False)
    own, table = _of_lanes(rule, entries, spots, lane)
    places = (
        table
        | lane
        | {
            "w": "s_{}",
            "aux": lambda q: f"s_{q + size}",
            "z": "z_{}",
            "label": lambda q: f"z_{q + bound.first_label}",
        }
    )
    names = loss.names | _hyper_names(rule)
    emitter = loss.emitter(stores, places=places, mutable=("w", "aux"), names=names)
    kept = [f"s_{q}" for q in range(size * (1 + states))]
    draws = [line for law, row, count, steps in bound.draws for line in law.alone(row, count, steps)]
    words = [f"r_{i}" for i in range(4)] if draws else []
    halved = bound.gaussian_rows % 2 == 1
    lines = [
        "for lane in lanes(min(64, paths - 64*block)):",
        *[f"    {name} = s[{q * 64} + lane]" for q, name in enumerate(kept)],
        *[f"    v_{j} = s[{(len(kept) + j) * 64} + lane]" for j in range(len(spots))],
        *[f"    {name} = r[{i * 64} + lane]" for i, name in enumerate(words)],
        *(["    kept = r[256 + lane].view(np.float64)"] if halved else []),
        "    live = ok[lane]",
        "    lost = 0.0",
        "    for t in range(count):",
        *["        " + line for line in [*draws, *own, *emitter.lines()]],
        *[f"        lost = lost + {name} * 0.0" for name in kept[:size]],  # zero until something is not finite
        "        live = live + 1.0 if lost == 0.0 else live",
        *[f"    s[{q * 64} + lane] = {name}" for q, name in enumerate(kept)],
        *[f"    r[{i * 64} + lane] = {name}" for i, name in enumerate(words)],
        *(["    r[256 + lane] = kept.view(np.uint64)"] if halved else []),
        "    ok[lane] = live",
    ]
    _add_table(src, rule, entries)
    src.add("advance", _ARGS, _chunked(entries, lines, []), "many paths, many steps", fma=True)


# -- many numbers, or loops over samples and units --


def _add_called(src: Source, loss: Loss, rule: Rule, bound: BoundNoise, spots: Sequence[Spot]) -> None:
    size, states, first_label = loss.dim, len(rule.states), bound.first_label
    src.add("draw", "r, z, index, order, k, n", bound.draw_lines())
    g = Graph()
    before, stores = store_gradient(g, bound.gradient(g), "out", size)
    picked = ["    i = index[b*64 + lane]"] if bound.picks else ["    i = b"]

    label = "b" if loss.per_sample else "0"
    if loss.outputs is not None:
        label = f"b*{bound.per_sample} + {{}}" if loss.per_sample else "{}"
    differ = _lane_places(spots, f"s[({size * (1 + states)} + {{}})*64 + lane]", loops=True)
    places: Places = differ | {"w": _PATHS, "label": f"z[({first_label} + {label})*64 + lane]"}
    places["pull"] = f"z[({bound.first_alike} + {'b' if loss.per_sample else '0'})*64 + lane]"
    headers = {SAMPLE: ["for b in range(n):", *picked]}
    emitter = loss.emitter(stores, places, headers=headers, blocks=_by_blocks(bound))
    src.add("noisy_grad", "s, c, d, nz, z, index, n, lane, out", [*before, *emitter.lines()], fma=True)
    gaussian = _gaussian_lines(loss, bound, differ)
    if gaussian:
        src.add("add_gaussian", "s, c, d, nz, z, lane, out", gaussian, fma=True)
    p = coordinate(size)
    rg = Graph()
    here = [(p, 1)]
    aux = [rg.load("aux", a * size, here) for a in range(states)]
    outs = rule.update(rg, rg.load("s", 0, here), rg.load("out", 0, here), aux, rg.load("kk", 0))
    rule_lines, entries = _rule_lines(rule, outs, p, size, spots, differ)
    lines = [
        "for t in range(count):",
        "    used = draw(r, z, index, orders[block] if shuffles else own, k + t + 1, n)",
        "    for lane in lanes(min(64, paths - 64*block)):",
        f"        out = np.empty({size})",
        "        noisy_grad(s, c, d, nz, z, index, used, lane, out)",
        *(["        add_gaussian(s, c, d, nz, z, lane, out)"] if gaussian else []),
        "        lost = 0.0",
        *["        " + line for line in rule_lines],
        f"            lost = lost + s[({p.var})*64 + lane] * 0.0",
        "        ok[lane] = ok[lane] + (1.0 if lost == 0.0 else 0.0)",
    ]
    own = "n * 64" if bound.picks else "1"
    before = [
        f"shuffles = {bound.shuffles}",
        f"z = np.zeros({(bound.rows + 1) * 64})",
        f"index = np.zeros({bound.batch * 64}, np.int64)",
        f"own = np.zeros({own}, np.int64)",
        "for q in range(own.shape[0]):",
        "    own[q] = q // 64",
    ]
    _add_table(src, rule, entries)
    src.add("advance", _ARGS, _chunked(entries, lines, before), "many paths, many steps", fma=True)


def _by_blocks(bound: BoundNoise) -> bool:
    """Whether samples go by blocks of eight: a path alone gains much, many paths lose what fills the last block."""
    return bound.batch % 8 == 0 or bound.batch >= 80


def _rule_lines(
    rule: Rule, outs: list[Node], p: Index, size: int, spots: Sequence[Spot], differ: Places
) -> tuple[list[str], list[Node]]:
    """The rule applied coordinate by coordinate, and the entries of its table."""
    new, entries = _tabulate(outs)
    g = new[0].graph
    stores = [store(g, n, "s", i * size, [(p, 1)]) for i, n in enumerate(new)]

    own, table = _of_lanes(rule, entries, spots, differ)
    places = table | differ | {"s": _PATHS, "aux": f"s[({size} + {{}})*64 + lane]"}
    lines = Emitter(stores, places=places, mutable=("s", "aux"), names=_hyper_names(rule)).lines()
    return [*own, *lines], entries


def _gaussian_lines(loss: Loss, bound: BoundNoise, differ: Places) -> list[str]:
    g = Graph()
    stores = [
        store(g, sigma * z, "out", *place(position), add=True)
        for position in bound.positions
        for sigma, z in bound.sigma_terms(g, position)
    ]
    stores += [node for part in bound.alike for node in part.added(g, bound, bound.first_alike)]
    if not stores:
        return []
    count = ["n = d.shape[0]"] if bound.alike and loss.per_sample else []
    return [*count, *loss.emitter(stores, places=differ | {"w": _PATHS, "z": "z[({})*64 + lane]"}).lines()]
