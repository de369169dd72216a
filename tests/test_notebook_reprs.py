"""At the keyboard: HTML that hides nothing, mathematics in LaTeX, tab completion, signatures."""

import abc
import functools
import inspect
import io
import pydoc
import re
import rlcompleter
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.completer import Completer, provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.mathtext import MathTextParser

import minidyn as md
from minidyn.common.html import as_html
from minidyn.common.reports import Table
from minidyn.maps.noise import NOISES

x, y, s, c, k = sp.symbols("x y s c k")
VALLEY = md.Loss((1 + x**2) * y**2 / 2, [x, y])
LOGCOSH = md.Loss((1 + x**2) * sp.log(sp.cosh(y)), [x, y])
WELLS = md.Loss(sp.Min(x**2, c * (x - 1) ** 2), [x], data={c: [0.1, 1.9]})
CHART = {"chart": {x: s, y: 0}, "coordinates": [s]}
MAP = md.Map(VALLEY, md.SGD(0.05), md.GaussianNoise(0.3))
EDGE = md.Map(LOGCOSH, md.GD(0.1))
SAMPLED = md.Map(WELLS, md.SGD(0.7), md.Minibatch(1))
LEAVING = md.Map(md.Loss(x**4 / 4, [x]), md.GD(1.0), md.GaussianNoise(0.5))
LOGISTIC = md.Map(md.Loss(-2.9 * x**2 / 2 + 3.9 * x**3 / 3, [x]), md.GD(1.0))


@pytest.fixture(scope="module")
def results():
    """One result of each kind, some with paths that stopped, remarks and notes."""
    stopped = md.compare(LEAVING, md.GradientFlow(LEAVING), w0=[1.35], steps=12, paths=64, rng=1)
    model = md.load_model("valley")
    regression = md.Loss.regression(c * sp.tanh(y * x), [c, y], {x: [1.0, 2.0]}, [0.5, 1.0])
    return {
        "comparison": model.run(steps=40, paths=50), "stopped": stopped, "stopped run": stopped.runs["GD"],
        "scaling": model.scale([0.1, 0.05], slow_time=0.1, paths=32), "stability": md.stability(SAMPLED, [1.0]),
        "diagram": md.stability_diagram(SAMPLED, [[0.0], [1.0]], batches=[1, None]),
        "flatness": md.flatness(VALLEY, [1.0, 0.0], method="matrix-free", probes=4),
        "escape": md.escape(SAMPLED, [1.0], paths=64, steps=20, rng=0),
        "edge": md.edge(EDGE, md.RodFlow(EDGE), w0=[4.5, 0.1], steps=20),
        "erratic edge": md.edge(LOGISTIC, md.RodFlow(LOGISTIC), w0=[0.3], steps=600, save_every=300),
        "regime": md.regime(LOGISTIC, [0.3], 600), "smoothness": md.smoothness(regression, [1.0, 0.5]),
    }  # fmt: skip


# HTML --------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The words of a page, its tags closed in order, what its styles say."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.styles = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.styles += [value for name, value in attrs if name == "style"]
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += re.findall(r"\w+", data)


def test_every_result_says_the_same_in_each_form(results):
    """`repr`, `summary()` and HTML have the same words; the HTML is well formed."""
    for name, result in results.items():
        text = result.summary()
        words = re.findall(r"\w+", re.sub(r"(?m)^ *(-+ *)+$", "", text))
        assert repr(result) == text, name
        assert sorted(Page(result._repr_html_()).words) == sorted(words) and words, name


def test_a_comparison_with_stopped_paths_says_so(results):
    """Which paths stopped, and why, is in the text and the HTML of comparison and run."""
    for name in ("stopped", "stopped run"):
        html = " ".join(Page(results[name]._repr_html_()).words)
        assert "diverged" in results[name].summary() and "diverged first at step" in html
    assert "erratic" in results["erratic edge"]._repr_html_() and "remark" in results["erratic edge"].summary()


