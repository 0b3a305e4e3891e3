"""The seven potentials on one row of responses: σ, (σ, σ′) and φ.

`refimpl.paper.potentials` is the definition; the functions here are the same formulas in forms that
LLVM vectorises, because a call of the C library per number would cost more than the filters.
An integer code selects the potential once per row, outside the loop.

The exponential: x = n ln 2 + r with |r| ≤ ln 2 / 2, so e^x = 2^n (1 + p) with the Taylor
polynomial p = r + r²/2! + … + r^13/13! ≈ expm1(r), whose remainder r^14/14! is below 2e-17 |r|.
Adding 1.5·2^52 to x / ln 2 rounds it to n in the low bits of the sum, and 2^n is those bits
moved to the exponent. All functions keep relative accuracy down to the smallest normal numbers,
but for sech² x, which stays at 4e-304 beyond |x| = 350 (in float32 at 7e-35 beyond 40).

Rows of float32 go through the same formulas in float64, except those of log cosh and of the
Lorentzian, which take much of a field's time: tanh has a shorter polynomial of its own with sech²,
alone a continued fraction, and the logarithms have a shorter series.
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
# e^(-2 · 350) and its product with p are far from subnormal numbers, which are slow.
LARGEST = 350.0

# The same for float32, with 12 bits in the first part of ln 2; and 1/2!, …, 1/7!.
LOG2_E_SINGLE, ROUNDER_SINGLE = np.float32(LOG2_E), np.float32(1.5 * 2.0**23)
LN2_SINGLE = np.float32(0.693359375), np.float32(math.log(2) - 0.693359375)
LARGEST_SINGLE = np.float32(40.0)
TAYLOR_SINGLE = tuple(np.float32(1 / math.factorial(n)) for n in range(2, 8))
HALF, ONE, TWO, THREE, FOUR = (np.float32(x) for x in (0.5, 1, 2, 3, 4))
ARTANH_SINGLE = tuple(np.float32(1 / n) for n in (3, 5, 7, 9))

# The bits of √½; from where squares may overflow, and what numbers there are multiplied by.
HALF_ROOT = np.int64(np.float64(math.sqrt(0.5)).view(np.int64))
HALF_ROOT_SINGLE = np.int32(np.float32(math.sqrt(0.5)).view(np.int32))
FAR, SCALE = 2.0**500, 2.0**-520
FAR_SINGLE, SCALE_SINGLE = np.float32(2.0**60), np.float32(2.0**-66)

# Lambert's fraction of tanh y to its seventh term; beyond y = 4.6, tanh 2y is 1 in float32.
LAMBERT_ABOVE = tuple(np.float32(n) for n in (135135, 17325, 378))
LAMBERT_BELOW = tuple(np.float32(n) for n in (135135, 62370, 3150, 28))
LAMBERT_LARGEST = np.float32(4.6)


@formula
def exp_parts(x):
    """(s, p) with e^x = s (1 + p), s a power of two and |p| ≤ 0.42, for -708 ≤ x ≤ 0.

    The polynomial is summed in pairs, whose chains of operations are shorter than Horner's.
    """
    shifted = x * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    r2 = r * r
    r4 = r2 * r2
    low = (1 / 2 + r * (1 / 6)) + r2 * (1 / 24 + r * (1 / 120))
    middle = (1 / 720 + r * (1 / 5040)) + r2 * (1 / 40320 + r * (1 / 362880))
    high = (1 / 3628800 + r * (1 / 39916800)) + r2 * (1 / 479001600 + r * (1 / 6227020800))
    bits = (np.float64(shifted).view(np.int64) + 1023) << 52
    return np.int64(bits).view(np.float64), r + r2 * (low + r4 * (middle + r4 * high))


@formula
def tanh_parts(x):
    """(tanh x, sech² x); with e = e^(-2|x|), tanh|x| = (1 - e) / (1 + e), sech² = 4e / (1 + e)²."""
    s, p = exp_parts(-2.0 * min(abs(x), LARGEST))
    e_minus_1 = s * p + (s - 1.0)
    q = 1.0 / (2.0 + e_minus_1)
    return math.copysign(-e_minus_1 * q, x), 4.0 * (s * p + s) * q * q


@formula
def tanh_parts_single(x):
    """`tanh_parts` of a float32, in float32 throughout."""
    y = -TWO * min(abs(x), LARGEST_SINGLE)
    shifted = y * LOG2_E_SINGLE + ROUNDER_SINGLE
    n = shifted - ROUNDER_SINGLE
    r = (y - n * LN2_SINGLE[0]) - n * LN2_SINGLE[1]
    r2 = r * r
    c2, c3, c4, c5, c6, c7 = TAYLOR_SINGLE
    p = r + r2 * ((c2 + r * c3) + r2 * ((c4 + r * c5) + r2 * (c6 + r * c7)))
    bits = (np.float32(shifted).view(np.int32) + np.int32(127)) << np.int32(23)
    s = np.int32(bits).view(np.float32)
    e_minus_1 = s * p + (s - ONE)
    q = ONE / (TWO + e_minus_1)
    return math.copysign(-e_minus_1 * q, x), FOUR * (s * p + s) * q * q


@formula
def tanh_single(x):
    """Tanh x of a float32 by Lambert's continued fraction and tanh x = 2t / (1 + t²), t = tanh y.

    With y = x/2, y / (1 + y²/(3 + y²/(5 + …))) to the 13 is a/q with

        a = y (135135 + 17325 y² + 378 y⁴ + y⁶),    q = 135135 + 62370 y² + 3150 y⁴ + 28 y⁶,

    and tanh x = 2 a q / (q² + a²) takes one division. It is right to 1e-8 for |y| ≤ 4.6: there a/q
    is off by 5e-5, but tanh x is flat in it. Rounding may take it beyond 1, which σ never is.
    """
    y = max(min(HALF * x, LAMBERT_LARGEST), -LAMBERT_LARGEST)
    r = y * y
    (a0, a1, a2), (q0, q1, q2, q3) = LAMBERT_ABOVE, LAMBERT_BELOW
    a = y * (a0 + r * (a1 + r * (a2 + r)))
    q = q0 + r * (q1 + r * (q2 + r * q3))
    return max(min(TWO * a * q / (q * q + a * a), ONE), -ONE)


@formula
def log_cosh(x, t):
    """log cosh x from x and t = tanh x, by artanh(s) = log((1 + s) / (1 - s)) / 2 with small s.

        -log(1 - t²) / 2 = artanh(s),                       s = t² / (2 - t²),  for |x| ≤ ln 2
        |x| - ln 2 + log(1 + e) = |x| - ln 2 + 2 artanh(s),  s = e / (2 + e)     beyond

    with e = e^(-2|x|) = (1 - |t|) / (1 + |t|), so that the second s is (1 - |t|) / (3 + |t|). In
    both, s ≤ 0.22.
    """
    size, t = abs(x), abs(t)
    small = size <= LN2_HIGH
    a = small_artanh((t * t if small else 1.0 - t) / (2.0 - t * t if small else 3.0 + t))
    return a if small else ((size - LN2_HIGH) - LN2_LOW) + 2.0 * a


@formula
def small_artanh(s):
    """artanh(s) = s + s³/3 + … + s^25/25 for |s| ≤ 0.22, in pairs as in `exp_parts`."""
    s2 = s * s
    s4 = s2 * s2
    s8 = s4 * s4
    low = (1 / 3 + s2 * (1 / 5)) + s4 * (1 / 7 + s2 * (1 / 9))
    middle = (1 / 11 + s2 * (1 / 13)) + s4 * (1 / 15 + s2 * (1 / 17))
    high = (1 / 19 + s2 * (1 / 21)) + s4 * (1 / 23 + s2 * (1 / 25))
    return s + s * s2 * (low + s8 * (middle + s8 * high))


@formula
def small_artanh_single(s):
    """artanh(s) = s + s³/3 + … + s⁹/9 for |s| ≤ 0.22, whose rest is below 3e-8 s."""
    s2 = s * s
    c3, c5, c7, c9 = ARTANH_SINGLE
    return s + s * s2 * (c3 + s2 * (c5 + s2 * (c7 + s2 * c9)))


@formula
def log_cosh_single(x, t):
    """`log_cosh` of a float32."""
    size, t = abs(x), abs(t)
    small = size <= LN2_SINGLE[0]
    a = small_artanh_single((t * t if small else ONE - t) / (TWO - t * t if small else THREE + t))
    return a if small else ((size - LN2_SINGLE[0]) - LN2_SINGLE[1]) + TWO * a


@formula
def lorentzian(z):
    """(σ, σ′) = (2z / (1 + z²), 2 (1 - z²) / (1 + z²)²), by v = 1/z where |z| > 1."""
    outer = abs(z) > 1.0
    v = 1.0 / z if outer else z
    q = 1.0 / (1.0 + v * v)
    w = v if outer else 1.0
    return 2.0 * v * q, 2.0 * ((1.0 - z) * w) * ((1.0 + z) * w) * (w * q) * (w * q)


@formula
def lorentzian_single(z):
    """`lorentzian` of a float32; beyond |z| = 1e19, where z² would overflow, σ is 0 and σ′ -0."""
    t = z * z
    q = ONE / (ONE + t)
    return TWO * z * q, TWO * (q - ONE + q) * q


@formula
def log_one_plus_square(z):
    """log(1 + z²) = e ln 2 + 2 artanh(m / (2 + m)) where 1 + z² = 2^e (1 + m), √½ ≤ 1 + m < √2.

    For e = 0, m is z² itself, so that small z keep their digits. Beyond |z| = 2^500, where z² might
    overflow and 1 is nothing beside it, z is divided by 2^520.
    """
    far = abs(z) > FAR
    z = z * SCALE if far else z
    t = z * z
    bits = np.float64((0.0 if far else 1.0) + t).view(np.int64)
    e = (bits - HALF_ROOT) >> np.int64(52)
    m = np.int64(bits - (e << np.int64(52))).view(np.float64) - 1.0
    m = t if e == 0 and not far else m
    n = np.float64(e) + (1040.0 if far else 0.0)
    phi = n * LN2_HIGH + (n * LN2_LOW + 2.0 * small_artanh(m / (2.0 + m)))
    return phi if t < math.inf else t  # which is infinite or NaN


@formula
def log_one_plus_square_single(z):
    """`log_one_plus_square` of a float32: beyond 2^60, z is divided by 2^66."""
    far = abs(z) > FAR_SINGLE
    z = z * SCALE_SINGLE if far else z
    t = z * z
    bits = np.float32((np.float32(0) if far else ONE) + t).view(np.int32)
    e = np.int32(bits - HALF_ROOT_SINGLE) >> np.int32(23)
    m = np.int32(bits - np.int32(e << np.int32(23))).view(np.float32) - ONE
    m = t if e == 0 and not far else m
    n = np.float32(e) + (np.float32(132) if far else np.float32(0))
    phi = n * LN2_SINGLE[0] + (n * LN2_SINGLE[1] + TWO * small_artanh_single(m / (TWO + m)))
    return phi if t < math.inf else t


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
            z[j] = tanh_single(np.float32(parameter) * np.float32(z[j]))
    elif code == LOG_COSH:
        for j in range(z.size):
            z[j] = tanh_parts(parameter * np.float64(z[j]))[0]
    elif code == LORENTZIAN and z.itemsize == 4:
        for j in range(z.size):
            z[j] = lorentzian_single(np.float32(z[j]))[0]
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
            d[j] = 1.0 if z[j] > 0.0 else 0.0
    elif code == SOFT_SHRINKAGE:
        for j in range(z.size):
            d[j] = 1.0 if abs(z[j]) > parameter else 0.0
    elif code == LOG_COSH and z.itemsize == 4:
        single = np.float32(parameter)
        for j in range(z.size):
            d[j] = single * tanh_parts_single(single * np.float32(z[j]))[1]
    elif code == LOG_COSH:
        for j in range(z.size):
            d[j] = parameter * tanh_parts(parameter * np.float64(z[j]))[1]
    elif code == LORENTZIAN and z.itemsize == 4:
        for j in range(z.size):
            d[j] = lorentzian_single(np.float32(z[j]))[1]
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
    """Replace the row z by φ(z), for all but log cosh, whose φ `measure` makes from tanh."""
    if code == QUADRATIC:
        for j in range(z.size):
            z[j] = 0.5 * z[j] * z[j]
    elif code == HALF_SQUARED_RELU:
        for j in range(z.size):
            z[j] = 0.0 if z[j] <= 0.0 else 0.5 * z[j] * z[j]
    elif code == SOFT_SHRINKAGE:
        for j in range(z.size):
            z[j] = 0.5 * shrink(z[j], parameter) * shrink(z[j], parameter)
    elif code == LORENTZIAN and z.itemsize == 4:
        for j in range(z.size):
            z[j] = log_one_plus_square_single(np.float32(z[j]))
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
    """Replace the row z by σ(z) and write σ′(z) to the row d; for log cosh by one exponential."""
    if code == LOG_COSH and z.itemsize == 4:
        single = np.float32(parameter)
        for j in range(z.size):
            z[j], bent = tanh_parts_single(single * np.float32(z[j]))
            d[j] = single * bent
    elif code == LOG_COSH:
        for j in range(z.size):
            z[j], bent = tanh_parts(parameter * np.float64(z[j]))
            d[j] = parameter * bent
    else:
        slope(z, d, code, parameter)
        activate(z, code, parameter)


@row_function
def measure(z, phi, code, parameter):
    """Replace the row z by σ(z) and write φ(z) to the row phi.

    With both in one loop, log cosh would need more registers than there are.
    """
    if code == LOG_COSH and z.itemsize == 4:
        single = np.float32(parameter)
        for j in range(z.size):
            phi[j] = single * np.float32(z[j])
            z[j] = tanh_single(np.float32(phi[j]))
        for j in range(z.size):
            phi[j] = log_cosh_single(np.float32(phi[j]), np.float32(z[j])) / single
    elif code == LOG_COSH:
        for j in range(z.size):
            phi[j] = parameter * z[j]
            z[j] = tanh_parts(phi[j])[0]
        for j in range(z.size):
            phi[j] = log_cosh(phi[j], z[j]) / parameter
    else:
        phi[:] = z
        potential(phi, code, parameter)
        activate(z, code, parameter)
