"""The seven potentials on one row of responses: σ, (σ, σ′) and φ.

`refimpl.potentials` is the definition; the functions here are the same formulas in forms that
LLVM vectorises, because a call of the C library per number would cost more than the filters.
An integer code selects the potential once per row, outside the loop.

The exponential: x = n ln 2 + r with |r| ≤ ln 2 / 2, so e^x = 2^n (1 + p) with the Taylor
polynomial p = r + r²/2! + … + r^13/13! ≈ expm1(r), whose remainder r^14/14! is below 2e-17 |r|.
Adding 1.5·2^52 to x / ln 2 rounds it to n in the low bits of the sum, and 2^n is those bits
moved to the exponent. All functions keep relative accuracy down to the smallest numbers, but for
sech² x, which stays at 1e-307 beyond |x| = 354 (in float32 at 2e-37 beyond 43).

Rows of float32 go through the same formulas in float64, except that tanh, which takes half the time
of a field, has a shorter polynomial of its own.
"""

import math

import numpy as np

from refimpl.kernels.jit import formula, row_function

(
    QUADRATIC,
    HALF_SQUARED_RELU,
    SOFT_SHRINKAGE,
    LOG_COSH,
    LORENTZIAN,
    SMOOTHED_L1,
    HUBER,
) = range(7)

LOG2_E = 1 / math.log(2)
# ln 2 in two parts; the first has 32 bits, so that n times it is exact.
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
ROUNDER = 1.5 * 2.0**52
LARGEST = 354.0  # e^(-2 · 354) is the last power that 2^n with a normal exponent can scale

# The same for float32, with 12 bits in the first part of ln 2; and 1/2!, …, 1/7!.
LOG2_E_SINGLE, ROUNDER_SINGLE = np.float32(LOG2_E), np.float32(1.5 * 2.0**23)
LN2_SINGLE = np.float32(0.693359375), np.float32(math.log(2) - 0.693359375)
LARGEST_SINGLE = np.float32(43.0)
TAYLOR_SINGLE = tuple(np.float32(1 / math.factorial(n)) for n in range(2, 8))
ONE, TWO, FOUR = np.float32(1), np.float32(2), np.float32(4)


@formula
def exp_parts(x):
    """(s, p) with e^x = s (1 + p), s a power of two and |p| ≤ 0.42, for -708 ≤ x ≤ 0."""
    shifted = x * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = 1 / 479001600 + r * (1 / 6227020800)
    p = 1 / 3628800 + r * (1 / 39916800 + r * p)
    p = 1 / 40320 + r * (1 / 362880 + r * p)
    p = 1 / 720 + r * (1 / 5040 + r * p)
    p = 1 / 24 + r * (1 / 120 + r * p)
    p = 1 / 2 + r * (1 / 6 + r * p)
    bits = (np.float64(shifted).view(np.int64) + 1023) << 52
    return np.int64(bits).view(np.float64), r + r * r * p


@formula
def tanh_parts(x):
    """(tanh x, sech² x); with e = e^(-2|x|), tanh|x| = (1 - e) / (1 + e), sech² = 4e / (1 + e)²."""
    size = abs(x)
    s, p = exp_parts(-2.0 * min(size, LARGEST))
    e = s * p + s
    e_minus_1 = s * p + (s - 1.0)
    q = 1.0 / (2.0 + e_minus_1)
    return math.copysign(-e_minus_1 * q, x), 4.0 * e * q * q


@formula
def tanh_parts_single(x):
    """`tanh_parts` of a float32, in float32 throughout."""
    y = -TWO * min(abs(x), LARGEST_SINGLE)
    shifted = y * LOG2_E_SINGLE + ROUNDER_SINGLE
    n = shifted - ROUNDER_SINGLE
    r = (y - n * LN2_SINGLE[0]) - n * LN2_SINGLE[1]
    c2, c3, c4, c5, c6, c7 = TAYLOR_SINGLE
    p = r + r * r * (c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * c7)))))
    bits = (np.float32(shifted).view(np.int32) + np.int32(127)) << np.int32(23)
    s = np.int32(bits).view(np.float32)
    e_minus_1 = s * p + (s - ONE)
    q = ONE / (TWO + e_minus_1)
    return math.copysign(-e_minus_1 * q, x), FOUR * (s * p + s) * q * q


