// L3 and L4: half the mean squared error of sum_j a_j tanh(w_j t + b_j) on N samples; p = (a, w, b).
#pragma once
#include <cmath>
#include <cstring>

template <int M, int N> struct Net {
    static constexpr int n = 3 * M;
    double t[N], y[N];
    void data(const double *inputs, const double *targets) { memcpy(t, inputs, sizeof t); memcpy(y, targets, sizeof y); }
    // d = minus the gradient
    inline void operator()(const double *p, double *d) const {
        const double *a = p, *w = p + M, *b = p + 2 * M;
        for (int j = 0; j < n; j++) d[j] = 0;
        double h[N][M];
        for (int i = 0; i < N; i++) for (int j = 0; j < M; j++) h[i][j] = w[j] * t[i] + b[j];
        for (int k = 0; k < N * M; k++) (&h[0][0])[k] = std::tanh((&h[0][0])[k]);  // one long loop: libmvec's vector tanh
        for (int i = 0; i < N; i++) {
            double r = -y[i];
            for (int j = 0; j < M; j++) r += a[j] * h[i][j];
            for (int j = 0; j < M; j++) {
                double q = r * a[j] * (1 - h[i][j] * h[i][j]);
                d[j] -= r * h[i][j]; d[M + j] -= q * t[i]; d[2 * M + j] -= q;
            }
        }
        for (int j = 0; j < n; j++) d[j] /= N;
    }
};
