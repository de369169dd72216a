"""What is said of a subexpression that cannot be read: where it stands in the loss, and the nearest form that works."""

import sympy as sp
from sympy.core.function import AppliedUndef

from minidyn.common.errors import ExpressionError
from minidyn.graph.vocabulary import SUPPORTED
from minidyn.graph.walk import postorder, printed

_POINTS = "a Sum over the points of a quadrature"
_NEAREST = {  # of what a class means, the nearest form that works
    sp.Integral: f"try .doit(), or write {_POINTS}",
    AppliedUndef: "write out in its place what it stands for",
    (sp.Derivative, sp.Subs): "sympy cannot carry it out; write the result",
    sp.Limit: "try .doit(), or a Piecewise with the limit's value",
    sp.Lambda: "call it with an argument, as in f(x)",
    sp.Order: "leave it out with .removeO()",
    (sp.DiracDelta, sp.SingularityFunction): "it is no function of numbers; write a narrow exp(-(x/width)**2)",
    (sp.Si, sp.Ci, sp.Shi, sp.Chi, sp.Ei, sp.expint, sp.li, sp.Li, sp.fresnels, sp.fresnelc, sp.erf2,
     sp.erfi, sp.lowergamma, sp.uppergamma):
        f"write {_POINTS} of what it integrates",
    (sp.zeta, sp.polylog, sp.dirichlet_eta, sp.lerchphi, sp.hyper, sp.meijerg):
        "write the first terms of its series as a Sum with fixed bounds",
    (sp.bessely, sp.besselk): "of the Bessel functions besselj and besseli have kernels, of whole order",
    sp.IndexedBase: "give it an index, as in a Sum over a[j]",
    (sp.MatrixExpr, sp.MatrixBase):
        "of matrices there are + - @ .T, whole powers, Inverse, HadamardProduct, HadamardPower, applyfunc, DiagMatrix, "
        "slices, BlockMatrix, Identity, ZeroMatrix and OneMatrix",
    sp.Tuple: "a loss is one number: add its parts",
}  # fmt: skip
_SHOWN = 60


def no_kernel(e: sp.Basic) -> ExpressionError:
    """The error about a subexpression of a class that is not read."""
    hint = next((text for kind, text in _NEAREST.items() if isinstance(e, kind)), f"supported: {SUPPORTED}")
    return ExpressionError(f"the subexpression {printed(e)} uses {type(e).__name__}, which has no kernel; {hint}.")


def placed(error: ExpressionError, whole: sp.Basic, part: sp.Basic) -> ExpressionError:
    """The same error, which also says where in the whole expression the part stands."""
    above: dict[int, sp.Basic] = {}
    for parent, args in postorder(whole):
        for a in args:
            above.setdefault(id(a), parent)
    path = [part]
    while id(path[-1]) in above and len(path) < 1000:
        path.append(above[id(path[-1])])
    if path[-1] is not whole or len(path) == 1:
        return error
    inside = next((p for p in path[1:] if isinstance(p, (sp.Function, sp.Sum, sp.Product))), None)
    term = path[-2] if isinstance(whole, sp.Add) and len(path) > 2 else None
    said = [f"inside {printed(inside, _SHOWN)}"] if inside is not None else []
    said += [f"in the term {printed(term, _SHOWN)}"] if term is not None and term is not inside else []
    text = str(error).removesuffix(".")
    return ExpressionError(f"{text}; it stands {' '.join(said)}.") if said else error