@functools.cache
def shown_objects():
    """Losses, rules, maps, flows and a model."""
    held_out = md.load_model("tanh_net").loss
    quasistatic = md.QuasistaticFlow(MAP, manifold=md.Manifold(VALLEY, **CHART))
    edges = [md.RodFlow(EDGE), md.RodFlow(EDGE, order=2), md.CentralFlow(EDGE)]
    edges.append(md.SubquadraticFlow(EDGE, manifold=md.Manifold(LOGCOSH, **CHART)))
    adam = md.Map(VALLEY, md.Adam(0.1), md.GaussianNoise(0.3))
    own = md.SymbolicFlow(MAP, [-x, -y], [x, 1])
    return [
        VALLEY, WELLS, held_out, md.SGD(0.1), md.AdamW(0.1 / k), MAP, SAMPLED, EDGE, quasistatic,
        quasistatic.closed_form(), *edges, md.GradientFlow(MAP), *(md.ModifiedFlow(EDGE, n) for n in (1, 2, 3, 4)),
        md.ModifiedFlow(adam), md.QuasistaticFlow(adam), *(md.StochasticModifiedFlow(adam, n) for n in (1, 2)), own,
        md.StochasticModifiedFlow(MAP, 2), md.load_model("double_valley"),
    ]  # fmt: skip


def test_mathematics_in_html_and_without_it():
    """Losses, rules, maps and flows have formulas between dollars in HTML, and below the same as text."""
    for thing in shown_objects():
        html = thing._repr_html_()
        page = Page(html)
        assert html.count("$") >= 2 and html.count("$") % 2 == 0, thing
        assert "as text" in html and set(re.findall(r"\w+", repr(thing).splitlines()[0])) <= set(page.words), thing


def test_pages_take_their_colours_from_the_reader(results):
    """No colour is written down, so that light and dark pages can be read; what is wide stands in what scrolls."""
    colours = re.compile(
        r"#[0-9a-f]{3}|rgb|white(?!-)|black|gr[ae]y|(?:^|;)\s*(?:background|color):(?! inherit| transpar)"
    )
    for thing in (*results.values(), *shown_objects()):
        html = thing._repr_html_()
        assert not [style for style in Page(html).styles if colours.search(style)]
        assert html.count("<table>") == len(re.findall(r'overflow-x: auto[^>]*"><table>', html))


CELLS = st.text(max_size=9) | st.sampled_from(["<b>", "a < b", "</table>", "&amp;", "\x1b[31m", "$x$"])


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=5), st.integers(0, 3),
       st.booleans(), CELLS)  # fmt: skip
@settings(derandomize=True, max_examples=40, deadline=None)
def test_whatever_is_in_a_table_is_text(rows, left, head, title):
    """Names of any characters, such as `<b>` or a bell, are shown and never become tags."""
    page = Page(as_html([title, Table(rows, left, title, head)]))
    plain = [c for row in rows for cell in row for c in cell if c.isalpha() and c.isprintable()]
    assert not set(plain) - set("".join(page.words)) and len(page.styles) >= 3 * len(rows)


# LaTeX -------------------------------------------------------------------------------------------

MATH = MathTextParser("agg")


def drawn(lines):
    """Every formula among the lines is one that matplotlib draws."""
    for line in lines:
        assert line.count("$") % 2 == 0, line
        if "$" in line and r"\begin{matrix}" not in line:
            MATH.parse(line)


SCHEDULES = [
    0.1,
    0.1 / k,
    0.1 * sp.exp(-k / 30),
    sp.Piecewise((0.1, k < 10), (0.01, True)),
    sp.Min(0.1, 1 / sp.sqrt(k)),
]


@pytest.mark.parametrize("lr", SCHEDULES, ids=str)
def test_rules_of_the_library_in_latex(lr):
    """Each rule's equations can be drawn, name theta as papers do, and say schedules and numbers."""
    momenta = [md.SGD(lr, 0.9), md.SGD(lr, 1 - 1 / (k + 1)), md.SGD(lr, 0.9, nesterov=True)]
    for rule in (make(lr) for make in (md.GD, md.SGD, md.SignGD, md.Lion, md.RMSProp, md.Adam, md.AdamW)):
        momenta.append(rule)
    for rule in momenta:
        text = rule.describe(latex=True)
        drawn(text.splitlines())
        assert r"\theta_{k+1} = " in text and r"\theta_{k}" in text and r"\nabla L(\theta_{k})" in text
        assert (r"\eta_{k} = " in text) == isinstance(lr, sp.Expr) and ("lr" not in text.split("\n", 1)[1])
        assert rule._repr_latex_().count(r"\\") == len(text.splitlines()) - 2


