"""`X >= 0`, `Y = A + K[X] >= 0`, `<X, Y> = 0` for symmetric matrices: which curvatures push back, and how hard.

For the central flow `Y` is the rate at which the critical curvatures fall, `X` the oscillation that makes them
fall. With `K` positive semidefinite this is the optimality condition of a convex quadratic program over
positive semidefinite matrices. A few rows are all that occurs, so an interior-point method that forms its
Newton system densely is quickest.
Source: Alizadeh, Haeberly, Overton, *Primal-dual interior-point methods for semidefinite programming* (1998).
"""

import numpy as np

from minidyn.common.arrays import Floats
from minidyn.common.errors import SolverError


def basis(m: int) -> Floats:
    """Orthonormal symmetric matrices (m (m+1)/2, m, m)."""
    out = []
    for a in range(m):
        for b in range(a + 1):
            e = np.zeros((m, m))
            e[a, b] = e[b, a] = 1.0 if a == b else np.sqrt(0.5)
            out.append(e)
    return np.array(out)


def balanced(A: Floats, K: Floats) -> Floats:
    """`X` (m, m) of any sign with `A + K[X] = 0`, the shortest where there are several."""
    E = basis(len(A))
    k = np.einsum("pab,abcd,qcd->pq", E, K, E)
    x = np.linalg.lstsq(k, -np.einsum("pab,ab->p", E, A), rcond=1e-13)[0]
    return np.asarray(np.einsum("p,pab->ab", x, E))


def solve(A: Floats, K: Floats, tolerance: float = 1e-12) -> tuple[Floats, Floats]:
    """`X`, `Y` (m, m) with `X >= 0`, `Y = A + K[X] >= 0` and `<X, Y> = 0`.

    `A` is symmetric (m, m); `K` (m, m, m, m) acts as `K[X]_ab = sum_cd K_abcd X_cd`, symmetric and positive
    semidefinite. The largest of `|Y - A - K[X]|`, `|X Y|` and the negative parts ends below `tolerance`, each
    relative to the size of `X` and of `Y`. Where `X` is not unique it is in the middle of the solutions.

    Raises SolverError where no solution is found (`A` negative in a direction in which `K` does nothing).

    >>> import numpy as np
    >>> X, Y = solve(np.diag([-1.0, 2.0]), np.einsum("ac,bd->abcd", np.eye(2), np.eye(2)))
    >>> np.round(X, 10) + 0.0, np.round(Y, 10) + 0.0
    (array([[1., 0.],
           [0., 0.]]), array([[0., 0.],
           [0., 2.]]))
    """
    m = len(A)
    size_y = float(np.abs(A).max())
    if size_y == 0.0 or np.linalg.eigvalsh(A)[0] >= 0.0:
        return np.zeros((m, m)), A.copy()
    size_k = float(np.abs(K).max())
    if size_k == 0.0:
        raise SolverError("nothing holds a critical curvature back: the third derivatives across it vanish.")
    E = basis(m)
    a = np.einsum("pab,ab->p", E, A) / size_y
    k = np.einsum("pab,abcd,qcd->pq", E, K, E) / size_k
    k = 0.5 * (k + k.T)
    for lift in (0.0, 1e-13, 1e-12, 1e-11):  # too few directions for so many curvatures: no interior without it
        X, Y, wrong = _interior(E, a, k + lift * np.eye(len(a)), tolerance)
        if wrong <= 1e-10:
            return X * (size_y / size_k), Y * size_y
    raise SolverError(
        f"the curvatures at the threshold cannot all be held there (the oscillation grows without bound; {wrong:.0e})."
    )


def _interior(E: Floats, a: Floats, k: Floats, tolerance: float) -> tuple[Floats, Floats, float]:
    """Newton's method on `X Y + Y X = 2 mu I`, `Y = a + k X`, with `mu` driven to zero; and what is left."""
    m = E.shape[1]
    eye = np.eye(m)
    X, Y = 10.0 * eye, 10.0 * eye

    best = np.inf
    found = X, Y

    def vector(M: Floats) -> Floats:
        return np.asarray(np.einsum("pab,ab->p", E, M))

    for _ in range(100):
        x, y = vector(X), vector(Y)
        gap = float(x @ y) / m
        residual = a + k @ x - y
        wrong = max(100.0 * gap / (1.0 + np.abs(X).max()), float(np.abs(residual).max())) / (1.0 + np.abs(Y).max())
        if not wrong < np.inf:
            break
        if wrong < best:
            best, found = wrong, (X, Y)
        if wrong <= tolerance:
            break
        left = np.array([vector(e @ Y + Y @ e) for e in E]).T  # dX -> dX Y + Y dX
        right = np.array([vector(e @ X + X @ e) for e in E]).T  # dY -> X dY + dY X

        def direction(
            target: Floats,
            system: Floats = left + right @ k,
            known: Floats = right @ residual,
            residual: Floats = residual,
        ) -> tuple[Floats, Floats]:
            dx = np.linalg.solve(system, vector(target) - known)
            return np.einsum("p,pab->ab", dx, E), np.einsum("p,pab->ab", residual + k @ dx, E)

        try:
            product = -X @ Y - Y @ X
            dX, dY = direction(product)
            along = min(_room(X, dX), _room(Y, dY), 1.0)
            hoped = float(vector(X + along * dX) @ vector(Y + along * dY)) / m
            mu = gap * min(1.0, max(hoped / gap, 0.0)) ** 3
            dX, dY = direction(product + 2.0 * mu * eye - dX @ dY - dY @ dX)
            along = min(0.9 * min(_room(X, dX), _room(Y, dY)), 1.0)
        except np.linalg.LinAlgError:  # singular to rounding
            break
        X, Y = X + along * dX, Y + along * dY
    return *found, best


def _room(M: Floats, dM: Floats) -> float:
    """The longest step along dM that keeps M positive semidefinite."""
    low = np.linalg.cholesky(M)
    inner = np.linalg.solve(low, np.linalg.solve(low, dM).T)
    least = float(np.linalg.eigvalsh(0.5 * (inner + inner.T))[0])
    return -1.0 / least if least < 0.0 else np.inf
