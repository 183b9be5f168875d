"""Sums, products, convolutions and pools of JAX, in ONNX."""

import math
import string
from collections.abc import Callable

import numpy as np

from neptune_jax.exporting.onnx_writer.graph import Value, element_type, result, unknown


def _reduction(operation):
    def apply(graph, equation, x):
        (name,) = graph.full_operands(equation, x)
        axes = graph.integers(equation.params['axes'])
        return result(equation, graph.add(operation, name, axes, keepdims=0))

    return apply


def _position(operation):
    def apply(graph, equation, x):
        (name,) = graph.full_operands(equation, x)
        (axis,) = equation.params['axes']
        found = graph.add(operation, name, axis=axis, keepdims=0)
        kind = element_type(equation.outvars[0].aval.dtype)
        return result(equation, graph.add('Cast', found, to=kind))

    return apply


def _cumulative_sum(graph, equation, x):
    (name,) = graph.full_operands(equation, x)
    axis = graph.constant(np.int64(equation.params['axis']))
    reverse = int(equation.params['reverse'])
    return result(equation, graph.add('CumSum', name, axis, reverse=reverse))


def _product(graph, equation, x, y):
    (left, right), (left_batch, right_batch) = equation.params['dimension_numbers']
    names = graph.full_operands(equation, x, y)
    of_matrix = len(y.dims) == 2 and tuple(left) == (len(x.dims) - 1,) and tuple(right) == (0,)
    if of_matrix and not left_batch:
        return result(equation, graph.add('MatMul', *names))
    letters = iter(string.ascii_lowercase)
    first, second = ([next(letters) for _ in value.dims] for value in (x, y))
    for pairs in ((left, right), (left_batch, right_batch)):
        for one, other in zip(*pairs, strict=True):
            second[other] = first[one]
    batch = [first[axis] for axis in left_batch]
    free = [c for axis, c in enumerate(first) if axis not in (*left, *left_batch)]
    free += [c for axis, c in enumerate(second) if axis not in (*right, *right_batch)]
    rule = f'{"".join(first)},{"".join(second)}->{"".join(batch + free)}'
    return result(equation, graph.add('Einsum', *names, equation=rule))


def _convolution(graph, equation, x, kernel):
    params, numbers = equation.params, equation.params['dimension_numbers']
    low, high = zip(*params['padding'], strict=True)
    if set(params['lhs_dilation']) != {1} or params['batch_group_count'] != 1:
        raise unknown('conv_general_dilated of a dilated input')
    if min(*low, *high) < 0:
        raise unknown('conv_general_dilated with negative padding')
    images = Value((), x.dtype, graph.full_operands(equation, x)[0])
    found = graph.add(
        'Conv',
        graph.transpose(images, numbers.lhs_spec),
        graph.transpose(kernel, numbers.rhs_spec),
        strides=list(params['window_strides']),
        dilations=list(params['rhs_dilation']),
        pads=[*low, *high],
        group=params['feature_group_count'],
    )
    return result(equation, _back(graph, x, found, numbers.out_spec))


def _back(graph, x, name, order):
    """Returns the name of a tensor whose dimensions are in an order, in their own order."""
    return graph.transpose(Value((), x.dtype, name), np.argsort(order).tolist())


def _pool(operation):
    def apply(graph, equation, x):
        params = equation.params
        if {*params['base_dilation'], *params['window_dilation']} != {1}:
            raise unknown(f'{equation.primitive.name} with dilation')
        keys = ('window_dimensions', 'window_strides', 'padding')
        windows = list(zip(*(params[key] for key in keys), strict=True))
        # ONNX's pools have two dimensions, at the front, that they do not reduce.
        kept = [axis for axis, window in enumerate(windows) if window == (1, 1, (0, 0))][:2]
        if len(kept) < 2:
            raise unknown(f'{equation.primitive.name} over all dimensions')
        order = kept + [axis for axis in range(len(windows)) if axis not in kept]
        sizes, strides, padding = zip(*(windows[axis] for axis in order[2:]), strict=True)
        low, high = zip(*padding, strict=True)
        options = {'kernel_shape': list(sizes), 'strides': list(strides), 'pads': [*low, *high]}
        images = Value((), x.dtype, graph.full_operands(equation, x)[0])
        name = graph.transpose(images, order)
        if operation == 'MaxPool':
            found = graph.add('MaxPool', name, **options)
        else:  # the sum is the mean, with the zeros of the padding, times the number of elements
            mean = graph.add('AveragePool', name, count_include_pad=1, **options)
            found = graph.add('Mul', mean, graph.constant(np.float32(math.prod(sizes))))
        return result(equation, _back(graph, x, found, order))

    return apply


OPERATIONS: dict[str, Callable] = {
    'argmax': _position('ArgMax'),
    'argmin': _position('ArgMin'),
    'conv_general_dilated': _convolution,
    'cumsum': _cumulative_sum,
    'dot_general': _product,
    'reduce_max': _reduction('ReduceMax'),
    'reduce_min': _reduction('ReduceMin'),
    'reduce_prod': _reduction('ReduceProd'),
    'reduce_sum': _reduction('ReduceSum'),
    'reduce_window_max': _pool('MaxPool'),
    'reduce_window_sum': _pool('AveragePool'),
}
