"""Convolution and max pooling that are fast on every backend, and dropout by example.

On GPU and TPU XLA's convolutions are fast and are used as they are. On a CPU some of them are ten
times slower than an equal matrix product or sum. There each case is computed in the way that
experiments/benchmarks measured as the fastest. Values and gradients equal those of `lax` up to the
order of additions. Where a gradient is non-finite, more of its elements may become NaN.
"""

import contextlib
import contextvars
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
_IN_LOOP = contextvars.ContextVar('in_loop', default=False)
_PORTABLE = contextvars.ContextVar('portable', default=False)

# On a CPU, a convolution with at most this many products an output pixel is computed as their sum.
_FEW_PRODUCTS = 32
# XLA's convolutions are slow on a CPU if a pixel has fewer channels than this.
_FEW_CHANNELS = 16
# A gradient by matrix products of whole rows needs no patches but also multiplies by zeros: (row
# width / kernel width) products for each one that counts. It pays while that ratio times the number
# of features is at most this.
_ROW_PRODUCTS = 64
# A kernel gradient processes so many examples at a time that their pixels and gradients, in bytes,
# fit into the processor's cache.
_PART = 2**19
_FEWEST_EXAMPLES = 16
_MOST_PARTS = 32


@contextlib.contextmanager
def loop_body() -> Iterator[None]:
    """A context for tracing the body of lax.scan, lax.while_loop or vmap over parameters.

    In a loop on a CPU, XLA's convolutions run in one thread without vector instructions
    (jax-ml/jax#12868). In this context convolutions become matrix products, which stay fast.
    """
    token = _IN_LOOP.set(True)
    try:
        yield
    finally:
        _IN_LOOP.reset(token)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """A context for tracing a program that is to run on every backend, whatever this machine has.

    In this context convolutions are those of `lax`. Batch sizes may be symbolic.
    """
    token = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(token)


def conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = 'SAME',
    **options: Any,
) -> jax.Array:
    """Two-dimensional convolution; replaces lax.conv_general_dilated in nn.Conv.

    Args:
        x: float[B, H, W, C].
        kernel: float[h, w, C, features], of the same type.
        strides: of rows and columns.
        padding: 'SAME', 'VALID', or the number of zeros before and after, for rows and columns.
        **options: further arguments of lax.conv_general_dilated. Convolutions with dilation or
            groups are computed by it.

    Returns:
        float[B, H', W', features].
    """
    plain = {
        'lhs_dilation': (1, 1),
        'rhs_dilation': (1, 1),
        'dimension_numbers': lax.conv_dimension_numbers(x.shape, kernel.shape, _DIMENSIONS),
        'feature_group_count': 1,
    }
    asked = plain | {name: value for name, value in options.items() if value is not None}
    strides = tuple(strides)
    elsewhere = _PORTABLE.get() or jax.default_backend() != 'cpu'
    if elsewhere or asked != plain or 0 in (*x.shape, *kernel.shape):
        options = {'dimension_numbers': _DIMENSIONS} | options
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    padding = tuple((int(before), int(after)) for before, after in padding)
    return _conv(x, kernel, strides, padding, _IN_LOOP.get())


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x, kernel, strides, padding, in_loop):
    if in_loop:
        return patches(x, kernel.shape, strides, padding) @ kernel.reshape(-1, kernel.shape[-1])
    if kernel.shape[-1] < _FEW_CHANNELS and _has_few_products(kernel):
        return lax.optimization_barrier(_sum_of_products(x, kernel, strides, padding))
    # If no gradient is needed, XLA fuses a whole network of these into one kernel.
    return _lax_conv(x, kernel, strides, padding)


def _conv_forward(x, kernel, strides, padding, in_loop):
    if _has_few_products(kernel):
        y = _sum_of_products(x, kernel, strides, padding)
    else:
        y = _conv(x, kernel, strides, padding, in_loop)
    # Without the barrier XLA would compute this again for each of its uses.
    return lax.optimization_barrier(y), (x, kernel)


def _has_few_products(kernel):
    return math.prod(kernel.shape[:3]) <= _FEW_PRODUCTS


