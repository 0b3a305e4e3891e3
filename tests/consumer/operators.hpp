// Linear operators as lists of terms, z[row] += coefficient[k] u[column], and the potentials.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <valarray>
#include <vector>
using std::string;
using Vec = std::valarray<double>;  // with elementwise arithmetic
const int ITERATIONS = 1500;

struct Bilinear {
    int rows, columns, count;
    std::vector<std::array<int, 3>> terms;  // row, column, k
    Vec apply(const Vec& a, const Vec& u) const {
        Vec z(rows);
        for (auto [r, c, k] : terms) z[r] += a[k] * u[c];
        return z;
    }
    Vec adjoint(const Vec& a, const Vec& z) const {
        Vec u(columns);
        for (auto [r, c, k] : terms) u[c] += a[k] * z[r];
        return u;
    }
    Vec coefficients(const Vec& u, const Vec& z) const {  // B* of E6
        Vec a(count);
        for (auto [r, c, k] : terms) a[k] += z[r] * u[c];
        return a;
    }
};
inline int mod(int i, int n) { return (i % n + n) % n; }
inline int source(int i, int n, const string& boundary) {  // the pixel that position i copies, −1: zero
    int even = mod(i, 2 * n), period = std::max(2 * n - 2, 1), odd = mod(i, period);
    if (boundary == "periodic") return mod(i, n);
    if (boundary == "replicate") return std::clamp(i, 0, n - 1);
    if (boundary == "symmetric") return std::min(even, 2 * n - 1 - even);
    if (boundary == "reflect") return std::min(odd, period - odd);
    return 0 <= i && i < n ? i : -1;
}
// Filters (F, C, h, w), correlated; or, with sign −1, one kernel (h, w), convolved per channel.
inline Bilinear window(int F, int C, int h, int w, int H, int W, const string& boundary, int sign) {
    Bilinear B{F * H * W, C * H * W, sign > 0 ? F * C * h * w : h * w, {}};
    for (int f = 0; f < F; ++f) for (int i = 0; i < H; ++i) for (int j = 0; j < W; ++j)
    for (int c = 0; c < C; ++c) for (int a = 0; a < h; ++a) for (int b = 0; b < w; ++b) {
        int p = source(i + sign * (a - h / 2), H, boundary);
        int q = source(j + sign * (b - w / 2), W, boundary);
        if (p < 0 || q < 0 || (sign < 0 && c != f)) continue;
        int k = ((sign > 0 ? f * C + c : 0) * h + a) * w + b;
        B.terms.push_back({(f * H + i) * W + j, (c * H + p) * W + q, k});
    }
    return B;
}
inline Bilinear dense(int rows, int n) {
    Bilinear B{rows, n, rows * n, {}};
    for (int k = 0; k < rows * n; ++k) B.terms.push_back({k / n, k % n, k});
    return B;
}
inline Bilinear diagonal(int n, int count) {
    Bilinear B{n, n, count, {}};
    for (int r = 0; r < n; ++r) B.terms.push_back({r, r, r % count});
    return B;
}
inline void potential(const string& name, double t, double z, double& phi, double& sigma, double& slope) {
    double a = std::fabs(z), sign = z < 0 ? -1 : 1;
    auto is = [&](double x, double y, double d) { phi = x, sigma = y, slope = d; };
    if (name == "quadratic") is(z * z / 2, z, 1);
    if (name == "half_squared_relu") z > 0 ? is(z * z / 2, z, 1) : is(0, 0, 0);
    if (name == "soft_shrinkage") a > t ? is((a - t) * (a - t) / 2, z - sign * t, 1) : is(0, 0, 0);
    if (name == "log_cosh") {
        double s = std::tanh(t * z), log_2cosh = t * a + std::log1p(std::exp(-2 * t * a));
        is((log_2cosh - std::log(2)) / t, s, t * (1 - s * s));
    }
    if (name == "lorentzian") {
        double n = 1 + z * z;
        is(std::log1p(z * z), 2 * z / n, 2 * (1 - z * z) / (n * n));
    }
    if (name == "smoothed_l1") {
        double r = std::hypot(z, t);
        is(r, z / r, t * t / (r * r * r));
    }
    if (name == "huber") a <= t ? is(z * z / (2 * t), z / t, 1 / t) : is(a - t / 2, sign, 0);
}
struct Spectrum { double norm; Vec left, right; };
inline Spectrum spectrum(const Bilinear& B, const Vec& a) {  // power iteration with AᵀA
    Spectrum s{0, Vec(B.rows), Vec(B.columns)};
    for (int i = 0; i < B.columns; ++i) s.right[i] = std::cos(i + 1);
    for (int n = 0; n < ITERATIONS; ++n) {
        s.right /= std::sqrt((s.right * s.right).sum());
        s.left = B.apply(a, s.right);
        s.norm = std::sqrt((s.left * s.left).sum());
        s.left /= s.norm;
        if (n + 1 < ITERATIONS) s.right = B.adjoint(a, s.left);
    }
    return s;
}
