"""The sections of a model file, one function each: a checked table in, a part of the `ModelSpec` out."""

import re
from inspect import signature
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp

from minidyn.files.modelfile import spec
from minidyn.files.modelfile.data import Samples
from minidyn.files.modelfile.matrices import is_matrix, is_table, number
from minidyn.files.modelfile.table import Table, is_number
from minidyn.flows import FLOWS
from minidyn.maps.loss.outputs import CRITERIA
from minidyn.maps.noise import NOISES, REQUIRED, Option
from minidyn.maps.rules import LIBRARY
from minidyn.simulate import observables

MAX_SIZE = 1_000_000  # numbers in one parameter

_NAME = re.compile(r"\\?[^\W\d]\w*(?:\^?\{[^{}\s]*\}\w*)*'*")  # x, lambda, \theta, x_{1}, W^{(2)}_{a}
_RESERVED = ("True", "Sum", "Piecewise")
_LOSS_KEYS = (
    "kind", "params", "expr", "model", "outputs", "constants", "inputs", "target", "weights", "criterion", "data",
    "test",
)  # fmt: skip


def read_loss(root: Table, folder: Path | None) -> spec.LossSpec:
    """`[loss]`: what is minimized, over which parameters, on which samples."""
    table = root.table("loss", _LOSS_KEYS)
    kind = table.choice("kind", ("expression", "regression"))
    symbols: dict[str, Any] = {}
    params = read_params(table, symbols)
    constants = read_constants(table, symbols)
    samples = Samples(table, folder)
    inputs = read_inputs(table, samples, symbols)
    regression = kind == "regression"
    for key in ("expr",) if regression else ("model", "outputs", "target", "weights", "criterion", "test"):
        if key in table:
            other = "`model` and `target`" if regression else "`expr`"
            table.refuse(key, f"does not belong to a loss of kind {kind}, which has {other}")
    key = "model" if regression else "expr"
    expr = _read_model(table, symbols) if regression else table.expression(key, table.get(key, str), symbols)
    used = {str(atom) for atom in expr.atoms(sp.Symbol, sp.IndexedBase, sp.MatrixSymbol)}
    if not used & {parameter.name for parameter in params}:
        table.fail(key, "an expression in at least one of the parameters")
    criterion = table.choice("criterion", CRITERIA, "squared") if regression else None
    several = not isinstance(expr, sp.Expr) or is_matrix(expr)
    target = read_target(table, samples, criterion, several) if criterion else None
    weights = samples.numbers(table, "weights", table.content["weights"]) if "weights" in table else None
    lengths = {name: len(values) for name, values in inputs.items()}
    lengths |= {} if target is None else {"target": len(target)}
    lengths |= {} if weights is None else {"weights": len(weights)}
    if inputs and len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        table.refuse("inputs", f"and target differ in their number of samples: {found}")
    test = read_test(table, samples, inputs, criterion) if criterion else None
    return spec.LossSpec(kind, params, expr, constants, inputs, target, criterion, symbols, test, weights)


def _read_model(table: Table, symbols: dict[str, Any]) -> sp.Basic:
    """`model`: one expression, a column or list of them, or with `outputs = {c = 3}` one for each value of a letter."""
    given, several = table.value("model", "an expression in quotes, or a list of them"), "outputs" in table
    if isinstance(given, list):
        if several or not given:
            table.fail("model", "one expression where `outputs` has a letter, else a list of one or more")
        return sp.Tuple(*(table.expression("model", text, symbols) for text in given))
    if not several:
        expr = table.expression("model", table.get("model", str), symbols, whole=True)
        if is_matrix(expr) and 1 not in expr.shape:
            table.refuse("model", f"is a {expr.shape[0]} x {expr.shape[1]} matrix; its outputs are a column or a row")
        return expr if is_table(expr) else number(expr)
    outputs = table.table("outputs")
    name = next(iter(outputs.content), "")
    if len(outputs.content) != 1 or not name.isidentifier() or name in symbols or name in _RESERVED:
        table.fail("outputs", "a letter with the number of outputs, as in {c = 3}")
    count = outputs.count(name, most=MAX_SIZE)
    expr = table.expression("model", table.get("model", str), symbols, {name: count})
    return sp.Tuple(expr, sp.Tuple(sp.Symbol(name, integer=True), 0, count - 1))


