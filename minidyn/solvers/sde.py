"""One step of each scheme for flows with noise: `w += ...` over a time h, given the Brownian increments of that time.

With `b(w, k)` the drift per step and `f(w, k)` the noise factor, `W` the increments over the time h and `I` their areas
`int (W_s - W_0) ds`. What each scheme is for stands in `schemes`. On a manifold every step is followed by the flow's
retraction, which leaves the orders as they are: a point of the manifold is where its projection is.

All schemes take the same arguments, so that a time loop is compiled for one of them: `noise = (W, I, V)`, and `room`,
which is scratch for states, drifts and factors `(x, y, b, b1, f, f1, g)`. They also run in lanes, where a status code
may differ from lane to lane: a step goes on where one fails.
"""

import math

from minidyn.solvers.system import field_at, inline, worse


@inline
def predicted(w, h, b, f, W, x):
    """x = w + b h + f W"""
    for i in range(w.shape[0]):
        total = b[i] * h
        for r in range(f.shape[1]):
            total += f[i, r] * W[r]
        x[i] = w[i] + total


@inline
def euler(system, w, k, h, noise, room):
    """w += b h + f W, both taken in the middle of the clock's interval.

    Source: Maruyama (1955); Kloeden, Platen (1992), section 10.2.
    """
    W, _, _ = noise
    _, _, b, _, f, _, _ = room
    code = field_at(system, w, k + 0.5 * h, b, f)
    for i in range(w.shape[0]):
        total = w[i] + b[i] * h
        for r in range(f.shape[1]):
            total += f[i, r] * W[r]
        w[i] = total
    return code


@inline
def milstein(system, w, k, h, noise, room):
    """w += b h + f W + 1/2 sum_jr (f_r(w + b h + f_j sqrt h) - f_r(w)) (W_j W_r - h [j = r]) / sqrt h.

    The derivatives of the noise along itself are differences. Source: Milstein (1974); Kloeden, Platen (1992), 11.1.
    """
    W, _, _ = noise
    x, y, b, b1, f, f1, _ = room
    code = field_at(system, w, k, b, f)
    size, columns = f.shape
    root = math.sqrt(h)
    predicted(w, h, b, f, W, y)
    for j in range(columns):
        for i in range(size):
            x[i] = w[i] + b[i] * h + f[i, j] * root
        code = worse(code, field_at(system, x, k, b1, f1))
        for r in range(columns):
            weight = 0.5 * (W[j] * W[r] - (h if j == r else 0.0)) / root
            for i in range(size):
                y[i] += weight * (f1[i, r] - f[i, r])
    for i in range(size):
        w[i] = y[i]
    return code


@inline
def diagonal(system, w, k, h, noise, room):
    """w_i += b_i h + f_ii W_i + (f_ii(w + b h + diag f sqrt h) - f_ii(w)) (W_i^2 - h) / (2 sqrt h).

    One more evaluation, whatever the dimension. Source: Kloeden, Platen (1992), section 11.1.
    """
    W, _, _ = noise
    x, _, b, b1, f, f1, _ = room
    code = field_at(system, w, k, b, f)
    size = w.shape[0]
    root = math.sqrt(h)
    for i in range(size):
        x[i] = w[i] + b[i] * h + f[i, i] * root
    code = worse(code, field_at(system, x, k, b1, f1))
    for i in range(size):
        w[i] += b[i] * h + f[i, i] * W[i] + 0.5 * (f1[i, i] - f[i, i]) * (W[i] * W[i] - h) / root
    return code


@inline
def heun(system, w, k, h, noise, room):
    """x = w + b h + f W, w += (b(w) + b(x)) h / 2 + (f(w) + f(x)) W / 2: the Stratonovich reading.

    Source: Rumelin (1982); Kloeden, Platen (1992), section 14.
    """
    W, _, _ = noise
    x, _, b, b1, f, f1, _ = room
    code = field_at(system, w, k, b, f)
    size, columns = f.shape
    predicted(w, h, b, f, W, x)
    code = worse(code, field_at(system, x, k + h, b1, f1))
    for i in range(size):
        total = 0.5 * (b[i] + b1[i]) * h
        for r in range(columns):
            total += 0.5 * (f[i, r] + f1[i, r]) * W[r]
        w[i] += total
    return code


@inline
def additive(system, w, k, h, noise, room):
    """x = w + 3/4 b h + 3/2 f I / h, w += h (b(w) + 2 b(x)) / 3 + f(k + h) W + (f(k) - f(k + h)) I / h.

    Source: Roessler (2010), scheme SRA1.
    """
    W, I, _ = noise
    x, _, b, b1, f, f1, g = room
    code = field_at(system, w, k, b, f)
    code = worse(code, field_at(system, w, k + h, b1, f1))
    size, columns = f.shape
    for i in range(size):
        total = 0.75 * h * b[i]
        for r in range(columns):
            total += 1.5 * f1[i, r] * I[r] / h
        x[i] = w[i] + total
    code = worse(code, field_at(system, x, k + 0.75 * h, b1, g))
    for i in range(size):
        total = h * (b[i] + 2.0 * b1[i]) / 3.0
        for r in range(columns):
            total += f1[i, r] * W[r] + (f[i, r] - f1[i, r]) * I[r] / h
        w[i] += total
    return code


@inline
def weak(system, w, k, h, noise, room):
    """Platen's explicit scheme of weak order 2 for any number of noises that need not commute.

    V[r, j] = -V[j, r] are coins -1 or 1, in the place of the areas between two noises.
    Source: Kloeden, Platen (1992), section 15.1.
    """
    W, _, V = noise
    x, y, b, b1, f, f1, g = room
    code = field_at(system, w, k, b, f)
    size, columns = f.shape
    root = math.sqrt(h)
    predicted(w, h, b, f, W, x)
    code = worse(code, field_at(system, x, k + h, b1, f1))
    for i in range(size):
        total = 0.5 * h * (b[i] + b1[i])
        for r in range(columns):
            total += 0.5 * f[i, r] * W[r]
        y[i] = w[i] + total
    for r in range(columns):
        # support along noise r, with and without the drift, on both sides
        for i in range(size):
            x[i] = w[i] + b[i] * h + f[i, r] * root
        code = worse(code, field_at(system, x, k + h, b1, f1))
        for i in range(size):
            x[i] = w[i] + b[i] * h - f[i, r] * root
        code = worse(code, field_at(system, x, k + h, b1, g))
        own = (W[r] * W[r] - h) / root
        for i in range(size):
            y[i] += 0.25 * ((f1[i, r] + g[i, r]) * W[r] + (f1[i, r] - g[i, r]) * own)
        if columns == 1:
            continue
        for i in range(size):
            x[i] = w[i] + f[i, r] * root
        code = worse(code, field_at(system, x, k, b1, f1))
        for i in range(size):
            x[i] = w[i] - f[i, r] * root
        code = worse(code, field_at(system, x, k, b1, g))
        for j in range(columns):
            if j == r:
                continue
            both = (W[j] * W[r] + h * V[r, j]) / root
            for i in range(size):
                middle = f1[i, j] + g[i, j] - 2.0 * f[i, j]
                y[i] += 0.25 * (middle * W[j] + (f1[i, j] - g[i, j]) * both)
    for i in range(size):
        w[i] = y[i]
    return code