@formula
def log_cosh(x):
    """log cosh x by artanh(s) = log((1 + s) / (1 - s)) / 2 with small s.

    With t = tanh x and e = e^(-2|x|): log cosh x = -log(1 - t²) / 2 = artanh(t² / (2 - t²)) for
    |x| ≤ ln 2, and |x| - ln 2 + log(1 + e) = |x| - ln 2 + 2 artanh(e / (2 + e)) beyond. Written
    in m = e - 1, where t = -m / (2 + m), both need one division, and s ≤ 0.22.
    """
    size = abs(x)
    scale, p = exp_parts(-2.0 * min(size, LARGEST))
    m = scale * p + (scale - 1.0)
    small = size <= LN2_HIGH
    numerator = m * m if small else 1.0 + m
    denominator = 2.0 * (2.0 + m) * (2.0 + m) - m * m if small else 3.0 + m
    a = small_artanh(numerator / denominator)
    return a if small else (size - LN2_HIGH) - LN2_LOW + 2.0 * a


@formula
def small_artanh(s):
    """artanh(s) = s + s³/3 + … + s^25/25 for |s| ≤ 0.22."""
    s2 = s * s
    a = 1 / 23 + s2 * (1 / 25)
    a = 1 / 19 + s2 * (1 / 21 + s2 * a)
    a = 1 / 15 + s2 * (1 / 17 + s2 * a)
    a = 1 / 11 + s2 * (1 / 13 + s2 * a)
    a = 1 / 7 + s2 * (1 / 9 + s2 * a)
    return s + s * s2 * (1 / 3 + s2 * (1 / 5 + s2 * a))


@formula
def lorentzian(z):
    """(σ, σ′) = (2z / (1 + z²), 2 (1 - z²) / (1 + z²)²), by v = 1/z where |z| > 1."""
    outer = abs(z) > 1.0
    v = 1.0 / z if outer else z
    q = 1.0 / (1.0 + v * v)
    w = v if outer else 1.0
    return 2.0 * v * q, 2.0 * ((1.0 - z) * w) * ((1.0 + z) * w) * (w * q) * (w * q)


@formula
def log_one_plus_square(z):
    """log(1 + z²) = 2 log|z| + log(1 + 1/z²), the second form where |z| > 1."""
    size = abs(z)
    if size > 1.0:
        return 2.0 * math.log(size) + math.log1p(1.0 / size / size)
    return math.log1p(z * z)


@formula
def scaled_hypot(z, nu):
    """√(z² + ν²) = m √((z/m)² + (ν/m)²) with m the larger of |z| and ν."""
    size = abs(z)
    m = max(size, nu)
    return m * math.sqrt((z / m) * (z / m) + (nu / m) * (nu / m))


@formula
def shrink(z, threshold):
    """Sign(z) max(|z| - threshold, 0)."""
    return 0.0 if abs(z) <= threshold else z - math.copysign(threshold, z)


@row_function
def activate(z, code, parameter):
    """Replace the row z by σ(z)."""
    if code == HALF_SQUARED_RELU:
        for j in range(z.size):
            z[j] = max(z[j], 0.0)
    elif code == SOFT_SHRINKAGE:
        for j in range(z.size):
            z[j] = shrink(z[j], parameter)
    elif code == LOG_COSH and z.itemsize == 4:
        for j in range(z.size):
            z[j] = tanh_parts_single(np.float32(parameter) * np.float32(z[j]))[0]
    elif code == LOG_COSH:
        for j in range(z.size):
            z[j] = tanh_parts(parameter * np.float64(z[j]))[0]
    elif code == LORENTZIAN:
        for j in range(z.size):
            z[j] = lorentzian(np.float64(z[j]))[0]
    elif code == SMOOTHED_L1:
        for j in range(z.size):
            z[j] = z[j] / scaled_hypot(np.float64(z[j]), parameter)
    elif code == HUBER:
        for j in range(z.size):
            z[j] = max(min(z[j] / parameter, 1.0), -1.0)


