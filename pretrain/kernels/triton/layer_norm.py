"""LayerNorm of a tile of whole rows and its derivative, for the kernels that end with one.

With x̂ = (x - mean) / deviation over the D elements of a row, y = x̂ · weight + bias, and g the
gradient of x̂: the gradient of x is (g - mean(g) - x̂ · mean(g · x̂)) / deviation (arXiv 1607.06450).
Everything is fp32. Elements outside the tensor must be 0 in the inputs; rows outside give 0.
"""

import triton
import triton.language as tl


@triton.jit
def moments(x, inside, epsilon, D: tl.constexpr):
    """Return the mean and the reciprocal deviation of each row, [ROWS, 1]."""
    mean = tl.sum(x, axis=1)[:, None] / D
    # In two passes over registers: E[x²] - E[x]² cancels where the mean is large.
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=1)[:, None] / D
    return mean, 1.0 / tl.sqrt(variance + epsilon)


@triton.jit
def input_gradient(grad, normed, scale, D: tl.constexpr):
    """Return the gradient of x from that of x̂, x̂ and the reciprocal deviation."""
    along_ones = tl.sum(grad, axis=1)[:, None] / D
    along_normed = tl.sum(grad * normed, axis=1)[:, None] / D
    return (grad - along_ones - normed * along_normed) * scale
