"""In a notebook: HTML that hides nothing, mathematics in LaTeX."""

import pydoc
import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
import sympy as sp
from exhibits import CHART, EDGE, LOGCOSH, VALLEY, c, everything, k, noises, pages, results, s, shown_objects, x, y
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.mathtext import MathTextParser

import minidyn as md
from minidyn.common.errors import printable
from minidyn.common.html import as_html
from minidyn.common.reports import Table

# HTML --------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The words of a page, its tags closed in order, what its styles say, and what its cells and paragraphs hold."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.styles, self.held = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.styles += [value for name, value in attrs if name == "style"]
        if tag != "br":
            self.open.append(tag)
        if tag in ("td", "th", "p"):
            self.held.append((tag, []))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += re.findall(r"\w+", data)
        if self.open[-1:] in (["td"], ["th"], ["p"]):
            self.held[-1][1].append(data)

    def texts(self, *tags):
        """What the elements of these tags hold."""
        return ["".join(parts) for tag, parts in self.held if tag in tags]


def test_every_result_says_the_same_in_each_form():
    """`repr`, `summary()` and HTML have the same words; the HTML is well formed."""
    for name, result in results().items():
        text = result.summary()
        words = re.findall(r"\w+", re.sub(r"(?m)^ *(-+ *)+$", "", text))
        assert repr(result) == text, name
        assert sorted(Page(result._repr_html_()).words) == sorted(words) and words, name


def test_a_comparison_with_stopped_paths_says_so():
    """Which paths stopped, and why, is in the text and the HTML of comparison and run."""
    for name in ("stopped", "stopped run"):
        html = " ".join(Page(results()[name]._repr_html_()).words)
        assert "diverged" in results()[name].summary() and "diverged first at step" in html
    assert "erratic" in results()["erratic edge"]._repr_html_() and "remark" in results()["erratic edge"].summary()


def test_mathematics_in_html_and_without_it():
    """Losses, rules, noises, maps and flows have formulas between dollars in HTML, and below the same as text."""
    for thing, html in zip(everything(), pages(), strict=True):
        if thing not in (*shown_objects(), *noises()) and not isinstance(thing, md.Manifold):
            continue
        page = Page(html)
        assert html.count("$") >= 2 and html.count("$") % 2 == 0, thing
        assert "as text" in html and set(re.findall(r"\w+", repr(thing).splitlines()[0])) <= set(page.words), thing


def test_pages_take_their_colours_from_the_reader():
    """No colour is written down, so that light and dark pages can be read; what is wide stands in what scrolls."""
    colours = re.compile(
        r"#[0-9a-f]{3}|rgb|white(?!-)|black|gr[ae]y|(?:^|;)\s*(?:background|color):(?! inherit| transpar)"
    )
    for html in pages():
        assert not [style for style in Page(html).styles if colours.search(style)]
        assert html.count("<table>") == len(re.findall(r'overflow-x: auto[^>]*"><table>', html))


CELLS = st.text(max_size=9) | st.sampled_from(["<b>", "a < b", "</table>", "&amp;", "\x1b[31m", "$x$", "'\""])


@given(
    st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=5), st.integers(0, 3), st.booleans(), CELLS
)
@settings(derandomize=True, max_examples=60, deadline=None)
def test_whatever_is_in_a_table_is_text(rows, left, head, title):
    """Names of any characters, such as `<b>` or a bell, are shown letter by letter in their cells and paragraphs; words
    go on in a line below where a page is narrow, numbers stay whole."""
    page = Page(as_html([title, Table(rows, left, title, head)]))
    assert page.texts("td", "th") == [printable(cell, keep="\n") for row in rows for cell in row]
    assert page.texts("th") == [printable(c, keep="\n") for c in (rows[0] if head else [row[0] for row in rows])]
    said = "".join(printable(line.strip()) for line in title.splitlines()) if title.strip() else None
    assert page.texts("p") == [said] * 2 * (said is not None)
    sides = [style.rpartition(" ")[2] for style in page.styles if "text-align" in style]
    assert sides == (["left"] * left + ["right"] * (3 - left)) * len(rows)
    assert ["pre-wrap" in style for style in page.styles if "text-align" in style] == [s == "left" for s in sides]


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
        r"$\theta_{k+1} = \theta_{k} - \eta \, \nabla L(\theta_{k})$",
        r"$\eta = 0.5$",
    ]
    assert md.SGD(1e-3, 0.9).describe(latex=True).splitlines()[1:3] == [
        r"$m_{k+1} = \beta \, m_{k} + \nabla L(\theta_{k})$",
        r"$\theta_{k+1} = \theta_{k} - \eta \, m_{k+1}$",
    ]
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


