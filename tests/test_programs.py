"""Random programs of the compiler's language mean what they mean in Python, in any number of lanes, checked or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import arguments, program

from minidyn.compiler import cache

RANDOM = st.randoms(use_true_random=False)


def run(function, args) -> list[np.ndarray]:
    """The result and the arrays, after a call on copies."""
    given = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    result = function(*given)
    return [np.array(result, float), *(a for a in given if isinstance(a, np.ndarray))]


def agree(text: str, seed: int) -> None:
    """The compiled function of a module ends with the bits with which its text ends as Python."""
    function = cache.load_module(text).f
    args = arguments(seed)
    want = run(function.py_func, args)
    for form in (function, function.one_by_one):
        for got, wanted in zip(run(form, args), want, strict=True):
            np.testing.assert_array_equal(got, wanted, err_msg=text)
            np.testing.assert_array_equal(np.signbit(got), np.signbit(wanted), err_msg=text)


@pytest.mark.parametrize("in_lanes", [False, True])
@settings(max_examples=30)
@given(rng=RANDOM, seed=st.integers(0, 2**32))
def test_programs_are_python(in_lanes, rng, seed):
    """Loops, branches, arrays, tuples, whole numbers, floats; one by one and in lanes."""
    agree(program(rng, in_lanes), seed)
