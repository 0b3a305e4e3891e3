// A consumer of refimpl-case/1 in standard C++17; follows docs/case-format.md.
//
//     consumer CASE_DIR...     computes every output and compares it with outputs.npz
//
// Prints one line per output; exits with 1 if one differs by more than 1e-10, with 2 if a file
// cannot be used. npz.hpp reads the files, operators.hpp holds operators and potentials.
#include <cstdio>

#include "npz.hpp"
#include "operators.hpp"
using Outputs = std::map<string, Vec>;
const double TOLERANCE = 1e-10;

struct Problem {  // the equations for one image; b and w are repeated for each response
    Bilinear K, B;
    Vec k, A, C, b, w;
    double tau, lam, gamma, t;
    string name;
    bool tied;
    struct Values { Vec phi, sigma, slope; };
    Values values(const Vec& u) const {
        Vec z = B.apply(A, u) + b;
        Values v{z, z, z};
        for (size_t r = 0; r < z.size(); ++r)
            potential(name, t, z[r], v.phi[r], v.sigma[r], v.slope[r]);
        return v;
    }
    double energy(const Vec& u, const Vec& y) const {  // E2
        Vec r = K.apply(k, u) - y;
        return lam / 2 * (r * r).sum() + gamma * (w * values(u).phi).sum();
    }
    Vec direction(const Vec& u, const Vec& y) const {  // λ Kᵀ(Ku − y) + F(u), E3
        return lam * K.adjoint(k, K.apply(k, u) - y) + gamma * B.adjoint(C, w * values(u).sigma);
    }
    Vec step(const Vec& u, const Vec& y) const { return u - tau * direction(u, y); }  // E8
    Vec tangent(const Vec& u, const Vec& x, const Vec& in, const Vec& out) const {  // E4, E5
        Vec field = B.adjoint(out, w * values(u).slope * B.apply(in, x));
        return x - tau * (lam * K.adjoint(k, K.apply(k, x)) + gamma * field);
    }
    void parameters(const Vec& u, const Vec& q, const string& of, Outputs& g) const {  // E6
        Values v = values(u);
        Vec cq = -tau * gamma * B.apply(C, q), d = w * v.slope * cq, of_w = v.sigma * cq;
        g[of + "_A"] += B.coefficients(u, d);
        g[of + (tied ? "_A" : "_C")] += -tau * gamma * B.coefficients(q, w * v.sigma);  // E7
        int each = B.rows / g[of + "_b"].size();
        for (int r = 0; r < B.rows; ++r) g[of + "_b"][r / each] += d[r];
        for (int r = 0; r < B.rows; ++r) g[of + "_weights"][r / each] += of_w[r];
    }
};
Vec repeated(const Arrays& in, const string& name, double otherwise, int F, int rows) {
    Vec x(otherwise, rows);
    for (int r = 0; in.count(name) && r < rows; ++r) x[r] = in.at(name).x[r / (rows / F)];
    return x;
}
Problem problem(const string& json, const Arrays& in) {
    auto s = in.at("u").shape, f = in.at("A").shape;
    int C = s[1], H = s[2], W = s[3], n = C * H * W;
    Problem P;
    for (auto [key, x] : {std::pair{"tau", &P.tau}, {"lam", &P.lam}, {"gamma", &P.gamma}})
        *x = std::stod(setting(json, key));
    P.name = setting(json, "potential"), P.tied = setting(json, "tied") == "true";
    P.t = P.name == "soft_shrinkage" || P.name == "smoothed_l1" ? 0.1 : 1;
    for (string key : {"threshold", "slope", "nu", "delta"})
        if (string given = setting(json, key); !given.empty()) P.t = std::stod(given);
    string kind = setting(json, "operator"), boundary = setting(json, "operator_boundary");
    string array = kind == "convolution" ? "kernel" : kind;
    P.k = in.count(array) ? in.at(array).x : Vec(1., 1);
    if (kind == "convolution") {
        auto k = in.at("kernel").shape;
        P.K = window(C, C, k[0], k[1], H, W, boundary, -1);
    } else
        P.K = kind == "matrix" ? dense(P.k.size() / n, n) : diagonal(n, P.k.size());
    P.B = f.size() == 2 ? dense(f[0], n)
                        : window(f[0], C, f[2], f[3], H, W, setting(json, "boundary"), 1);
    P.A = in.at("A").x, P.C = in.at(P.tied ? "A" : "C").x;
    P.b = repeated(in, "b", 0, f[0], P.B.rows), P.w = repeated(in, "weights", 1, f[0], P.B.rows);
    return P;
}
Vec image(const Vec& x, int i, int N) { return x[std::slice(i * (x.size() / N), x.size() / N, 1)]; }
Outputs outputs(const string& json, const Arrays& in) {
    Problem P = problem(json, in);
    int N = in.at("u").shape[0], F = in.at("A").shape[0], n = P.B.columns;
    string norm = setting(json, "norm");
    Vec given[] = {P.A, P.C};
    Spectrum of[2];
    if (!norm.empty()) {
        of[0] = spectrum(P.B, P.A), of[1] = spectrum(P.B, P.C);
        P.A *= std::stod(norm) / of[0].norm, P.C *= std::stod(norm) / of[1].norm;
    }
    Outputs out{{"loss", Vec(1)}};
    for (string name : {"vjp", "hypergradient"}) {
        out[name + "_b"] = out[name + "_weights"] = Vec(F);
        out[name + "_A"].resize(P.B.count);
        if (!P.tied) out[name + "_C"].resize(P.B.count);
    }
    for (int i = 0; i < N; ++i) {
        auto part = [&](string name) { return image(in.at(name).x, i, N); };
        auto keep = [&](string name, const Vec& x) {
            if (!out.count(name)) out[name].resize(N * x.size());
            out[name][std::slice(i * x.size(), x.size(), 1)] = x;
        };
        Vec u = part("u"), v = part("v"), w = part("w"), y = part("y");
        keep("map", P.step(u, y));
        keep("jvp", P.tangent(u, v, P.A, P.C));
        keep("vjp", P.tangent(u, w, P.C, P.A));
        P.parameters(u, w, "vjp", out);
        if (P.tied) {
            keep("energy", Vec(P.energy(u, y), 1));
            keep("gradient", P.direction(u, y));
            keep("hvp", (v - P.tangent(u, v, P.A, P.C)) / P.tau);
        }
        Vec star = P.K.adjoint(P.k, y), q(n);
        for (int k = 0; k < ITERATIONS; ++k) star = P.step(star, y);
        Vec error = star - part("target"), slope = 2. / (N * n) * error;
        for (int k = 0; k < ITERATIONS; ++k) q = slope + P.tangent(star, q, P.C, P.A);  // E9
        keep("fixed_point", star);
        out["loss"][0] += (error * error).sum() / (N * n);  // E11
        P.parameters(star, q, "hypergradient", out);        // E10
    }
    for (string name : {"vjp_A", "vjp_C", "hypergradient_A", "hypergradient_C"}) {
        if (norm.empty() || !out.count(name)) continue;  // back through A = norm Â / ‖Â‖
        bool C = name.back() == 'C';
        auto& [value, left, right] = of[C];
        Vec g = out[name], along = P.B.coefficients(right, left);
        out[name] = std::stod(norm) / value * (g - (g * given[C]).sum() / value * along);
    }
    return out;
}
double distance(const Vec& x, const Vec& expected) {  // ‖x − expected‖ / ‖expected‖
    if (x.size() != expected.size()) return INFINITY;
    Vec difference = x - expected;
    return std::sqrt((difference * difference).sum() / (expected * expected).sum());
}
int main(int count, char** folders) try {
    bool agree = count > 1;
    for (int i = 1; i < count; ++i) {
        string folder = folders[i];
        Outputs given = outputs(slurp(folder + "/case.json"), npz(folder + "/inputs.npz"));
        for (auto& [name, expected] : npz(folder + "/outputs.npz")) {
            double error = distance(given[name], expected.x);
            bool good = error <= TOLERANCE;
            agree = agree && good;
            std::printf("%s %s %.1e %s\n", folder.c_str(), name.c_str(), error,
                        good ? "agrees" : "DIFFERS");
        }
    }
    return agree ? 0 : 1;
} catch (const std::exception& error) {
    std::fprintf(stderr, "consumer: %s\n", error.what());
    return 2;
}
