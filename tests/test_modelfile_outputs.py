"""Model files of several outputs: letters and lists, classes in words, weights."""

import csv
import re

import numpy as np
import pytest

from minidyn.common.errors import ModelFileError
from minidyn.common.shipped import shipped
from minidyn.files.models import model_of_text

CLASSES = """
[loss]
kind = "regression"
params = [{ V = [3, 2] }, { b = 3 }]
model = "b[c] + Sum(V[c, j]*x[j], (j, 0, 1))"
outputs = { c = 3 }
criterion = "softmax"
target = "species"
weights = "year"
inputs = { x = ["bill_length_mm", "bill_depth_mm"] }
data = { file = "penguins.csv", rows = { start = 1, stop = 330, step = 40 }, standardize = true }
test = { rows = "rest" }

[rule]
name = "GD"
lr = 0.1

[experiment]
w0 = { kind = "normal", scale = 0.5 }
steps = 3
"""
LISTED = ", ".join(f'"b[{q}] + V[{q}, 0]*x[0] + V[{q}, 1]*x[1]"' for q in range(3))
ROWS = 'target = [[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]\ninputs = { x = [[1.0, 2.0], [3.0, 5.0]] }\ncriterion = "squared"'


def test_outputs_in_a_letter_or_a_list():
    """A letter with `outputs`, or a list, is a model of several outputs; words of a column are classes in order."""
    ranged = model_of_text(CLASSES, "mine").loss
    listed = model_of_text(
        CLASSES.replace('"b[c] + Sum(V[c, j]*x[j], (j, 0, 1))"', f"[{LISTED}]").replace("outputs = { c = 3 }", ""),
        "mine",
    ).loss
    words = [
        row["species"]
        for row in csv.DictReader((shipped("models") / "penguins.csv").read_text(encoding="utf-8").splitlines())
    ]
    labels = np.array([["Adelie", "Chinstrap", "Gentoo"].index(word) for word in words])
    w = np.random.default_rng(0).normal(size=9)
    for loss in (ranged, listed):
        assert loss.n_outputs == 3 and loss.criterion == "softmax"
        np.testing.assert_array_equal(loss.data[loss.target].argmax(1), labels[1:330:40])
        assert (loss.test.data[loss.target].argmax(1) == np.delete(labels, range(1, 330, 40))).all()
        assert loss.shares.mean() == pytest.approx(1.0) and loss.shares.std() > 0
        np.testing.assert_allclose(loss.grad(w), ranged.grad(w), rtol=1e-12)


def test_rows_of_targets():
    """Several outputs have a row of targets for each sample."""
    text = re.sub(r"(criterion|target|weights|inputs|data|test) = .*\n", "", CLASSES)
    loss = model_of_text(text.replace("outputs =", ROWS + "\noutputs ="), "mine").loss
    assert loss.data[loss.target].tolist() == [[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("outputs = { c = 3 }", "outputs = { c = 4 }", "runs from 0 to 3"),
        ("outputs = { c = 3 }", "outputs = { V = 3 }", "a letter with the number of outputs, as in {c = 3}"),
        ("outputs = { c = 3 }", "outputs = { c = 0 }", "`loss.outputs.c`"),
        ("outputs = { c = 3 }", "outputs = { c = 3, d = 2 }", "a letter with the number of outputs"),
        ("outputs = { c = 3 }", "", "`c` is not declared"),
        ('"b[c] + Sum(V[c, j]*x[j], (j, 0, 1))"', f"[{LISTED}]", "one expression where `outputs` has a letter"),
        ('target = "species"', "target = [0, 1, 2, 3, 0, 1, 2, 0, 1]", "target holds 3 (sample 3), which is no class"),
        ('target = "species"', "target = [0, 1, 2]", "differ in their number of samples"),
        ('weights = "year"', "weights = [1.0]", "differ in their number of samples"),
        ('weights = "year"', "weights = [0.0, 0, 0, 0, 0, 0, 0, 0, 0]", "not all zero"),
        ('"softmax"', '"softmaks"', "did you mean `softmax`?"),
    ],
)
def test_wrong_outputs(old, new, part):
    """Outputs, classes and weights that do not fit are refused in a sentence with the file."""
    assert old in CLASSES
    with pytest.raises(ModelFileError) as caught:
        model_of_text(CLASSES.replace(old, new, 1).replace('test = { rows = "rest" }', ""), "mine")
    assert part in str(caught.value) and "\n" not in str(caught.value)
