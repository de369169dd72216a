"""Normal numbers in the gradient, whatever the samples: `g + sigma z`, `z ~ N(0, I)`."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import sympy as sp

from minidyn.common.errors import InputError
from minidyn.common.intake import number, numbers
from minidyn.graph import walk
from minidyn.maps.noise.additive import Additive, varies
from minidyn.maps.noise.base import Noise, Option


@dataclass(frozen=True, eq=False, repr=False)
class GaussianNoise(Additive):
    """`g + sigma z` with `z ~ N(0, I)` fresh every step.

    `sigma`: a number, a vector (D,), a matrix (D, r), or sympy expressions in the parameters.

    >>> import minidyn as md
    >>> md.GaussianNoise(0.3)
    GaussianNoise(0.3)
    """

    _offers = "sigma like"
    sigma: Any

    key: ClassVar[str] = "gaussian"
    sets: ClassVar[str] = "sigma"
    options: ClassVar[dict[str, Option]] = {"sigma": Option("expressions")}

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", entries(self.sigma))

    @staticmethod
    def like(noise: Noise, shape: str = "full") -> Noise:
        """Normal numbers with the covariance of another noise, wherever the parameters are: `g + Sigma(w)^1/2 z`.

        noise : `Minibatch`, or anything that is added to the gradient and has a variance; of a sum each part.
        shape : "full", "diagonal" (the variances alone) or "isotropic" (their mean in every coordinate).

        Nothing is factorized: n numbers are drawn for the n samples ("full"), else one for each coordinate.

        Raises InputError for a noise without a covariance per step, and for label noise.

        >>> import minidyn as md
        >>> md.GaussianNoise.like(md.Minibatch(4), "diagonal")
        GaussianNoise.like(Minibatch(4), 'diagonal')
        """
        from minidyn.maps.noise.alike import like

        return like(noise, shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({brief(self.sigma)})"


def brief(sigma: Any) -> str:
    """sigma in at most 40 letters."""
    text = walk.named(sigma if isinstance(sigma, sp.Basic) else np.asarray(sigma, dtype=object).tolist())
    return text if len(text) < 40 else text[:37] + "..."


def entries(sigma: Any) -> Any:
    """One float or expression, or an array of them that nobody changes any more."""
    if sigma is None:
        raise InputError("sigma must hold numbers or sympy expressions, not None.")
    if isinstance(sigma, sp.MatrixBase):
        sigma = sigma.tolist()
    if _symbolic(sigma):
        try:
            given = np.array(sigma, dtype=object)
        except ValueError as error:
            raise InputError("sigma must hold numbers or expressions in rows of one length.") from error
        found = [v if _symbolic(v) else number(v, "an entry of sigma") for v in given.flat]
        values = np.array(found, dtype=object).reshape(given.shape)
    else:
        values = numbers(sigma, "sigma").astype(object)
    if values.ndim > 2 or not values.size:
        raise InputError(f"sigma must be a number, a vector (D,) or a matrix (D, r); it has shape {values.shape}.")
    known = [v for v in values.flat if isinstance(v, float)]
    if not np.isfinite(known).all():
        raise InputError("sigma contains NaN or Inf; it must be finite.")
    if values.ndim < 2 and any(v < 0 for v in known):
        raise InputError("sigma is a standard deviation and must not be negative.")
    values.flags.writeable = False
    return values if values.ndim else values.item()


def _symbolic(sigma: Any) -> bool:
    """Whether an expression is no number, or is among the entries."""
    if isinstance(sigma, np.ndarray) and sigma.dtype == object:
        return any(map(_symbolic, sigma.flat))
    if isinstance(sigma, (list, tuple)):
        return any(map(_symbolic, sigma))
    return varies(sigma)
