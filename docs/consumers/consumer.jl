# T(u) of a portable case, in Julia: julia consumer.jl CASE_DIR mine.npz, then
# refimpl compare CASE_DIR mine.npz
# For the operator "identity", the analysis "convolution", tied, potential quadratic or log_cosh.
# Needs: import Pkg; Pkg.add(["NPZ", "JSON"])
using NPZ, JSON

directory, output = ARGS
case = JSON.parsefile(joinpath(directory, "case.json"))
arrays = npzread(joinpath(directory, "inputs.npz"))
u, y, A = arrays["u"], arrays["y"], arrays["A"]
N, C, H, W = size(u)
F, _, h, w = size(A)
b = get(arrays, "b", zeros(F))
weights = get(arrays, "weights", ones(F))
slope = get(get(case, "potential_parameters", Dict()), "slope", 1)
σ(z) = case["potential"] == "quadratic" ? z : tanh(slope * z)

"The pixel that position i stands for, from 0; nothing outside under the boundary zero."
function pixel(i, n)
    boundary = case["boundary"]
    boundary == "zero" && return 0 <= i < n ? i : nothing
    boundary == "periodic" && return mod(i, n)
    boundary == "symmetric" && return min(mod(i, 2n), 2n - 1 - mod(i, 2n))
    boundary == "replicate" && return clamp(i, 0, n - 1)
    return n > 1 ? min(mod(i, 2n - 2), 2n - 2 - mod(i, 2n - 2)) : 0
end

"Every term z[f, i, j] += A[f, c, k, l] u[c, p, q]."
taps = [
    (f, c, k, l, i, j, p + 1, q + 1)
    for f in 1:F, c in 1:C, k in 1:h, l in 1:w, i in 1:H, j in 1:W
    for p in (pixel(i - 1 + k - (h + 1) ÷ 2, H),), q in (pixel(j - 1 + l - (w + 1) ÷ 2, W),)
    if p !== nothing && q !== nothing
]

map = similar(u)
for n in 1:N
    z = [b[f] for f in 1:F, i in 1:H, j in 1:W]
    for (f, c, k, l, i, j, p, q) in taps
        z[f, i, j] += A[f, c, k, l] * u[n, c, p, q]
    end
    G = case["lam"] * (u[n, :, :, :] - y[n, :, :, :])
    for (f, c, k, l, i, j, p, q) in taps
        G[c, p, q] += case["gamma"] * weights[f] * A[f, c, k, l] * σ(z[f, i, j])
    end
    map[n, :, :, :] = u[n, :, :, :] - case["tau"] * G
end
npzwrite(output, Dict("map" => map))
