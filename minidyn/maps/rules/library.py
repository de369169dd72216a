"""The rules of docs/theory.md, section 1, as the papers write them; PyTorch's conventions."""

from collections.abc import Callable
from typing import Any

import sympy as sp

from minidyn.common.errors import InputError
from minidyn.common.intake import finite, flag
from minidyn.maps.rules.making import RuleFunction, maker
from minidyn.maps.rules.rule import Rule

BUILTIN: list[RuleFunction] = []


def _builtin(function: Callable[..., Any]) -> Callable[..., Rule]:
    BUILTIN.append(RuleFunction(function, builtin=True))
    return maker(BUILTIN[-1])


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Rule]:
    function.__name__ = name
    return _builtin(function)


def _gradient_step(theta, g, *, lr):  # type: ignore[no-untyped-def]
    """`theta' = theta - lr g`"""
    return theta - lr * g


def _heavy_ball(theta, g, m, *, lr, momentum):  # type: ignore[no-untyped-def]
    """`m' = momentum m + g`, `theta' = theta - lr m'`"""
    m = momentum * m + g
    return theta - lr * m, m


def _nesterov(theta, g, m, *, lr, momentum):  # type: ignore[no-untyped-def]
    """`m' = momentum m + g`, `theta' = theta - lr (g + momentum m')`"""
    m = momentum * m + g
    return theta - lr * (g + momentum * m), m


_GD, _SGD = _named("GD", _gradient_step), _named("SGD", _gradient_step)
_HEAVY_BALL, _NESTEROV = _named("SGD", _heavy_ball), _named("Nesterov", _nesterov)


def GD(lr: Any) -> Rule:
    """Gradient descent, `theta' = theta - lr g`; `lr` a number, or an expression in the step number `k` (a schedule).

    >>> import minidyn as md
    >>> md.GD(0.1)
    GD(lr=0.1)
    """
    return _GD(lr)


def SGD(lr: Any, momentum: Any = 0, nesterov: bool = False) -> Rule:
    """`m' = momentum m + g`, `theta' = theta - lr m'`; Nesterov: `theta' = theta - lr (g + momentum m')`.

    Without momentum it is the gradient step. PyTorch's `SGD` (dampening 0). `lr` and `momentum` are numbers, or
    expressions in the step number `k` (schedules); InputError where they are neither, or out of their ranges.

    >>> import minidyn as md
    >>> md.SGD(lr=0.1, momentum=0.9, nesterov=True)
    Nesterov(lr=0.1, momentum=0.9)
    """
    nesterov = flag(nesterov, "SGD: nesterov")
    if not isinstance(momentum, sp.Expr) and finite(momentum, "SGD: momentum") == 0:
        if nesterov:
            raise InputError("SGD with nesterov needs momentum > 0.")
        return _SGD(lr)
    if nesterov:
        return _NESTEROV(lr, momentum)
    return _HEAVY_BALL(lr, momentum)


@_builtin
def SignGD(theta, g, *, lr):  # type: ignore[no-untyped-def]
    """`theta' = theta - lr sign(g)`

    >>> import minidyn as md
    >>> md.SignGD(0.01)
    SignGD(lr=0.01)
    """
    return theta - lr * sp.sign(g)


@_builtin
def Lion(theta, g, m, *, lr, beta1=0.9, beta2=0.99):  # type: ignore[no-untyped-def]
    """`theta' = theta - lr sign(beta1 m + (1-beta1) g)`, `m' = beta2 m + (1-beta2) g` (Chen et al. 2023)

    >>> import minidyn as md
    >>> md.Lion(0.01).states
    ('m',)
    """
    return theta - lr * sp.sign(beta1 * m + (1 - beta1) * g), beta2 * m + (1 - beta2) * g


@_builtin
def RMSProp(theta, g, v, *, lr, beta2=0.99, eps=1e-8):  # type: ignore[no-untyped-def]
    """`v' = beta2 v + (1-beta2) g^2`, `theta' = theta - lr g/(sqrt(v') + eps)`

    >>> import minidyn as md
    >>> md.RMSProp(0.01).hyper["beta2"]
    0.99
    """
    v = beta2 * v + (1 - beta2) * g**2
    return theta - lr * g / (sp.sqrt(v) + eps), v


@_builtin
def Adam(theta, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, k):  # type: ignore[no-untyped-def]
    """`m' = beta1 m + (1-beta1) g`, `v' = beta2 v + (1-beta2) g^2`,
    `theta' = theta - lr m^/(sqrt(v^) + eps)` with `m^ = m'/(1-beta1^k)`, `v^ = v'/(1-beta2^k)`
    (Kingma, Ba 2015)

    >>> import minidyn as md
    >>> md.Adam(lr=0.001).states
    ('m', 'v')
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return theta - lr * (m / (1 - beta1**k)) / (sp.sqrt(v / (1 - beta2**k)) + eps), m, v


@_builtin
def AdamW(theta, g, m, v, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, k):  # type: ignore[no-untyped-def]
    """Adam after `theta` was multiplied by `1 - lr weight_decay` (Loshchilov, Hutter 2019)

    >>> import minidyn as md
    >>> md.AdamW(lr=0.001, weight_decay=0.1).hyper["weight_decay"]
    0.1
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    step = lr * (m / (1 - beta1**k)) / (sp.sqrt(v / (1 - beta2**k)) + eps)
    return theta * (1 - lr * weight_decay) - step, m, v


LIBRARY: dict[str, Callable[..., Rule]] = {f.__name__: f for f in (GD, SGD, SignGD, Lion, RMSProp, Adam, AdamW)}
