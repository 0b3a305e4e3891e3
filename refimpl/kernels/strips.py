"""What is done with one strip: respond, blank, spread; and loops over rows: copy, add, sum.

Responses of a strip are rows of a matrix S (F, length), where row i of the image begins at
lead + i Wp (see `refimpl.kernels.taps`).
"""

from refimpl.kernels.blocks import combine
from refimpl.kernels.jit import reduction, row_function


@row_function
def respond(T, shifts, x, b, S, lead, rows, Wp):
    """S[k] = b[k] + Σ_t T[k, t] x[s_t + ·], on `rows` rows of Wp columns but the last lead ones."""
    size = rows * Wp - lead
    for k in range(S.shape[0]):
        S[k, lead : lead + size] = b[k]
    combine(T, shifts, x, S, lead, size)


@row_function
def blank(S, lead, rows, Wp):
    """Set to zero what is no response: the lead, the last columns of every row, and the rest."""
    for k in range(S.shape[0]):
        for i in range(rows + 1):
            S[k, i * Wp : i * Wp + lead] = 0
        S[k, lead + rows * Wp :] = 0


@row_function
def spread(T, shifts, S, part, i, rows, Wp, begin, end, out):
    """Add Cᵀ S to rows begin to end of channels `out` (C, Hp Wp), the strip beginning at row i."""
    size, h = rows * Wp, part.shape[0] // out.shape[0]
    part[:, :size] = 0
    combine(T, shifts, S.reshape(-1), part, 0, size)
    for r in range(part.shape[0]):
        add_rows(part[r], i + r % h, rows, Wp, begin, end, out[r // h])


@row_function
def add_rows(part, i, rows, Wp, begin, end, out):
    """Add `rows` rows to rows i, i + 1, … of `out`, as far as these are in begin to end."""
    low, high = max(i, begin), min(i + rows, end)
    if low < high:
        add(part[(low - i) * Wp : (high - i) * Wp], out[low * Wp : high * Wp])


@row_function
def copy(values, out):
    """out[j] = values[j] for j < values.size.

    An assignment of slices would be compiled to one number at a time.
    """
    for j in range(values.size):
        out[j] = values[j]


@row_function
def add(values, total):
    """total[j] += values[j]."""
    for j in range(values.size):
        total[j] += values[j]


@row_function
def load(values, S, lead, first, rows, Wp):
    """S[k] from rows `first` to first + rows of responses `values` (F, H, W), blank elsewhere."""
    S[:] = 0
    for k in range(S.shape[0]):
        for i in range(rows):
            copy(values[k, first + i], S[k, lead + i * Wp :])


@row_function
def store(S, values, lead, first, rows, Wp):
    """The converse of `load`."""
    W = values.shape[2]
    for k in range(S.shape[0]):
        for i in range(rows):
            copy(S[k, lead + i * Wp : lead + i * Wp + W], values[k, first + i])


@row_function
def multiply(S, other):
    """S *= other."""
    for k in range(S.shape[0]):
        row, factor = S[k], other[k]
        for j in range(row.size):
            row[j] *= factor[j]


@reduction
def sum_row(row):
    """Σ_j row[j], in float64."""
    total = 0.0
    for j in range(row.size):
        total += row[j]
    return total