def read_params(table: Table, symbols: dict[str, Any]) -> tuple[spec.ParameterSpec, ...]:
    """`params = ["x", {a = 10}, {W = [10, 3]}]`: names in order, with the shape of what is not a scalar."""
    found: list[tuple[str, tuple[int, ...]]] = []
    for item in table.get("params", list):
        if isinstance(item, str):
            found.append((item, ()))
        elif isinstance(item, dict) and item:
            found += [(name, _shape(table, name, size)) for name, size in item.items()]
        else:
            table.fail("params", "names and tables, as in x, {a = 10} or {W = [10, 3]}", item)
    if not found:
        table.fail("params", "at least one parameter")
    declared = ((name, shape, _declare(table, "params", name, shape, symbols)) for name, shape in found)
    return tuple(spec.ParameterSpec(*parameter) for parameter in declared)


def _shape(table: Table, name: str, size: object) -> tuple[int, ...]:
    sizes = size if isinstance(size, list) else [size]
    whole = tuple(s for s in sizes if isinstance(s, int) and not isinstance(s, bool) and s >= 1)
    if len(whole) != len(sizes) or len(sizes) not in (1, 2) or prod(whole) > MAX_SIZE:
        table.fail(f"params.{name}", f"a length or [rows, columns], at most {MAX_SIZE} numbers", size)
    return whole


def _declare(table: Table, key: str, name: str, shape: tuple[int, ...], symbols: dict[str, Any]) -> Any:
    """A fresh symbol under `name`, after checking that the name is one and is free."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        table.fail(key, "a name such as x, lambda or x_{1}", name)
    if name in symbols:
        table.refuse(key, f"declares `{name}`, which is declared already")
    symbols[name] = sp.IndexedBase(name, shape=shape, real=True) if shape else sp.Symbol(name)
    return symbols[name]


def read_constants(table: Table, symbols: dict[str, Any]) -> dict[str, Any]:
    """`[loss.constants]`: names with numbers, with lists of them or with the rows of a matrix."""
    constants, found = table.table("constants", default={}), {}
    for name, value in constants.content.items():
        found[name] = constants.array(name, value) if isinstance(value, list) else constants.number(name, value)
        _declare(table, "constants", name, np.shape(found[name]), symbols)
    return found


def read_inputs(table: Table, samples: Samples, symbols: dict[str, Any]) -> dict[str, np.ndarray]:
    """`[loss.inputs]`: one number or one vector per sample, from columns or inline."""
    inputs, found = table.table("inputs", default={}), {}
    for name, value in inputs.content.items():
        values = samples.standardized(inputs, name, "inputs", samples.numbers(inputs, name, value))
        _declare(table, "inputs", name, values.shape[1:], symbols)
        found[name] = values
    return found


def read_target(table: Table, samples: Samples, criterion: str, several: bool) -> np.ndarray:
    """`target`: one number per sample, several outputs have one each; for "softmax" a class, in numbers or words."""
    value = table.value("target", "a column or a list of numbers")
    if criterion == "softmax":
        return samples.classes(table, "target", value)
    values = samples.numbers(table, "target", value)
    if values.ndim != 1 and not several:
        table.fail("target", "one number per sample")
    return samples.standardized(table, "target", "target", values)


def read_test(table: Table, samples: Samples, inputs: dict[str, np.ndarray], criterion: str) -> spec.TestSpec | None:
    """`[loss.test]`: held-out samples, `rows` of the file of `loss.data` (or "rest", all others), or `inputs` and
    `target` in numbers. They are standardized with the mean and deviation of the samples that are trained on."""
    if "test" not in table:
        return None
    test = table.table("test", ("rows", "inputs", "target"))
    if "rows" in test:
        for key in ("inputs", "target"):
            if key in test:
                test.refuse(key, "does not go together with `rows`, which reads the columns of `loss` again")
        samples.hold_out(test)
        source, keys = table, table.table("inputs", default={})
    else:
        source, keys = test, test.table("inputs", tuple(inputs), default={})
    found = {}
    for name, trained in inputs.items():
        value = keys.value(name, "the held-out samples of this input")
        values = samples.standardized_alike(name, samples.numbers(keys, name, value))
        if values.shape[1:] != trained.shape[1:]:
            keys.fail(name, f"samples of the shape that is trained on, {trained.shape[1:]}")
        found[name] = values
    value = source.value("target", "a column or a list of numbers")
    read = samples.classes if criterion == "softmax" else samples.numbers
    target = samples.standardized_alike("target", read(source, "target", value))
    if any(len(values) != len(target) for values in found.values()):
        source.fail("target", "one number for each held-out sample")
    return spec.TestSpec(found, target)


def read_rule(root: Table) -> spec.RuleSpec:
    """`[rule]`: the optimizer's name and its hyperparameters, numbers or expressions in the step `k`."""
    name = root.table("rule").choice("name", tuple(LIBRARY))
    hyper = signature(LIBRARY[name]).parameters
    table = root.table("rule", ("name", *hyper))
    if "lr" not in table:
        table.fail("lr", "a number or an expression in `k`")
    values: dict[str, Any] = {}
    for key in (key for key in table.content if key != "name"):
        value = table.content[key]
        choice = type(hyper[key].default)
        if choice in (bool, str):  # what is no number is read as its default says
            values[key] = table.get(key, choice)
        elif isinstance(value, str):
            values[key] = table.expression(key, value, {"k": sp.Symbol("k")})
        else:
            values[key] = table.number(key, value)
            if values[key] < 0 or (key == "lr" and values[key] == 0):
                table.fail(key, "a positive number" if key == "lr" else "a number of at least 0")
    return spec.RuleSpec(name, values)