def test_rules_read_as_in_their_papers():
    """Gradient descent, heavy ball and Adam are written as Polyak (1964) and Kingma and Ba (2015) write them."""
    assert md.GD(0.5).describe(latex=True).splitlines()[1:] == [
        r"$\theta_{k+1} = \theta_{k} - \eta \, \nabla L(\theta_{k})$", r"$\eta = 0.5$"
    ]  # fmt: skip
    assert md.SGD(1e-3, 0.9).describe(latex=True).splitlines()[1:3] == [
        r"$m_{k+1} = \beta \, m_{k} + \nabla L(\theta_{k})$", r"$\theta_{k+1} = \theta_{k} - \eta \, m_{k+1}$"
    ]  # fmt: skip
    adam = md.Adam(1e-3).describe(latex=True).splitlines()
    assert adam[4:] == [
        r"$\hat{m}_{k+1} = \frac{m_{k+1}}{1 - \beta_{1}^{k + 1}}$",
        r"$\hat{v}_{k+1} = \frac{v_{k+1}}{1 - \beta_{2}^{k + 1}}$",
        r"$\theta_{k+1} = \theta_{k} - \frac{\eta \, \hat{m}_{k+1}}{\sqrt{\hat{v}_{k+1}} + \epsilon}$",
        r"$\eta = 0.001,\quad \beta_{1} = 0.9,\quad \beta_{2} = 0.999,\quad \epsilon = 10^{-8}$",
    ]


NAMES = [
    "m",
    "v",
    "g",
    "theta",
    "w_1",
    "exp_avg",
    "velocity",
    "x_bar",
    "alpha",
    "beta",
    "Phi",
    "s",
    "momentum",
    "lamda",
]


def random_rule(rng):
    """A rule of up to three states with names of all kinds, whose values use each other's."""
    theta, grad, *states = rng.permutation(NAMES)[: 2 + rng.integers(4)]
    beta, wd = rng.permutation(["beta1", "eps", "weight_decay", "rho", "decay_rate", "eta"])[:2]
    terms = [grad, f"{wd}*{theta}", f"sp.sqrt(1 + {grad}**2)", f"sp.sign({grad})"]
    body, new = [], []
    for i, state in enumerate(states):
        fresh = new[-1] if new and rng.random() < 0.5 else terms[rng.integers(len(terms))]
        weight = f"(1 - {beta})*" if rng.random() < 0.5 else ""
        body.append(f"    new_{i} = {beta}*{state} + {weight}({fresh})")
        new.append(f"new_{i}")
    move = new[-1] if new and rng.random() < 0.8 else grad
    move = f"{move}/(1 - {beta}**k)" if rng.random() < 0.5 else move
    head = f"def {rng.choice(['mine', 'rule_2'])}({', '.join([theta, grad, *states])}, *, lr, {beta}=0.25, {wd}=2, k):"
    space = {"sp": sp}
    exec("\n".join([head, *body, f"    return {', '.join([f'{theta} - lr*({move})', *new])},"]), space)
    return md.rule(next(f for name, f in space.items() if name in ("mine", "rule_2")))


@pytest.mark.parametrize("seed", range(25))
def test_rules_of_ones_own_in_words(seed):
    """Whatever states, arguments and gradient are called, LaTeX can be drawn, and the equations as text compute the
    step itself: each name is one value, and stands for it."""
    rng = np.random.default_rng(seed)
    make = random_rule(rng)
    rule = make(SCHEDULES[rng.integers(len(SCHEDULES))])
    drawn(rule.describe(latex=True).splitlines())
    lefts = [line.split(" = ")[0] for line in rule.describe(latex=True).splitlines()[1:]]
    assert len(set(lefts)) == len(lefts)
    numbers = dict.fromkeys([*rule.called, rule.arguments[1]], 0.0)
    values = {name: float(v) for name, v in zip(numbers, rng.uniform(0.2, 0.8, len(numbers)), strict=True)}
    values |= {h: float(v) for h, v in rule.hyper.items() if h != "lr"} | {"lr": 0.1, "k": 3.0}
    known = {re.sub(r"\W", "_at", name): v for name, v in values.items()}
    for line in rule.describe().splitlines()[1:]:
        left, right = line.strip().split(" = ")
        right = right.replace("'", "_new").replace("^", "_hat")
        space = {"sqrt": np.sqrt, "sign": np.sign, **known}
        known[left.replace("'", "_new").replace("^", "_hat")] = eval(right, space)
    letters = {letter: values.get(name) for letter, name in rule.shown.items()} | {k: 3.0}
    for name, e in zip(rule.called, rule.step, strict=True):
        assert known[f"{name}_new"] == pytest.approx(float(e.xreplace(letters).evalf()), rel=1e-12)
    text = pydoc.plain(pydoc.render_doc(make))
    assert f"{rule.called[0]}' = " in text and re.search(r"\(lr, \w+=0.25, \w+=2\)", text)