WORDS = ["bias", "learning_rate", "weight_of_first_feature", "first", "a_long_name_of_thirty_letters"]


@pytest.mark.parametrize("seed", range(5))
def test_names_of_ones_own_in_latex(seed):
    """In the LaTeX of losses, noises, charts and flows of one's own a word stands upright and whole, apart from its
    neighbours, as in rules; a letter stays the letter that it is."""
    rng = np.random.default_rng(seed)
    a, b, data, s = map(sp.Symbol, [*rng.permutation(WORDS)[:3], "s_1"])
    loss = md.Loss((1 + a**2) * (b - data) ** 2 / 2 * (1 + a * b), [a, b], data={data: [1.0, 1.0]})
    system = md.Map(loss, md.SGD(0.1), md.GaussianNoise(a * b))
    chart = md.Manifold(md.Loss((1 + a**2) * b**2 / 2, [a, b]), chart={a: s, b: 0}, coordinates=[s]).chart
    texts = [
        loss._repr_latex_(),
        *system.noise.in_formulas(),
        md.SymbolicFlow(system, [-a * b, -b]).describe(latex=True),
    ]
    for text in [*texts, chart._repr_latex_()]:
        drawn(text.replace(r"\displaystyle ", "").splitlines())
        for word in re.findall(r"[a-z_\\]{5,}", re.sub(r"\\mathrm\{(.*?)\}", "", text)):
            assert not any(name.replace("_", r"\_") == word or name == word for name in WORDS), (word, text)
        assert not re.search(r"\}(_\{\w+\})? *\\mathrm", text), text
    upright = [rf"\mathrm{{{name}}}".replace("_", r"\_") for name in (a.name, b.name)]
    assert all(word in text for word in upright for text in (texts[0], texts[2], texts[-1]))
    assert "s_{1}" in chart._repr_latex_()


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


def test_noises_in_latex():
    """The gradient that a step sees is written with what each noise of a sum does to it, in formulas that can be drawn,
    and each letter means one thing."""
    for noise in noises():
        lines = noise.in_formulas()
        drawn(lines)
        assert noise._repr_latex_() == lines[0] and lines[0].startswith("$g_{k} = ")
        letters = re.findall(r"z'*_\{k\}|\\sigma'*(?=\()", lines[0])
        assert len(set(letters)) == len(letters)
        assert all(letter in "".join(lines[1:]) or sp.Matrix(noise.sigma).shape == (30, 30) for letter in letters)
    assert md.GaussianNoise(0.3).in_formulas()[0] == r"$g_{k} = \nabla L(\theta_{k}) + 0.3 \, z_{k}$"
    two = (md.LabelNoise(0.2, 3) + md.GaussianNoise(x)).in_formulas()
    assert two[0] == (
        r"$g_{k} = \frac{1}{3} \sum_{i \in B_{k}} \nabla \ell_{i}(\theta_{k}; y + 0.2 \, e_{k})"
        r" + \sigma(\theta_{k}) \, z_{k}$"
    )
    assert "3 of the samples, fresh every step, without replacement" in two[1] and r"$\sigma = x$" in two[3]


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


def test_matplotlib_is_the_judge():
    """What the tests above call drawn is judged: a wrong formula is refused by this matplotlib."""
    with pytest.raises(ValueError, match="nosuch"):
        MATH.parse(r"$\nosuch{x}$")
    assert matplotlib.__version__
