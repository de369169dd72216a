// W2: many paths of noisy SGD, heavy ball, Nesterov, Adam on L1 = (1 + x^2) y^2 / 2 with Gaussian gradient noise.
// W3: Euler-Maruyama for dx = -x/(1 + x^2) dt + s dW.
// Each is written once for a number type: eight paths to an AVX-512 register and `U` registers side by side, or one
// path after another with the ziggurat ("plain"). Everything that a path needs stays in registers.
#include <vector>
#include "parallel.h"
#include "random.h"

struct Hyper { double lr, momentum, beta1, beta2, eps, sigma; };
struct Scales { double step, root; };  // what Adam's bias corrections make of the step, for one k

template <class V> struct SGD {
    void start() {}
    inline void step(V &x, V &y, V gx, V gy, V a, V b, const Hyper &h, const Scales &) {
        const double scale = h.lr * h.sigma;  // the noise apart: its chain of dependent operations is shorter
        x -= h.lr * gx; y -= h.lr * gy;
        x -= scale * a; y -= scale * b;
    }
};
template <class V> struct HeavyBall {
    V mx, my;
    void start() { mx = my = V{}; }
    inline void step(V &x, V &y, V gx, V gy, V a, V b, const Hyper &h, const Scales &) {
        gx += h.sigma * a; gy += h.sigma * b;
        mx = h.momentum * mx + gx; my = h.momentum * my + gy;
        x -= h.lr * mx; y -= h.lr * my;
    }
};
template <class V> struct Nesterov {
    V mx, my;
    void start() { mx = my = V{}; }
    inline void step(V &x, V &y, V gx, V gy, V a, V b, const Hyper &h, const Scales &) {
        gx += h.sigma * a; gy += h.sigma * b;
        mx = h.momentum * mx + gx; my = h.momentum * my + gy;
        x -= h.lr * (h.momentum * mx + gx); y -= h.lr * (h.momentum * my + gy);
    }
};
template <class V> struct Adam {
    V mx, my, vx, vy;
    void start() { mx = my = vx = vy = V{}; }
    inline void step(V &x, V &y, V gx, V gy, V a, V b, const Hyper &h, const Scales &s) {
        const double d1 = 1 - h.beta1, d2 = 1 - h.beta2;
        gx += h.sigma * a; gy += h.sigma * b;
        mx = h.beta1 * mx + d1 * gx; my = h.beta1 * my + d1 * gy;
        vx = h.beta2 * vx + (d2 * gx) * gx; vy = h.beta2 * vy + (d2 * gy) * gy;
        x -= (s.step * mx) / (s.root * root(vx) + h.eps); y -= (s.step * my) / (s.root * root(vy) + h.eps);
    }
};

template <class Numbers, int U, template <class> class Rule>
static void part(double *x, double *y, int64_t first, int64_t last, int64_t steps, uint64_t seed, const Hyper &hyper, const Scales *scales) {
    const Hyper h = hyper;
    typedef typename Numbers::Real V;
    constexpr int L = Numbers::lanes;
    Numbers draw(seed);
    for (int64_t i = first; i < last; i += L * U) {
        Rule<V> r[U];
        V p[U], q[U];
        for (int u = 0; u < U; u++) { p[u] = load(x + i + L * u, V{}); q[u] = load(y + i + L * u, V{}); r[u].start(); }
        for (int64_t k = 0; k < steps; k++)
            for (int u = 0; u < U; u++) {
                V a, b, gx = p[u] * (q[u] * q[u]), gy = (p[u] * p[u] + 1.0) * q[u];
                draw.normals(a, b);
                r[u].step(p[u], q[u], gx, gy, a, b, h, scales[k]);
            }
        for (int u = 0; u < U; u++) { save(x + i + L * u, p[u]); save(y + i + L * u, q[u]); }
    }
}

template <class Numbers, int U>
static void diffuse(double *x, int64_t first, int64_t last, int64_t steps, double dt, double s, uint64_t seed) {
    typedef typename Numbers::Real V;
    constexpr int L = Numbers::lanes;
    Numbers draw(seed);
    const double q = s * std::sqrt(dt);
    for (int64_t i = first; i < last; i += 2 * L * U) {
        V a[2 * U];
        for (int u = 0; u < 2 * U; u++) a[u] = load(x + i + L * u, V{});
        for (int64_t k = 0; k < steps; k++)
            for (int u = 0; u < U; u++) {
                V z[2];
                draw.normals(z[0], z[1]);
                for (int v = 0; v < 2; v++) {
                    V &w = a[2 * u + v];
                    w = w - dt * w / (w * w + 1.0) + q * z[v];
                }
            }
        for (int u = 0; u < 2 * U; u++) save(x + i + L * u, a[u]);
    }
}

template <template <class> class Rule, int U>
static int ensemble(double *x, double *y, int64_t n, int64_t steps, const Hyper *h, uint64_t seed, int threads, int plain) {
    std::vector<Scales> scales(steps);
    double p1 = 1, p2 = 1;
    for (auto &s : scales) { p1 *= h->beta1; p2 *= h->beta2; s = {h->lr / (1 - p1), std::sqrt(1 / (1 - p2))}; }
#ifdef __AVX512F__
    if (!plain) {
        parallel([=, &scales](int64_t a, int64_t b, uint64_t s) { part<Lanes, U, Rule>(x, y, a, b, steps, s, *h, scales.data()); }, n, seed, threads);
        return 0;
    }
#else
    if (!plain) return 1;
#endif
    parallel([=, &scales](int64_t a, int64_t b, uint64_t s) { part<Scalar, 1, Rule>(x, y, a, b, steps, s, *h, scales.data()); }, n, seed, threads);
    return 0;
}

extern "C" {
#define RULE(NAME, TYPE, U)                                                                                                             \
    int NAME(double *x, double *y, int64_t n, int64_t steps, const Hyper *h, uint64_t seed, int threads, int plain) {      \
        return ensemble<TYPE, U>(x, y, n, steps, h, seed, threads, plain);                                                        \
    }
RULE(sgd, SGD, 4)
RULE(heavy_ball, HeavyBall, 4)
RULE(nesterov, Nesterov, 4)
RULE(adam, Adam, 2)

int diffusion(double *x, int64_t n, int64_t steps, double dt, double s, uint64_t seed, int threads, int plain) {
#ifdef __AVX512F__
    if (!plain) {
        parallel([=](int64_t a, int64_t b, uint64_t q) { diffuse<Lanes, 2>(x, a, b, steps, dt, s, q); }, n, seed, threads);
        return 0;
    }
#else
    if (!plain) return 1;
#endif
    parallel([=](int64_t a, int64_t b, uint64_t q) { diffuse<Scalar, 1>(x, a, b, steps, dt, s, q); }, n, seed, threads);
    return 0;
}
}
