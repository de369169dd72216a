// W1: one path of GD and of Adam on L1 = (1 + x^2) y^2 / 2.
#include <cmath>
#include <cstdint>

extern "C" {
// As one would write it.
void gd(double *p, int64_t n, double lr) {
    double x = p[0], y = p[1];
    for (int64_t k = 0; k < n; k++) {
        double gx = x * y * y, gy = (1 + x * x) * y;
        x -= lr * gx; y -= lr * gy;
    }
    p[0] = x; p[1] = y;
}

// The shortest chain of dependent operations: one product and one fused multiply-add a step.
void gd_chain(double *p, int64_t n, double lr) {
    double x = p[0], y = p[1], c = 1 - lr;
    #pragma GCC unroll 4
    for (int64_t k = 0; k < n; k++) {
        double ex = lr * x, ey = lr * y, yy = y * y, xx = x * x, cy = c * y;
        x = std::fma(-ex, yy, x); y = std::fma(-ey, xx, cy);
    }
    p[0] = x; p[1] = y;
}

void adam(double *p, int64_t n, double lr, double b1, double b2, double eps) {
    double x = p[0], y = p[1], mx = 0, my = 0, vx = 0, vy = 0, p1 = 1, p2 = 1;
    for (int64_t k = 0; k < n; k++) {
        double gx = x * y * y, gy = (1 + x * x) * y;
        p1 *= b1; p2 *= b2;
        mx = b1 * mx + (1 - b1) * gx; my = b1 * my + (1 - b1) * gy;
        vx = b2 * vx + (1 - b2) * gx * gx; vy = b2 * vy + (1 - b2) * gy * gy;
        double c1 = 1 - p1, c2 = 1 - p2;
        x -= lr * (mx / c1) / (std::sqrt(vx / c2) + eps);
        y -= lr * (my / c1) / (std::sqrt(vy / c2) + eps);
    }
    p[0] = x; p[1] = y;
}

// The same with the bias corrections off the critical path.
void adam_chain(double *p, int64_t n, double lr, double b1, double b2, double eps) {
    double x = p[0], y = p[1], mx = 0, my = 0, vx = 0, vy = 0, p1 = 1, p2 = 1;
    const double d1 = 1 - b1, d2 = 1 - b2;
    for (int64_t k = 0; k < n; k++) {
        p1 *= b1; p2 *= b2;
        double s = lr / (1 - p1), r2 = 1 / (1 - p2);
        double gx = x * (y * y), gy = std::fma(x * x, y, y);
        mx = std::fma(d1, gx, b1 * mx); my = std::fma(d1, gy, b1 * my);
        vx = std::fma(d2 * gx, gx, b2 * vx); vy = std::fma(d2 * gy, gy, b2 * vy);
        x -= (s * mx) / (std::sqrt(vx * r2) + eps);
        y -= (s * my) / (std::sqrt(vy * r2) + eps);
    }
    p[0] = x; p[1] = y;
}
}