def test_flows_in_latex_can_be_drawn():
    """The equations of every flow, with the rule's step where they rest on it, are ones that matplotlib draws."""
    for thing in shown_objects():
        if isinstance(thing, md.Flow):
            drawn(thing.describe(latex=True).splitlines())


def test_a_letter_of_the_chart_is_no_hyperparameter():
    """On a chart whose coordinate is called beta the momentum is not: each letter means one thing in all lines."""
    beta = sp.Symbol("beta")
    chart = {"chart": {x: beta, y: 0}, "coordinates": [beta]}
    rule = md.SGD(0.05, momentum=0.5)
    slow = md.QuasistaticFlow(md.Map(VALLEY, rule, md.GaussianNoise(0.3)), manifold=md.Manifold(VALLEY, **chart))
    orbit = md.SubquadraticFlow(md.Map(LOGCOSH, rule), manifold=md.Manifold(LOGCOSH, **chart))
    for form in (slow.closed_form(), orbit.closed_form()):
        text = form.describe(latex=True)
        assert r"\left(\mathrm{momentum} + 1\right)" in text and r"\beta = 0.5" not in text
        assert r"\beta - 1" not in text and r"\mathrm{d}\beta/\mathrm{d}t" in text


def test_losses_in_latex():
    """Data bear the index of the sum over samples, whatever letters the loss itself sums over."""
    i, X, w = sp.Symbol("i", integer=True), md.vector("X", 2), md.vector("w", 2)
    loss = md.Loss((sp.Sum(w[i] * X[i], (i, 0, 1)) - c) ** 2 + s, [w, s], data={X: np.eye(2), c: [1.0, 2.0]})
    assert r"\sum_{n} \left(" in loss._repr_latex_() and "c_{n}" in loss._repr_latex_()
    assert "samples: 2 of X, c" in loss._repr_html_() and "w[2], s (3 in all)" in loss._repr_html_()


@pytest.mark.parametrize("latex", [np.zeros(3), [1], "yes", 1, None])
def test_latex_is_true_or_false(latex):
    """Anything else as `latex=` is refused in a sentence, by flows, closed forms and rules."""
    chart = md.Manifold(LOGCOSH, **CHART)
    things = [md.RodFlow(EDGE), md.SubquadraticFlow(EDGE, manifold=chart).closed_form(), md.Adam(0.1)]
    for thing in things:
        with pytest.raises(md.InputError, match="describe: latex is True or False, not"):
            thing.describe(latex=latex)


# Tab completion ----------------------------------------------------------------------------------

INTERNAL = {"kernels", "source", "pointers", "inlined", "sample_kernels", "field", "retract", "advance", "bound",
            "converter", "emitter", "moved", "key", "options", "rank", "sets", "columns", "evaluate",
            "orders", "leaves_behind", "rows", "steps_alike", "nodes", "blocks", "fill", "speeds"}  # fmt: skip


def offered(thing):
    """The names that `dir` has without an underscore."""
    return [name for name in dir(thing) if not name.startswith("_")]


def test_dir_has_public_names_only(results):
    """`dir` of the package, of maps, losses, rules, noises, flows, models, manifolds and results, and of their classes,
    names nothing internal, and every name there is explained."""
    assert offered(md) == sorted(md.__all__, key=offered(md).index) and set(offered(md)) == set(md.__all__)
    assert offered(md.cache) == ["clear", "folder", "info"]
    noises = [md.GaussianNoise(1.0), md.Minibatch(1), md.Reshuffle(1), md.LabelNoise(0.1)]
    assert not any("leaves_behind" in offered(result) for result in results.values())
    for thing in (*shown_objects(), *noises, md.Manifold(VALLEY), *results.values()):
        names = set(offered(thing))
        assert thing in results.values() or not names & INTERNAL, thing
        assert all(hasattr(thing, name) for name in names)
        for name in set(offered(type(thing))) & names:
            found = inspect.getattr_static(type(thing), name)
            assert not inspect.isroutine(found) or inspect.getdoc(found), (type(thing), name)
    assert {"drift", "diffusion", "describe", "amplitude", "order"} <= set(offered(md.RodFlow(EDGE)))
    assert {"grad", "hessian", "plot", "regression"} <= set(offered(VALLEY)) and "regression" in dir(md.Loss)
    for noise in NOISES.values():
        assert not set(offered(noise)) & {"key", "options", "rank", "sets", "needs"}, noise


