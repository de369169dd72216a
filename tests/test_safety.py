"""What is foreign stays outside: sizes are said before they are taken, texts are not evaluated, names are names."""

import os

import numpy as np
import pytest
import sympy as sp

import minidyn as md
from minidyn.common import memory
from minidyn.common.errors import printable
from minidyn.files.modelfile import parse_expression
from minidyn.files.models import model_of_text

x, y, s, u, k = sp.symbols("x y s u k")
PLANE = md.Loss((1 + x**2) * y**2 / 2, [x, y])
FIT = md.Loss.regression(x * u * y, [x, y], {u: [1.0, 2.0]}, [1.0, 2.0])
SGD = md.Map(PLANE, md.SGD(0.1), md.GaussianNoise(0.3))
MODEL = """
[loss]
kind = "regression"
params = ["x"]
model = "x*u"
target = "t"
[loss.data]
file = "FILE"
[loss.inputs]
u = "u"
[rule]
name = "GD"
lr = 0.05
[experiment]
w0 = [1.0]
steps = 20
"""


def sentence(call, error=md.InputError):
    """The one sentence with which a call is refused."""
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert text.endswith((".", "?")) and text.isprintable()
    return text


# -- texts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["__import__('os').mkdir('harm')", "x", "1", "exec('1')"])
def test_no_text_is_evaluated(text, tmp_path, monkeypatch):
    """A text where an expression is expected is refused at every door, and nothing of it runs."""
    monkeypatch.chdir(tmp_path)
    doors = {
        "loss": lambda: md.Loss(text, [x]),
        "model": lambda: md.Loss.regression(text, [x], {u: [1.0]}, [1.0]),
        "chart": lambda: md.Manifold(PLANE, chart={x: s, y: text}, coordinates=[s]).chart,
        "coordinate": lambda: md.Manifold(PLANE, chart={x: s, y: 0}, coordinates=[text]).chart,
        "drift": lambda: md.SymbolicFlow(SGD, [-x, text]),
        "diffusion": lambda: md.SymbolicFlow(SGD, [-x, -y], [text, x]),
        "constraint": lambda: md.SymbolicFlow(SGD, [-x, -y], constraint=[text]),
        "lr": lambda: md.GD(text),
        "sigma": lambda: md.GaussianNoise([text, x]),
        "observe": lambda: md.simulate(SGD, [1, 0], 1, observe=text),
        "stop": lambda: md.simulate(SGD, [1, 0], 1, stop=text),
        "params": lambda: md.Loss(x**2, [text]),
    }
    for door in doors.values():
        sentence(door)
    assert os.listdir() == []


@pytest.mark.parametrize("name", ["q" * 300, "q" * 1100, "q\0r", "q\nr", '"""', "q\x1b[31m", "import os", "é" * 1100])
def test_names_may_be_anything(name):
    """Long names, null bytes, line ends and quotes in symbols: kernels compute what they compute for x and y."""
    a, b = sp.Symbol(name), sp.Symbol(name + "'")
    loss = md.Loss((1 + a**2) * b**2 / 2, [a, b])
    np.testing.assert_array_equal(loss.hessian([0.5, 0.25]), PLANE.hessian([0.5, 0.25]))
    flows = [md.GradientFlow(md.Map(one, md.GD(0.1))) for one in (loss, PLANE)]
    first, second = (md.simulate(flow, [1.0, 0.5], 3) for flow in flows)
    np.testing.assert_array_equal(first.w, second.w)
    assert repr(first).replace("\n", "").isprintable()


def test_errors_write_control_characters_out():
    """What would move a cursor or colour a terminal is shown as an escape."""
    assert printable("a\x1b[31mb\x07\u202e\n", "\n") == "a\\x1b[31mb\\x07\\u202e\n"
    assert "\\x1b[31m" in sentence(lambda: md.load_model("\x1b[31mred"), md.ModelFileError)


# -- sizes ---------------------------------------------------------------------------------------------------


def test_runs_too_large_are_refused_with_their_size(monkeypatch):
    """Paths, saves and lists of saves beyond the memory: a sentence with the size, and nothing is taken."""
    wanted = "of memory, and .* are free; take fewer paths, save less often"
    often = {"save_every": 1}
    for given in ({"paths": 10**12}, {"steps": 10**12} | often, {"steps": 10**6, "paths": 10**6} | often):
        with pytest.raises(md.InputError, match=wanted):
            md.simulate(SGD, [1.0, 0.0], **({"steps": 3} | given))
    monkeypatch.setattr(memory, "available", lambda: 2e7)
    assert "a run of 120,000 paths with 10 saves would take 0.02" in sentence(
        lambda: md.simulate(SGD, [1.0, 0.0], 9, save_every=1, paths=120_000)
    )
    md.simulate(SGD, [1.0, 0.0], 9, save_every=1, paths=100_000)


def test_a_table_too_large_is_refused_with_its_size(tmp_path):
    """A CSV file that does not fit into memory is not read."""
    (tmp_path / "m.toml").write_text(MODEL.replace("FILE", "d.csv"))
    with (tmp_path / "d.csv").open("wb") as file:
        file.truncate(10**13)
    assert "the CSV file 'd.csv' would take 3e+05 GB of memory" in sentence(lambda: md.load_model(tmp_path / "m.toml"))


