"""At the keyboard: tab completion, signatures, help."""

import abc
import inspect
import io
import pydoc
import re
import rlcompleter
from dataclasses import is_dataclass

import pytest
from exhibits import EDGE, MAP, VALLEY, everything, pages, results, rows
from IPython.core.completer import Completer, provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import minidyn as md
from minidyn.common.locks import cached_property
from minidyn.flows import FLOWS
from minidyn.maps.noise import NOISES

# Tab completion ----------------------------------------------------------------------------------

INTERNAL = {"kernels", "source", "pointers", "inlined", "sample_kernels", "field", "retract", "advance", "bound",
            "converter", "emitter", "moved", "key", "options", "rank", "sets", "columns", "evaluate",
            "orders", "leaves_behind", "rows", "steps_alike", "nodes", "blocks", "fill", "speeds"}  # fmt: skip


def offered(thing):
    """The names that `dir` has without an underscore."""
    return [name for name in dir(thing) if not name.startswith("_")]


def named(doc):
    """The names that a docstring explains: in backticks, or before a colon as in `steps, time : ...`."""
    heads = re.findall(r"(?:^|\.  )((?:\w+(?:\(.*?\))?, )*\w+(?:\(.*?\))?) : ", doc, re.MULTILINE)
    return {name for text in [*heads, *re.findall(r"`(.*?)`", doc)] for name in re.findall(r"\w+", text)}


def test_dir_has_public_names_only():
    """`dir` of the package and of everything that it makes, and of their classes, names nothing internal."""
    assert offered(md) == sorted(md.__all__, key=offered(md).index) and set(offered(md)) == set(md.__all__)
    assert offered(md.cache) == ["clear", "folder", "info"]
    known = {type(thing) for thing in (*results().values(), *rows())}
    for thing in everything():
        names = set(offered(thing))
        assert type(thing) in known or not names & INTERNAL, thing
        assert all(hasattr(thing, name) for name in names) and "leaves_behind" not in names
    assert {"drift", "diffusion", "describe", "amplitude", "order"} <= set(offered(md.RodFlow(EDGE)))
    assert {"grad", "hessian", "plot", "regression"} <= set(offered(VALLEY)) and "regression" in dir(md.Loss)
    assert "place" not in offered(results()["stability"]) and "real" not in offered(md.Status.DIVERGED)
    for noise in NOISES.values():
        assert not set(offered(noise)) & {"key", "options", "rank", "sets", "needs"}, noise


def test_whatever_is_offered_is_explained():
    """Each name that `dir` offers of anything has a docstring of its own, or its class's docstring explains it."""
    for thing in everything():
        kind = type(thing)
        said = named("\n".join(filter(None, map(inspect.getdoc, kind.__mro__))))
        for name in offered(thing):
            found = inspect.getattr_static(kind, name, None)
            own = inspect.isroutine(found) or isinstance(found, (property, cached_property))
            assert inspect.getdoc(found) if own else name in said, (kind.__name__, name)


def test_everything_public_is_among_the_exhibits():
    """The laws here are held by an instance of every public class."""
    classes = {
        thing
        for name in md.__all__
        if isinstance(thing := getattr(md, name), type) and not issubclass(thing, Exception)
    }
    shown = {kind for thing in everything() for kind in type(thing).__mro__}
    assert not classes - shown


def test_every_form_says_what_there_is():
    """Everything has HTML, or a `repr` that holds each of its fields."""
    for thing, page in zip(everything(), pages(), strict=True):
        fields = thing.__dataclass_fields__ if is_dataclass(thing) else ()
        assert page or all(f"{name}=" in repr(thing) for name in fields), thing


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
def test_completers_offer_the_same(jedi):
    """IPython's completer, with jedi and without, and Python's own offer what `dir` has."""
    shell = InteractiveShell.instance()
    try:
        run = results()["stopped"].runs["GD"]
        things = {"md": md, "run": run, "flow": md.ModifiedFlow(MAP), "loss": VALLEY, "map": MAP,
                  "rule": md.Adam(0.1), "noise": MAP.noise, "cache": md.cache,
                  "stability": results()["stability"]}  # fmt: skip
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


def public_callables():
    """(name, function) of every public callable, and of every method that public classes offer."""
    for name in md.__all__:
        thing = getattr(md, name)
        if callable(thing) and not name.endswith("Error") and name != "Status":
            yield name, thing
            methods = offered(thing) if inspect.isclass(thing) else ()
            yield from ((f"{name}.{m}", getattr(thing, m)) for m in methods if callable(getattr(thing, m)))


def test_help_shows_signatures_and_defaults():
    """Every public callable has a signature that `help` shows, in which no name is hidden: what `*` and `**` take is
    said in its words."""
    count = 0
    for name, thing in public_callables():
        signature, said = inspect.signature(thing), inspect.getdoc(thing) or ""
        assert "numpy." not in str(signature) and "0x" not in str(signature), name
        for p in signature.parameters.values():
            bundle = p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            assert not bundle or re.search(rf"(?m)(^|\.  )\s*(\w+, )*{p.name}(, \w+)* : ", said), (name, p)
        count += 1
    assert count > 200
    for flow in [md.Flow, *FLOWS.values(), type("Mine", (md.Flow,), {})]:
        assert str(inspect.signature(flow)).startswith("(system: "), flow
    for whole, own in ((md.compare, md.Model.run), (md.scaling_study, md.Model.scale)):
        names = {p.name for p in inspect.signature(whole).parameters.values() if p.kind is p.KEYWORD_ONLY}
        assert names - set(re.findall(r"\w+", own.__doc__)) == set(), own
    for name in ("loss", "at", "window", "panels", "size", "ax"):
        assert f"`{name}`" in md.Comparison.plot.__doc__ or f"{name} : " in md.Comparison.plot.__doc__


def test_help_of_rules_and_flows():
    """`help` has their equations, and what numbers may be."""
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