@row_function
def slope(z, d, code, parameter):
    """Write σ′(z) to the row d."""
    if code == QUADRATIC:
        for j in range(z.size):
            d[j] = 1.0
    elif code == HALF_SQUARED_RELU:
        for j in range(z.size):
            d[j] = 0.0 if z[j] <= 0.0 else 1.0
    elif code == SOFT_SHRINKAGE:
        for j in range(z.size):
            d[j] = 0.0 if abs(z[j]) <= parameter else 1.0
    elif code == LOG_COSH and z.itemsize == 4:
        single = np.float32(parameter)
        for j in range(z.size):
            d[j] = single * tanh_parts_single(single * np.float32(z[j]))[1]
    elif code == LOG_COSH:
        for j in range(z.size):
            d[j] = parameter * tanh_parts(parameter * np.float64(z[j]))[1]
    elif code == LORENTZIAN:
        for j in range(z.size):
            d[j] = lorentzian(np.float64(z[j]))[1]
    elif code == SMOOTHED_L1:
        for j in range(z.size):
            h = scaled_hypot(np.float64(z[j]), parameter)
            d[j] = (parameter / h) * (parameter / h) / h
    elif code == HUBER:
        for j in range(z.size):
            d[j] = 1.0 / parameter if abs(z[j]) < parameter else 0.0


@row_function
def potential(z, code, parameter):
    """Replace the row z by φ(z)."""
    if code == QUADRATIC:
        for j in range(z.size):
            z[j] = 0.5 * z[j] * z[j]
    elif code == HALF_SQUARED_RELU:
        for j in range(z.size):
            z[j] = 0.0 if z[j] <= 0.0 else 0.5 * z[j] * z[j]
    elif code == SOFT_SHRINKAGE:
        for j in range(z.size):
            z[j] = 0.5 * shrink(z[j], parameter) * shrink(z[j], parameter)
    elif code == LOG_COSH:
        for j in range(z.size):
            z[j] = log_cosh(parameter * np.float64(z[j])) / parameter
    elif code == LORENTZIAN:
        for j in range(z.size):
            z[j] = log_one_plus_square(np.float64(z[j]))
    elif code == SMOOTHED_L1:
        for j in range(z.size):
            z[j] = scaled_hypot(np.float64(z[j]), parameter)
    elif code == HUBER:
        for j in range(z.size):
            inner = 0.5 * z[j] * (z[j] / parameter)
            z[j] = inner if abs(z[j]) <= parameter else abs(z[j]) - 0.5 * parameter


@row_function
def bend(z, d, code, parameter):
    """Replace the row z by σ(z) and write σ′(z) to the row d.

    One exponential serves both in float64; in float32 two short loops take less time.
    """
    if code == LOG_COSH and z.itemsize == 8:
        for j in range(z.size):
            z[j], bent = tanh_parts(parameter * np.float64(z[j]))
            d[j] = parameter * bent
    else:
        slope(z, d, code, parameter)
        activate(z, code, parameter)


@row_function
def measure(z, phi, code, parameter):
    """Replace the row z by σ(z) and write φ(z) to the row phi."""
    if code == LOG_COSH and z.itemsize == 8:
        for j in range(z.size):  # one exponential serves both
            x = parameter * np.float64(z[j])
            phi[j] = log_cosh(x) / parameter
            z[j] = tanh_parts(x)[0]
    else:
        phi[:] = z
        potential(phi, code, parameter)
        activate(z, code, parameter)
