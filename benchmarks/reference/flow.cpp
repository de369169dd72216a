// W4: gradient flow on L2 = (1 - x^2 y^2)^2 / 4 and on L3 with DOP853 and the usual step control (order 8, errors of
// orders 5 and 3); gradients of L3 and L4. `l2_lanes` carries eight starts side by side, each with its own step size.
#include <algorithm>
#include <cstdint>
#include <cmath>
#include "network.h"
#include "tableau.h"
#ifdef __AVX512F__
#include <immintrin.h>
#endif

struct L2 {
    static constexpr int n = 2;
    template <class V> inline void operator()(const V *p, V *d) const {
        V x = p[0], y = p[1], q = (1 - x * x * y * y) * x * y;
        d[0] = q * y; d[1] = q * x;
    }
};

template <class F> static int64_t solve(const F &f, double *y, double T, double rtol, double atol) {
    constexpr int n = F::n;
    double K[13][n], w[n], t = 0, h;
    int64_t calls = 2;
    auto norm = [&](const double *v, const double *s) {
        double q = 0;
        for (int i = 0; i < n; i++) { double e = v[i] / s[i]; q += e * e; }
        return std::sqrt(q / n);
    };
    f(y, K[0]);
    {
        double s[n], f1[n];
        for (int i = 0; i < n; i++) s[i] = atol + rtol * std::fabs(y[i]);
        double d0 = norm(y, s), d1 = norm(K[0], s), h0 = (d0 < 1e-5 || d1 < 1e-5) ? 1e-6 : 0.01 * d0 / d1;
        for (int i = 0; i < n; i++) w[i] = y[i] + h0 * K[0][i];
        f(w, f1);
        for (int i = 0; i < n; i++) f1[i] -= K[0][i];
        double m = std::max(d1, norm(f1, s) / h0);
        h = std::min({100 * h0, m <= 1e-15 ? std::max(1e-6, h0 * 1e-3) : std::pow(0.01 / m, 1. / 8), T});
    }
    while (t < T) {
        for (bool rejected = false;;) {
            h = std::min(h, T - t);
            for (int s = 1; s < 12; s++) {
                for (int i = 0; i < n; i++) w[i] = A[s][0] * K[0][i];
                for (int k = 1; k < s; k++) if (A[s][k] != 0) for (int i = 0; i < n; i++) w[i] += A[s][k] * K[k][i];
                for (int i = 0; i < n; i++) w[i] = y[i] + h * w[i];
                f(w, K[s]);
            }
            for (int i = 0; i < n; i++) { double q = 0; for (int s = 0; s < 12; s++) q += B[s] * K[s][i]; w[i] = y[i] + h * q; }
            f(w, K[12]); calls += 12;
            double e5 = 0, e3 = 0;
            for (int i = 0; i < n; i++) {
                double s = atol + rtol * std::max(std::fabs(y[i]), std::fabs(w[i])), a = 0, b = 0;
                for (int k = 0; k < 13; k++) { a += E5[k] * K[k][i]; b += E3[k] * K[k][i]; }
                a /= s; b /= s; e5 += a * a; e3 += b * b;
            }
            double error = (e5 == 0 && e3 == 0) ? 0 : h * e5 / std::sqrt((e5 + 0.01 * e3) * n);
            if (error < 1) {
                double factor = error == 0 ? 10 : std::min(10., 0.9 * std::pow(error, -1. / 8));
                if (rejected) factor = std::min(1., factor);
                t = (h >= T - t) ? T : t + h;
                h *= factor; memcpy(y, w, sizeof w); memcpy(K[0], K[12], sizeof w);
                break;
            }
            h *= std::max(0.2, 0.9 * std::pow(error, -1. / 8)); rejected = true;
        }
    }
    return calls;
}

#ifdef __AVX512F__
typedef __m512d V;
static inline V all(double v) { return _mm512_set1_pd(v); }
static inline V pick(__mmask8 m, V yes, V no) { return _mm512_mask_blend_pd(m, no, yes); }