def _sum_of_products(x, kernel, strides, padding):
    channels, features = kernel.shape[2:]
    exact = _sum_type(x.dtype)
    shifted = _shifted(x.astype(exact), kernel.shape, strides, padding)
    weights = kernel.astype(exact).reshape(-1, channels, 1, 1, 1, features)
    return sum(
        pixels[..., channel, None] * weights[tap, channel]
        for tap, pixels in enumerate(shifted)
        for channel in range(channels)
    ).astype(x.dtype)


def _conv_backward(strides, padding, in_loop, residuals, grad):
    (x, kernel), grad = lax.optimization_barrier((residuals, grad))
    return (
        _input_gradient(x, kernel, grad, strides, padding, in_loop),
        _kernel_gradient(x, kernel, grad, strides, padding, in_loop),
    )


_conv.defvjp(_conv_forward, _conv_backward)


def _input_gradient(x, kernel, grad, strides, padding, in_loop):
    height, width, channels, features = kernel.shape
    if strides == (1, 1) and channels >= _FEW_CHANNELS and not in_loop:
        # lax would write this as a convolution with a reversed window. That is no faster in
        # float32, and many times slower in bfloat16 on processors with bfloat16 instructions.
        before = height - 1 - padding[0][0], width - 1 - padding[1][0]
        after = _beyond(x, grad, strides, padding)
        flipped = kernel[::-1, ::-1].swapaxes(2, 3)
        return _lax_conv(grad, flipped, (1, 1), tuple(zip(before, after, strict=True)))
    # One matrix product gives the contributions of each output pixel, or row of pixels, to the
    # input pixels under the kernel. The sum below adds them up at their places.
    if _whole_rows(x, kernel, padding):
        columns = x.shape[2] + sum(padding[1])
        row_kernel = _row_kernel(kernel, columns, grad.shape[2], strides[1])
        owed = grad.reshape(*grad.shape[:2], -1) @ row_kernel
        owed = owed.reshape(*grad.shape[:2], columns, height, 1, channels)
        strides = (strides[0], 1)
    else:
        owed = grad @ kernel.reshape(-1, features).T
        owed = owed.reshape(*grad.shape[:3], height, width, channels)
    owed = lax.optimization_barrier(owed).astype(_sum_type(x.dtype))
    after = _beyond(x, owed, strides, padding)
    total = sum(
        lax.pad(
            owed[:, :, :, i, j],
            jnp.zeros((), owed.dtype),
            (
                (0, 0, 0),
                (i - padding[0][0], after[0] - i, strides[0] - 1),
                (j - padding[1][0], after[1] - j, strides[1] - 1),
                (0, 0, 0),
            ),
        )
        for i, j in itertools.product(*map(range, owed.shape[3:5]))
    )
    return total.astype(x.dtype)


def _beyond(x, grad, strides, padding):
    """Returns the number of input rows and columns after those under the last output pixel."""
    return [
        n + low - 1 - (m - 1) * stride
        for n, m, stride, (low, _) in zip(
            x.shape[1:3], grad.shape[1:3], strides, padding, strict=True
        )
    ]


def _whole_rows(x, kernel, padding):
    """Whether a gradient is computed by matrix products of whole rows of pixels."""
    columns = x.shape[2] + sum(padding[1])
    return columns * kernel.shape[3] <= _ROW_PRODUCTS * kernel.shape[1]


def _row_kernel(kernel, columns, out_columns, stride):
    """Returns the matrix [W' features, W h C] from output rows to input rows.

    It holds the kernel at each of its places in a row, and zeros elsewhere.
    """
    places = [np.eye(out_columns * stride, columns, k=j)[::stride] for j in range(kernel.shape[1])]
    places = jnp.asarray(places, kernel.dtype)
    return jnp.einsum('jpw,ijcf->pfwic', places, kernel).reshape(out_columns * kernel.shape[3], -1)