def read_noise(root: Table, loss: spec.LossSpec) -> tuple[spec.NoiseSpec, ...]:
    """`[[noise]]`: any number of gradient noises, added up."""
    listed = root.get("noise", list, [])
    return tuple(_one_noise(Table(root.source, f"noise[{i}]", item), loss) for i, item in enumerate(listed))


def _one_noise(table: Table, loss: spec.LossSpec) -> spec.NoiseSpec:
    noise = NOISES[table.choice("kind", sorted(NOISES))]
    table = Table(table.source, table.path, table.content, ("kind", *noise.options))
    regression = noise.needs == "regression"
    if noise.needs and (loss.samples is None or (regression and loss.kind != "regression")):
        wanted = "a regression loss" if regression else "a loss with samples (`loss.inputs`)"
        table.refuse("kind", f"is `{noise.key}`, which needs {wanted}")
    return spec.NoiseSpec(noise.key, {key: _option(table, key, o, loss) for key, o in noise.options.items()})


def _option(table: Table, key: str, option: Option, loss: spec.LossSpec) -> Any:
    """The value of one option, of the kind that the noise declares."""
    if key not in table and option.default is not REQUIRED:
        return option.default
    if option.kind == "batch":
        return table.count(key, most=loss.samples)
    if option.kind == "flag":
        return table.get(key, bool)
    if option.kind == "choice":
        return table.choice(key, option.choices)
    if option.kind == "expressions":
        return _expressions(table, key, loss)
    value = table.get(key, float)
    return value if value >= 0 else table.fail(key, "a number of at least 0")


def _expressions(table: Table, key: str, loss: spec.LossSpec) -> Any:
    """A number, an expression in the parameters, `D` of them, or `D` rows of them."""
    value = table.value(key, "a number or an expression")
    known = {n: s for n, s in loss.symbols.items() if n not in loss.inputs}

    def entry(item: object) -> float | sp.Expr:
        return float(item) if is_number(item) else table.expression(key, item, known)  # type: ignore[arg-type]

    if not isinstance(value, list):
        return entry(value)
    rows = [item if isinstance(item, list) else [item] for item in value]
    if len(rows) != loss.dimension or len({len(row) for row in rows}) != 1:
        table.fail(key, f"a number, an expression, or a list of {loss.dimension} of them or of rows")
    return [[entry(i) for i in item] if isinstance(item, list) else entry(item) for item in value]


def read_manifold(root: Table, loss: spec.LossSpec) -> spec.ChartSpec | None:
    """`[manifold]`: coordinates on the minima, and every parameter as an expression in them."""
    if "manifold" not in root:
        return None
    table = root.table("manifold", ("coordinates", "chart"))
    names = table.get("coordinates", list)
    if not names or not all(isinstance(name, str) for name in names):
        table.fail("coordinates", "a list of names")
    symbols: dict[str, Any] = {}
    coordinates = tuple(_declare(table, "coordinates", name, (), symbols) for name in names)
    known = symbols | {n: loss.symbols[n] for n in loss.constants if n not in symbols}
    scalars = {p.name: p.symbol for p in loss.params if not p.shape}
    if len(scalars) != len(loss.params):
        table.refuse("chart", "needs a loss whose parameters are all scalars")
    chart = table.table("chart", tuple(scalars))
    given = {name: chart.value(name, "an expression in the coordinates") for name in scalars}
    return spec.ChartSpec(coordinates, {scalars[name]: chart.expression(name, e, known) for name, e in given.items()})


