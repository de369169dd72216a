// Random numbers of the reference programs: xoshiro256++, alone and eight streams side by side in AVX-512
// registers; normals by the ziggurat (scalar) and by Box-Muller (eight pairs at once).
#pragma once
#include <cmath>
#include <cstdint>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

static inline uint64_t splitmix(uint64_t &s) {
    uint64_t z = (s += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

struct Xoshiro {
    uint64_t s[4];
    explicit Xoshiro(uint64_t seed) { for (auto &v : s) v = splitmix(seed); }
    static uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
    inline uint64_t next() {
        uint64_t r = rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;
        s[2] ^= s[0]; s[3] ^= s[1]; s[1] ^= s[2]; s[0] ^= s[3]; s[2] ^= t; s[3] = rotl(s[3], 45);
        return r;
    }
};

// Ziggurat with 256 layers (Marsaglia, Tsang 2000), 64-bit draws.
struct Ziggurat {
    double x[257], f[257];
    Ziggurat() {
        const double R = 3.6541528853610088, A = 0.00492867323399;
        auto pdf = [](double t) { return std::exp(-0.5 * t * t); };
        x[0] = A / pdf(R); x[1] = R; x[256] = 0;
        for (int i = 2; i < 256; i++) x[i] = std::sqrt(-2 * std::log(A / x[i - 1] + pdf(x[i - 1])));
        for (int i = 0; i <= 256; i++) f[i] = pdf(x[i]);
    }
    inline double operator()(Xoshiro &g) const {
        for (;;) {
            uint64_t r = g.next(); int i = r & 255;
            double u = (double)((int64_t)r >> 10) * 0x1p-53, v = u * x[i];  // u in [-1, 1)
            if (std::fabs(v) < x[i + 1]) return v;
            if (i == 0) {
                double a, b;
                do {
                    a = -std::log1p(-((g.next() >> 11) * 0x1p-53)) / x[1]; b = -std::log1p(-((g.next() >> 11) * 0x1p-53));
                } while (b + b < a * a);
                return v < 0 ? -(x[1] + a) : x[1] + a;
            }
            if (f[i] + ((g.next() >> 11) * 0x1p-53) * (f[i + 1] - f[i]) < std::exp(-0.5 * v * v)) return v;
        }
    }
};

// What a program needs of its numbers: draw two normals; one uniform below n.
struct Scalar {
    typedef double Real;
    static constexpr int lanes = 1;
    Xoshiro g;
    explicit Scalar(uint64_t seed) : g(seed) {}
    static const Ziggurat &table() { static const Ziggurat z; return z; }
    inline void normals(double &a, double &b) { a = table()(g); b = table()(g); }
    inline double below(int n) { return std::floor((g.next() >> 11) * 0x1p-53 * n); }
};
static inline double pick(bool m, double yes, double no) { return m ? yes : no; }
static inline bool equal(double a, double b) { return a == b; }
static inline double entry(const double *table, double i) { return table[(int)i]; }
static inline double tangent(double v) { return std::tanh(v); }
static inline double load(const double *p, double) { return *p; }
static inline void save(double *p, double v) { *p = v; }
static inline double root(double v) { return std::sqrt(v); }

#ifdef __AVX512F__
static inline __m512d S(double v) { return _mm512_set1_pd(v); }
static inline __m512d load(const double *p, __m512d) { return _mm512_loadu_pd(p); }
static inline void save(double *p, __m512d v) { _mm512_storeu_pd(p, v); }
static inline __m512d root(__m512d v) { return _mm512_sqrt_pd(v); }

struct Xoshiro8 {
    __m512i a, b, c, d;
    explicit Xoshiro8(uint64_t seed) {
        alignas(64) uint64_t v[4][8];
        for (auto &r : v) for (auto &x : r) x = splitmix(seed);
        a = _mm512_load_si512(v[0]); b = _mm512_load_si512(v[1]);
        c = _mm512_load_si512(v[2]); d = _mm512_load_si512(v[3]);
    }
    inline __m512i next() {
        __m512i r = _mm512_add_epi64(_mm512_rol_epi64(_mm512_add_epi64(a, d), 23), a), t = _mm512_slli_epi64(b, 17);
        c = _mm512_xor_si512(c, a); d = _mm512_xor_si512(d, b); b = _mm512_xor_si512(b, c); a = _mm512_xor_si512(a, d);
        c = _mm512_xor_si512(c, t); d = _mm512_rol_epi64(d, 45);
        return r;
    }
};

// log(u) for u in (0, 1]: 16 intervals of the mantissa, their constants held in registers; error about 1e-16.
struct LogTable {
    __m512d rc0, rc1, lc0, lc1;
    LogTable() {
        alignas(64) double rc[16], lc[16];
        for (int i = 0; i < 16; i++) {
            double c = 1 + (i + 0.5) / 16; float f = (float)(1 / c);
            rc[i] = f; lc[i] = -std::log((double)f);
        }
        rc0 = _mm512_load_pd(rc); rc1 = _mm512_load_pd(rc + 8); lc0 = _mm512_load_pd(lc); lc1 = _mm512_load_pd(lc + 8);
    }
    __attribute__((always_inline)) inline __m512d operator()(__m512d u) const {
        __m512i idx = _mm512_srli_epi64(_mm512_castpd_si512(u), 48);  // the permutation reads its low 4 bits
        __m512d e = _mm512_getexp_pd(u), m = _mm512_getmant_pd(u, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero);
        __m512d rc = _mm512_permutex2var_pd(rc0, idx, rc1), lc = _mm512_permutex2var_pd(lc0, idx, lc1);
        __m512d r = _mm512_fmsub_pd(m, rc, S(1)), r2 = r * r, r4 = r2 * r2;  // |r| <= 1/32: Taylor to r^10
        __m512d q0 = _mm512_fmadd_pd(r, S(1. / 3), S(-.5)), q1 = _mm512_fmadd_pd(r, S(1. / 5), S(-.25));
        __m512d q2 = _mm512_fmadd_pd(r, S(1. / 7), S(-1. / 6)), q3 = _mm512_fmadd_pd(r, S(1. / 9), S(-1. / 8));
        __m512d p = _mm512_fmadd_pd(_mm512_fmadd_pd(q3, r2, q2), r4, _mm512_fmadd_pd(q1, r2, q0));
        return _mm512_add_pd(_mm512_fmadd_pd(e, S(0.693147180559945309417), lc), _mm512_fmadd_pd(p, r2, r));
    }
};

// sin and cos of a random angle: 52 bits say where in [-pi/4, pi/4], the lowest three which quarter and signs.
__attribute__((always_inline)) static inline void sincos8(__m512i bits, __m512d &sn, __m512d &cs) {
    const __m512i one = _mm512_set1_epi64(0x3ff0000000000000), sign = _mm512_set1_epi64(0x8000000000000000);
    __m512d t = _mm512_castsi512_pd(_mm512_or_si512(_mm512_srli_epi64(bits, 12), one)) - S(1.5), z = t * t, z2 = z * z;
    const double h = 1.57079632679489661923, h2 = h * h, h3 = h2 * h, h4 = h2 * h2, h5 = h3 * h2, h6 = h4 * h2,
                 h7 = h5 * h2, h8 = h6 * h2, h9 = h7 * h2, h10 = h8 * h2, h11 = h9 * h2, h12 = h10 * h2, h13 = h11 * h2,
                 h14 = h12 * h2, h15 = h13 * h2;
    __m512d a0 = _mm512_fmadd_pd(z, S(-h3 / 6), S(h)), a1 = _mm512_fmadd_pd(z, S(-h7 / 5040), S(h5 / 120));
    __m512d a2 = _mm512_fmadd_pd(z, S(-h11 / 39916800.), S(h9 / 362880));
    __m512d a3 = _mm512_fmadd_pd(z, S(-h15 / 1307674368000.), S(h13 / 6227020800.));
    __m512d s = t * _mm512_fmadd_pd(_mm512_fmadd_pd(a3, z2, a2), z2 * z2, _mm512_fmadd_pd(a1, z2, a0));
    __m512d b0 = _mm512_fmadd_pd(z, S(-h2 / 2), S(1)), b1 = _mm512_fmadd_pd(z, S(-h6 / 720), S(h4 / 24));
    __m512d b2 = _mm512_fmadd_pd(z, S(-h10 / 3628800.), S(h8 / 40320));
    __m512d b3 = _mm512_fmadd_pd(z, S(-h14 / 87178291200.), S(h12 / 479001600.));
    __m512d c = _mm512_fmadd_pd(_mm512_fmadd_pd(b3, z2, b2), z2 * z2, _mm512_fmadd_pd(b1, z2, b0));
    __mmask8 swap = _mm512_test_epi64_mask(bits, _mm512_set1_epi64(1));
    __m512i sg = _mm512_and_si512(_mm512_slli_epi64(bits, 62), sign), sg2 = _mm512_and_si512(_mm512_slli_epi64(bits, 61), sign);
    sn = _mm512_castsi512_pd(_mm512_xor_si512(_mm512_castpd_si512(_mm512_mask_blend_pd(swap, s, c)), sg));
    cs = _mm512_castsi512_pd(_mm512_xor_si512(_mm512_castpd_si512(_mm512_mask_blend_pd(swap, c, s)), sg2));
}

struct Lanes {
    typedef __m512d Real;
    static constexpr int lanes = 8;
    Xoshiro8 g;
    LogTable log;
    explicit Lanes(uint64_t seed) : g(seed) {}
    __attribute__((always_inline)) inline void normals(__m512d &a, __m512d &b) {
        __m512i u = g.next(), v = g.next();
        __m512d f = _mm512_castsi512_pd(_mm512_or_si512(_mm512_srli_epi64(u, 12), _mm512_set1_epi64(0x3ff0000000000000)));
        __m512d q = S(-2.0) * log(S(2.0) - f);  // the argument lies in (0, 1]
        __m512d r = _mm512_sqrt_pd(q);
        r = _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(r, r, _CMP_ORD_Q), r);
        __m512d s, c;
        sincos8(v, s, c);
        a = r * s; b = r * c;
    }
    inline __m512d below(int n) {  // a whole number in [0, n), as a double
        __m512i u = _mm512_srli_epi64(g.next(), 12);
        __m512d f = _mm512_castsi512_pd(_mm512_or_si512(u, _mm512_set1_epi64(0x3ff0000000000000))) - S(1);
        return _mm512_roundscale_pd(f * S(n), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    }
};
static inline __m512d pick(__mmask8 m, __m512d yes, __m512d no) { return _mm512_mask_blend_pd(m, no, yes); }
static inline __mmask8 equal(__m512d a, __m512d b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
static inline __m512d entry(const double *table, __m512d i) { return _mm512_i32gather_pd(_mm512_cvttpd_epi32(i), table, 8); }

// tanh(x) = m/(m + 2) with m = exp(2x) - 1, which is small where x is: relative error about 2e-16.
static inline __m512d tangent(__m512d x) {
    __m512d v = _mm512_max_pd(_mm512_min_pd(x + x, S(40)), S(-40));
    __m512d k = _mm512_roundscale_pd(v * S(1.4426950408889634), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512d r = _mm512_fnmadd_pd(k, S(0.693147180369123816490), v);
    r = _mm512_fnmadd_pd(k, S(1.90821492927058770002e-10), r);
    __m512d r2 = r * r, r4 = r2 * r2;  // exp(r) - 1 for |r| <= 0.35: Taylor to r^13
    __m512d p0 = _mm512_fmadd_pd(r, S(1. / 6), S(1. / 2)), p1 = _mm512_fmadd_pd(r, S(1. / 120), S(1. / 24));
    __m512d p2 = _mm512_fmadd_pd(r, S(1. / 5040), S(1. / 720)), p3 = _mm512_fmadd_pd(r, S(1. / 362880), S(1. / 40320));
    __m512d p4 = _mm512_fmadd_pd(r, S(1. / 39916800), S(1. / 3628800)), p5 = _mm512_fmadd_pd(r, S(1. / 6227020800.), S(1. / 479001600));
    __m512d low = _mm512_fmadd_pd(p1, r2, p0), mid = _mm512_fmadd_pd(p3, r2, p2), high = _mm512_fmadd_pd(p5, r2, p4);
    __m512d p = _mm512_fmadd_pd(_mm512_fmadd_pd(high, r4, mid), r4, low);
    __m512d m = _mm512_fmadd_pd(p, r2, r), scale = _mm512_scalef_pd(S(1), k);
    m = _mm512_fmadd_pd(scale, m, scale - S(1));
    return m / (m + S(2));
}
#endif