def test_a_flow_of_ones_own_offers_its_own_names():
    """What a derived class adds is offered beside what the flow has; nothing internal comes with it."""

    class Mine(md.Flow, abc.ABC):
        strength = 2.0

        def push(self):
            """Further."""

    mine = Mine(MAP)
    mine.note = "own"
    names = set(offered(mine))
    assert {"strength", "push", "note", "drift", "map"} <= names and not names & INTERNAL
    assert mine._repr_html_() is None


@pytest.mark.parametrize("jedi", [True, False])
def test_completers_offer_the_same(results, jedi):
    """IPython's completer, with jedi and without, and Python's own offer what `dir` has."""
    shell = InteractiveShell.instance()
    try:
        run = results["stopped"].runs["GD"]
        things = {"md": md, "run": run, "flow": md.ModifiedFlow(MAP), "loss": VALLEY, "map": MAP,
                  "rule": md.Adam(0.1), "noise": MAP.noise, "cache": md.cache}  # fmt: skip
        completer = shell.Completer
        assert isinstance(completer, Completer)
        completer.use_jedi = jedi
        shell.user_ns.update({f"{name}_": thing for name, thing in things.items()})
        for name, thing in things.items():
            text = f"{name}_."
            with provisionalcompleter():
                found = {c.text.removeprefix(text).lstrip(".") for c in completer.completions(text, len(text))}
            assert found == set(offered(thing)), (name, found ^ set(offered(thing)))
            python = rlcompleter.Completer({f"{name}_": thing}).attr_matches(text)
            plain = {match.removeprefix(text).rstrip("()") for match in python}
            assert plain == set(offered(thing)), name
    finally:
        InteractiveShell.clear_instance()


# help --------------------------------------------------------------------------------------------


def test_help_shows_signatures_and_defaults():
    """Every public callable has a signature that `help` shows, short, and what it is called with is in it."""
    for name in md.__all__:
        thing = getattr(md, name)
        if callable(thing) and not name.endswith("Error") and name != "Status":
            signature = str(inspect.signature(thing))
            assert "numpy._typing" not in signature and "0x" not in signature, name
            assert not re.match(r"\(\*args: \S+, \*\*\w+", signature) or thing is md.Flow, name
    for make, said in ((md.Adam, "(lr, beta1=0.9, beta2=0.999, eps=1e-08)"), (md.SGD, "momentum: Any = 0, nesterov")):
        text = pydoc.plain(pydoc.render_doc(make))
        assert said in text and "theta' = theta - lr" in text and "schedule" in text
    assert "drift" in pydoc.plain(pydoc.render_doc(md.RodFlow)) and "pointers" not in pydoc.plain(
        pydoc.render_doc(md.Map)
    )


def test_help_of_a_rule_of_ones_own():
    """`help` of what `@md.rule` returns has its words, its arguments with defaults, and its update."""

    @md.rule
    def heavy(w, grad, m, *, lr, beta=0.9, nesterov=False):
        """Polyak's ball."""
        m = beta * m + grad
        return w - lr * (grad + beta * m if nesterov else m), m

    out = io.StringIO()
    pydoc.Helper(output=out).help(heavy)
    text = pydoc.plain(out.getvalue())
    assert "heavy(lr, beta=0.9, nesterov=False)" in text and "Polyak's ball." in text
    assert "m' = beta*m + grad" in text and "w' = w - lr*m'" in text


def test_matplotlib_is_the_judge():
    """What the tests above call drawn is judged: a wrong formula is refused by this matplotlib."""
    with pytest.raises(ValueError, match="nosuch"):
        MATH.parse(r"$\nosuch{x}$")
    assert matplotlib.__version__