@pytest.mark.parametrize("count", [2, 20, 30])
def test_sums_with_many_indices(count):
    """An index that is a sum of many Sum indices is bounded without its 2^n corners; too many terms are refused."""
    names = [f"i{n}" for n in range(count)]
    ranges = ", ".join(f"({name}, 0, 1)" for name in names)

    def read(size):
        a = sp.IndexedBase("a", shape=(size,), real=True)
        return parse_expression(f"Sum(a[{' + '.join(names)}]**2, {ranges})", {"a": a})

    if 2**count > 10**9:
        assert "has more than 1000000000 terms" in sentence(lambda: read(count + 1))
    else:
        read(count + 1)
        assert f"runs from 0 to {count}" in sentence(lambda: read(count))


@pytest.mark.parametrize("place, least, most", [
    ("2*i - j + 3", 1, 5), ("i + j - 1", -1, 2), ("-i - j + 3", 0, 3), ("7", 7, 7),
])  # fmt: skip
def test_bounds_of_an_index_are_exact(place, least, most):
    """The smallest and the largest value of an affine index, signs included."""
    for size, good in ((most + 1, least >= 0), (most, False)):
        text = f"Sum(a[{place}]*a[0]*i*j, (i, 0, 1), (j, 0, 2))"
        symbols = {"a": sp.IndexedBase("a", shape=(size,), real=True)}
        if good:
            parse_expression(text, symbols)
        else:
            assert f"from {least} to {most}" in sentence(lambda t=text, q=symbols: parse_expression(t, q))


def test_max_of_many_arguments_is_written_in_a_text_that_grows_with_their_number():
    """Twice as many arguments of Max, twice as much text for all derivatives."""

    def size(count):
        args = [x**2 * i + sp.sin(i * y) for i in range(count)]
        return len(md.Loss(sp.Max(*args, evaluate=False), [x, y]).source.text)

    assert size(160) < 2.2 * size(80)


# -- what a model file may ask for ---------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["../d.csv", "/d.csv", "a/../../d.csv", "..\\d.csv", "C:\\d.csv", "//host/d", ".."])
def test_data_stay_below_the_model(file, tmp_path):
    """Absolute paths and paths with `..` are refused, whatever lies there."""
    (tmp_path / "d.csv").write_text("u,t\n1,2\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.toml").write_text(MODEL.replace("FILE", file.replace("\\", "\\\\")))
    text = sentence(lambda: md.load_model(tmp_path / "models" / "m.toml"), md.ModelFileError)
    assert "expected the path of a CSV file below the model file's folder" in text


def test_columns_have_different_names(tmp_path):
    """A CSV file with one name for two columns is refused: either could be meant."""
    (tmp_path / "d.csv").write_text("u,u,t\n1,5,2\n")
    (tmp_path / "m.toml").write_text(MODEL.replace("FILE", "d.csv"))
    assert "'u' is there twice" in sentence(lambda: md.load_model(tmp_path / "m.toml"), md.ModelFileError)


@pytest.mark.parametrize("key", ["steps = 20", "lr = 0.05", "w0 = [1.0]"])
@pytest.mark.parametrize("number", ["0x" + "f" * 4300, "0b" + "1" * 65, "9" * 30, "9" * 5000])
def test_integers_that_nobody_can_print(key, number):
    """Integers of up to thousands of digits, in any base, are refused in one short sentence about the file."""
    name, _, value = key.partition(" = ")
    new = f"[{number}]" if value.startswith("[") else number
    text = sentence(lambda: model_of_text(MODEL.replace(key, f"{name} = {new}"), "m"), md.ModelFileError)
    long = len(number) == 5000
    told = "this is not TOML" if long else f".{name}` holds an integer of {int(number, 0).bit_length()} bits;"
    assert text.startswith("m: ") and told in text and len(text) < 300


# -- arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("w", [np.ones((4, 4))[::2, ::2], np.zeros((0, 2)), np.ones((1, 2))])
def test_one_point_is_one_point(w):
    """square_hvp and sample_hvps are given one point: several, strided ones and none are refused."""
    for call in (
        lambda: FIT.square_hvp(w, [1.0, 2.0]),
        lambda: FIT.square_hvp([1.0, 2.0], w),
        lambda: FIT.sample_hvps(w, [[1.0, 2.0]]),
    ):
        assert "expected (2,): one point." in sentence(call)
    strided = np.ones(4)[::2]
    np.testing.assert_array_equal(FIT.square_hvp(strided, strided), FIT.square_hvp([1.0, 1.0], [1.0, 1.0]))


@pytest.mark.parametrize("lr", [1 / (k - 5), 1 / (5 - k) ** 2, sp.log(k - 5)])
def test_a_step_at_a_pole_is_refused(lr):
    """Map.step at a step whose learning rate is no number says so."""
    assert "at step 5" in sentence(lambda: md.Map(PLANE, md.GD(lr)).step([1.0, 0.5], k=5))


def test_a_picture_does_not_replace_its_result(tmp_path, capsys):
    """`minidyn plot data.png` of a result with that name, or a link to it, is refused."""
    from minidyn import cli

    md.simulate(SGD, [1.0, 0.0], 3, rng=0).save(tmp_path / "data.png")
    before = (tmp_path / "data.png").read_bytes()
    (tmp_path / "link.png").symlink_to("data.png")
    for arguments in (["data.png"], ["link.png"], ["data.png", "--out", str(tmp_path / "link.png")]):
        assert cli.call(["plot", str(tmp_path / arguments[0]), *arguments[1:]]) == 2
        assert "would replace the result" in capsys.readouterr().err
    assert (tmp_path / "data.png").read_bytes() == before
