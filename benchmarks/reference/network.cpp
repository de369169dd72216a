// W2 on L3: many paths of SGD on a tanh net of 10 units and 20 samples, with label noise (all samples, fresh targets
// y + s e every step) or with minibatches (B samples without replacement). Eight paths side by side, or one after another.
#include "network.h"
#include "parallel.h"
#include "random.h"

static constexpr int M = 10, N = 20, B = 4;
static double inputs[N], targets[N];

// The gradient's sums of one sample: input t, target y.
template <class V> static inline void add_sample(const V *p, V t, V y, V *d) {
    V h[M], r = -y;
    for (int j = 0; j < M; j++) { h[j] = tangent(p[M + j] * t + p[2 * M + j]); r += p[j] * h[j]; }
    for (int j = 0; j < M; j++) {
        V q = r * p[j] * (1.0 - h[j] * h[j]);
        d[j] += r * h[j]; d[M + j] += q * t; d[2 * M + j] += q;
    }
}

// B different samples (Floyd's algorithm: step j takes a number below j + 1, or j itself if that one is taken).
template <class Numbers, class V> static inline void choose(Numbers &draw, V *chosen) {
    for (int b = 0; b < B; b++) {
        const int j = N - B + b;
        V t = draw.below(j + 1), c = t;
        for (int a = 0; a < b; a++) c = pick(equal(chosen[a], t), V{} + double(j), c);
        chosen[b] = c;
    }
}

template <class Numbers, bool LABELS>
static void part(double *w, int64_t first, int64_t last, int64_t steps, double lr, double std, uint64_t seed) {
    typedef typename Numbers::Real V;
    constexpr int L = Numbers::lanes;
    Numbers draw(seed);
    for (int64_t i = first; i < last; i += L) {
        V p[3 * M], d[3 * M];
        double lane[L];
        for (int q = 0; q < 3 * M; q++) {
            for (int l = 0; l < L; l++) lane[l] = w[(i + l) * 3 * M + q];
            p[q] = load(lane, V{});
        }
        for (int64_t k = 0; k < steps; k++) {
            for (int q = 0; q < 3 * M; q++) d[q] = V{};
            if (LABELS) {
                for (int s = 0; s < N; s += 2) {
                    V e[2];
                    draw.normals(e[0], e[1]);
                    for (int u = 0; u < 2; u++) add_sample<V>(p, V{} + inputs[s + u], targets[s + u] + std * e[u], d);
                }
            } else {
                V chosen[B];
                choose(draw, chosen);
                for (int b = 0; b < B; b++) add_sample<V>(p, entry(inputs, chosen[b]), entry(targets, chosen[b]), d);
            }
            const double rate = lr / (LABELS ? N : B);
            for (int q = 0; q < 3 * M; q++) p[q] -= rate * d[q];
        }
        for (int q = 0; q < 3 * M; q++) {
            save(lane, p[q]);
            for (int l = 0; l < L; l++) w[(i + l) * 3 * M + q] = lane[l];
        }
    }
}

template <bool LABELS> static int run(double *w, int64_t n, int64_t steps, double lr, double std, uint64_t seed, int threads, int plain) {
#ifdef __AVX512F__
    if (!plain) {
        parallel([=](int64_t a, int64_t b, uint64_t s) { part<Lanes, LABELS>(w, a, b, steps, lr, std, s); }, n, seed, threads);
        return 0;
    }
#else
    if (!plain) return 1;
#endif
    parallel([=](int64_t a, int64_t b, uint64_t s) { part<Scalar, LABELS>(w, a, b, steps, lr, std, s); }, n, seed, threads);
    return 0;
}

extern "C" {
void network_data(const double *t, const double *y) { memcpy(inputs, t, sizeof inputs); memcpy(targets, y, sizeof targets); }
int label_noise(double *w, int64_t n, int64_t steps, double lr, double std, uint64_t seed, int threads, int plain) {
    return run<true>(w, n, steps, lr, std, seed, threads, plain);
}
int minibatch(double *w, int64_t n, int64_t steps, double lr, double std, uint64_t seed, int threads, int plain) {
    return run<false>(w, n, steps, lr, std, seed, threads, plain);
}
}