def _kernel_gradient(x, kernel, grad, strides, padding, in_loop):
    if x.shape[-1] == 1 and _whole_rows(x, kernel, padding):
        return _kernel_gradient_by_rows(x, kernel, grad, strides, padding)
    if in_loop or x.shape[-1] == 1:
        under = patches(x, kernel.shape, strides, padding)
        under, grad = (part.reshape(-1, part.shape[-1]) for part in (under, grad))
        return (under.T @ grad).reshape(kernel.shape)
    examples = _PART * len(x) // ((x.size + grad.size) * x.dtype.itemsize)
    # XLA vectorises over examples here; a power of two fills the processor's vectors.
    size = max(1 << examples.bit_length() >> 1, _FEWEST_EXAMPLES, -(-len(x) // _MOST_PARTS))

    def part(start):
        def forward(kernel):
            return _lax_conv(x[start : start + size], kernel, strides, padding)

        (found,) = jax.linear_transpose(forward, kernel)(grad[start : start + size])
        return found.astype(_sum_type(kernel.dtype))

    return sum(part(start) for start in range(0, len(x), size)).astype(kernel.dtype)


def _kernel_gradient_by_rows(x, kernel, grad, strides, padding):
    height, width = kernel.shape[:2]
    exact = _sum_type(x.dtype)
    under = patches(x, (height, 1), (strides[0], 1), padding)  # [B, H', W, h]
    products = jnp.tensordot(under, grad, ((0, 1), (0, 1)), preferred_element_type=exact)
    # Of [W, h, W', features], sum the pairs of input and output columns that a kernel column joins.
    span = (grad.shape[2] - 1) * strides[1] + 1
    found = [jnp.einsum('pipf->if', products[j : j + span : strides[1]]) for j in range(width)]
    return jnp.stack(found, axis=1).reshape(kernel.shape).astype(kernel.dtype)


def patches(
    x: jax.Array,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
) -> jax.Array:
    """Returns the pixels under a kernel [h, w, ...] at each of its places: [B, H', W', h w C]."""
    return jnp.concatenate(_shifted(x, kernel_shape, strides, padding), axis=-1)


def _shifted(x, kernel_shape, strides, padding):
    """Returns the input pixels under each element of the kernel: h w arrays [B, H', W', C]."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = kernel_shape[:2]
    rows, columns = strides
    return [
        x[:, i : x.shape[1] - height + i + 1 : rows, j : x.shape[2] - width + j + 1 : columns]
        for i, j in itertools.product(range(height), range(width))
    ]


def _sum_type(dtype):
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def _lax_conv(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_DIMENSIONS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Max pooling over non-overlapping windows; rows and columns that fill no window are dropped.

    The gradient of lax.reduce_window searches every window again. On a CPU it is ten times faster
    to remember where the largest element was. As in lax, the first of equally large elements of a
    window, row by row, gets the gradient.

    Args:
        x: float[B, H, W, C].
        size: height and width of a window, and its stride.

    Returns:
        float[B, H // size, W // size, C].
    """
    window = (1, size, size, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, 'VALID')


def _max_pool_forward(x, size):
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    windows = x[:, : rows * size, : columns * size]
    windows = windows.reshape(batch, rows, size, columns, size, channels)
    largest, place = windows[:, :, 0, :, 0], jnp.zeros((batch, rows, columns, channels), jnp.int32)
    for number in range(1, size * size):
        element = windows[:, :, number // size, :, number % size]
        place = jnp.where(element > largest, number, place)
        largest = jnp.maximum(element, largest)
    # Without the barriers here and in the gradient, XLA would compute both again for each use.
    largest, place = lax.optimization_barrier((largest, place.astype(jnp.uint8)))
    return largest, (place, height, width)


def _max_pool_backward(size, residuals, grad):
    place, height, width = residuals
    batch, rows, columns, channels = grad.shape
    places = jnp.arange(size * size, dtype=jnp.uint8).reshape(1, 1, size, 1, size, 1)
    grad = jnp.where(place[:, :, None, :, None] == places, grad[:, :, None, :, None], 0)
    grad = grad.reshape(batch, rows * size, columns * size, channels)
    rest = ((0, 0), (0, height - rows * size), (0, width - columns * size), (0, 0))
    return (lax.optimization_barrier(jnp.pad(grad, rest)),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def dropout(x: jax.Array, rate: float, keys: jax.Array | None, layer: int) -> jax.Array:
    """Sets features to 0 with probability `rate`, and divides the others by 1 - rate.

    What is dropped of an example depends on its key alone, not on the batch around it. So a batch
    can be divided over devices, or into parts, with the same result.

    Args:
        x: float[B, ...].
        rate: in [0, 1).
        keys: PRNG keys [B]; not needed for a rate of 0.
        layer: a number in [0, 2**32) that makes the draws of several layers differ.
    """
    if not rate:
        return x
    assert keys is not None
    layer_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, jnp.uint32(layer))
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(layer_keys)
    return jnp.where(keep, x / (1 - rate), 0)