// Eight starts at a time; a lane that arrives takes the next start. err^(-1/8) is three square roots.
template <class F> static void solve8(const F &f, double *y, int64_t count, double T, double rtol, double atol) {
    constexpr int n = F::n;
    V K[13][n], w[n], u[n], t = all(T), h = all(1), rejected = all(0);
    int64_t owner[8], next = 0;
    for (auto &o : owner) o = -1;
    for (int i = 0; i < n; i++) { u[i] = all(1); for (auto &k : K) k[i] = all(0); }
    for (;;) {
        __mmask8 arrived = _mm512_cmp_pd_mask(t, all(T), _CMP_GE_OQ);
        if (arrived) {
            alignas(64) double z[n][8];
            for (int i = 0; i < n; i++) _mm512_store_pd(z[i], u[i]);
            bool any = false;
            __mmask8 fresh = 0;
            for (int l = 0; l < 8; l++) {
                if (arrived >> l & 1) {
                    if (owner[l] >= 0) for (int i = 0; i < n; i++) y[owner[l] * n + i] = z[i][l];
                    owner[l] = next < count ? next++ : -1;
                    if (owner[l] >= 0) { fresh |= 1 << l; for (int i = 0; i < n; i++) z[i][l] = y[owner[l] * n + i]; }
                }
                any |= owner[l] >= 0;
            }
            if (!any) return;
            if (fresh) {
                for (int i = 0; i < n; i++) u[i] = _mm512_load_pd(z[i]);
                V k0[n], s[n], f1[n], d0 = all(0), d1 = all(0), d2 = all(0);
                f(u, k0);
                for (int i = 0; i < n; i++) {
                    s[i] = atol + rtol * _mm512_abs_pd(u[i]);
                    d0 += (u[i] / s[i]) * (u[i] / s[i]); d1 += (k0[i] / s[i]) * (k0[i] / s[i]);
                }
                d0 = _mm512_sqrt_pd(d0 / n); d1 = _mm512_sqrt_pd(d1 / n);
                V h0 = pick(_mm512_cmp_pd_mask(_mm512_min_pd(d0, d1), all(1e-5), _CMP_LT_OQ), all(1e-6), 0.01 * d0 / d1);
                for (int i = 0; i < n; i++) w[i] = u[i] + h0 * k0[i];
                f(w, f1);
                for (int i = 0; i < n; i++) { V q = (f1[i] - k0[i]) / s[i]; d2 += q * q; }
                V m = _mm512_max_pd(d1, _mm512_sqrt_pd(d2 / n) / h0), e = 0.01 / m;
                e = _mm512_sqrt_pd(_mm512_sqrt_pd(_mm512_sqrt_pd(e)));
                e = pick(_mm512_cmp_pd_mask(m, all(1e-15), _CMP_LE_OQ), _mm512_max_pd(all(1e-6), h0 * 1e-3), e);
                e = _mm512_min_pd(_mm512_min_pd(100 * h0, e), all(T));
                h = pick(fresh, e, h); t = pick(fresh, all(0), t); rejected = pick(fresh, all(0), rejected);
                for (int i = 0; i < n; i++) K[0][i] = pick(fresh, k0[i], K[0][i]);
            }
        }
        h = _mm512_min_pd(h, T - t);
        for (int s = 1; s < 12; s++) {
            for (int i = 0; i < n; i++) {
                V q = A[s][0] * K[0][i];
                for (int k = 1; k < s; k++) if (A[s][k] != 0) q += A[s][k] * K[k][i];
                w[i] = u[i] + h * q;
            }
            f(w, K[s]);
        }
        for (int i = 0; i < n; i++) { V q = all(0); for (int s = 0; s < 12; s++) if (B[s] != 0) q += B[s] * K[s][i]; w[i] = u[i] + h * q; }
        f(w, K[12]);
        V e5 = all(0), e3 = all(0);
        for (int i = 0; i < n; i++) {
            V s = atol + rtol * _mm512_max_pd(_mm512_abs_pd(u[i]), _mm512_abs_pd(w[i])), a = all(0), b = all(0);
            for (int k = 0; k < 13; k++) { if (E5[k] != 0) a += E5[k] * K[k][i]; if (E3[k] != 0) b += E3[k] * K[k][i]; }
            a /= s; b /= s; e5 += a * a; e3 += b * b;
        }
        V error = h * e5 / _mm512_sqrt_pd((e5 + 0.01 * e3) * n);
        error = _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(e5, all(0), _CMP_GT_OQ), error);
        V factor = 0.9 / _mm512_sqrt_pd(_mm512_sqrt_pd(_mm512_sqrt_pd(error)));
        __mmask8 good = _mm512_cmp_pd_mask(error, all(1), _CMP_LT_OQ);
        V most = pick(_mm512_cmp_pd_mask(rejected, all(0), _CMP_GT_OQ), all(1), all(10));
        t = pick(good, pick(_mm512_cmp_pd_mask(h, T - t, _CMP_GE_OQ), all(T), t + h), t);
        h = h * pick(good, _mm512_min_pd(most, factor), _mm512_max_pd(all(0.2), factor));
        rejected = pick(good, all(0), all(1));
        for (int i = 0; i < n; i++) { u[i] = pick(good, w[i], u[i]); K[0][i] = pick(good, K[12][i], K[0][i]); }
    }
}
#endif

static Net<10, 20> l3;
static Net<100, 200> l4;

template <class F> static void gradients(const F &f, const double *p, double *d, int64_t count) {
    for (int64_t i = 0; i < count; i++) { f(p + i * F::n, d + i * F::n); for (int j = 0; j < F::n; j++) d[i * F::n + j] *= -1; }
}

extern "C" {
void l3_data(const double *t, const double *y) { l3.data(t, y); }
void l4_data(const double *t, const double *y) { l4.data(t, y); }
void l3_gradients(const double *p, double *d, int64_t count) { gradients(l3, p, d, count); }
void l4_gradients(const double *p, double *d, int64_t count) { gradients(l4, p, d, count); }
int64_t l2_flow(double *y, int64_t count, double T, double rtol, double atol) {
    int64_t calls = 0;
    for (int64_t i = 0; i < count; i++) calls += solve(L2(), y + 2 * i, T, rtol, atol);
    return calls;
}
int64_t l3_flow(double *y, int64_t count, double T, double rtol, double atol) {
    int64_t calls = 0;
    for (int64_t i = 0; i < count; i++) calls += solve(l3, y + 30 * i, T, rtol, atol);
    return calls;
}
int l2_lanes(double *y, int64_t count, double T, double rtol, double atol) {
#ifdef __AVX512F__
    solve8(L2(), y, count, T, rtol, atol);
    return 0;
#else
    return 1;
#endif
}
}