def read_experiment(root: Table, loss: spec.LossSpec) -> spec.ExperimentSpec:
    """`[experiment]`: where it starts, how long, how often, and what is watched."""
    keys = ("w0", "start", "steps", "paths", "save_every", "observe", "flows", "rng")
    table = root.table("experiment", keys)
    flows = table.get("flows", list, [])
    known = [*FLOWS, *(f"{name} {order}" for name, flow in FLOWS.items() for order in flow.orders)]
    for flow in flows:
        if flow not in known:
            table.fail("flows", f"names among {', '.join(known)}", flow)
    return spec.ExperimentSpec(
        w0=read_start(table, loss.dimension),
        start=table.choice("start", spec.STARTS, "here"),
        steps=table.count("steps"),
        paths=table.count("paths", 1),
        save_every=read_spacing(table),
        observe=read_observe(table, loss),
        flows=tuple(flows),
        rng=table.count("rng", 0, least=0),
    )


def read_scaling(root: Table, loss: spec.LossSpec) -> spec.ScalingSpec:
    """`[scaling]`: learning rates, `time` or `slow_time`, and where runs start, in terms of `lr`."""
    table = root.table("scaling", ("lrs", "time", "slow_time", "w0"), {})
    lrs, w0 = table.get("lrs", list, None), table.get("w0", list, None)
    if lrs is not None and (not all(is_number(rate) and rate > 0 for rate in lrs) or len(set(lrs)) < 2):
        table.fail("lrs", "at least two different positive numbers")
    if "time" in table and "slow_time" in table:
        table.refuse("slow_time", "does not go together with `time`: runs end at one of the two")
    ends = {key: table.get(key, float, None) for key in ("time", "slow_time")}
    for key, end in ends.items():
        if end is not None and end <= 0:
            table.fail(key, "a positive number")
    if w0 is not None and len(w0) != loss.dimension:
        table.fail("w0", f"a list of {loss.dimension} numbers or expressions in `lr`")
    start = None if w0 is None else tuple(table.expression("w0", value, {"lr": spec.LR}) for value in w0)
    return spec.ScalingSpec(None if lrs is None else tuple(map(float, lrs)), w0=start, **ends)


def read_spacing(table: Table) -> int | str | None:
    """`save_every`: a number of steps, or "log"."""
    value = table.content.get("save_every")
    if isinstance(value, str) and value != "log":
        table.fail("save_every", 'a number of steps or "log"')
    return value if isinstance(value, str) else table.count("save_every", None)


def read_start(table: Table, dimension: int) -> np.ndarray:
    """`w0`: the flat parameter vector itself, or independent normal numbers from a seed of their own."""
    value = table.content.get("w0")
    if isinstance(value, dict):
        draw = table.table("w0", ("kind", "scale", "seed"))
        draw.choice("kind", ("normal",))
        scale, seed = draw.get("scale", float), draw.count("seed", 0, least=0)
        return scale * np.random.default_rng(seed).standard_normal(dimension)
    if not isinstance(value, list) or len(value) != dimension or not all(map(is_number, value)):
        table.fail("w0", f'a list of {dimension} numbers or a table as in {{kind = "normal", scale = 0.5}}')
    return np.array(value, dtype=np.float64)


def read_observe(table: Table, loss: spec.LossSpec) -> dict[str, sp.Expr | None]:
    """`observe`: built-in names, and expressions in the parameters."""
    known = {n: s for n, s in loss.symbols.items() if n not in loss.inputs}
    found: dict[str, sp.Expr | None] = {}
    for item in table.get("observe", list, []):
        if not isinstance(item, str):
            table.fail("observe", "names and expressions in quotes", item)
        if item in loss.symbols:
            table.fail("observe", "something that a run does not hold anyway", item)
        built_in = item in observables.NAMES and item not in known
        found[item] = None if built_in else table.expression("observe", item, known)
    return found
