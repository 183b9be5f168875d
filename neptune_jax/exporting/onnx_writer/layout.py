"""Operations of JAX that move elements, or give them another shape or type, in ONNX."""

from collections.abc import Callable

import numpy as np

from neptune_jax.exporting.onnx_writer.graph import (
    Value,
    element_type,
    result,
    stored_type,
    unknown,
)

_FIRST = np.iinfo(np.int64).min  # where a slice with a negative step ends, after element 0


def _same(graph, equation, *operands):
    return list(operands)


def _convert(graph, equation, x):
    kind = stored_type(equation.outvars[0].aval.dtype)
    if kind == x.dtype:
        return x
    if x.array is not None:
        return x._replace(array=x.array.astype(kind), dtype=kind)
    return result(equation, graph.add('Cast', x.name, to=element_type(kind)), x.dims)


def _broadcast(graph, equation, x, *sizes):
    dims = [1] * len(equation.outvars[0].aval.shape)
    for place, size in zip(equation.params['broadcast_dimensions'], x.dims, strict=True):
        dims[place] = size
    return _reshaped(graph, x, tuple(dims))


def _reshape(graph, equation, x, *sizes):
    dims, before = equation.outvars[0].aval.shape, equation.invars[0].aval.shape
    if x.array is not None and x.array.size == 1:
        return _reshaped(graph, x, (1,) * len(dims))
    if x.dims != before:
        x = Value(before, x.dtype, graph.full(x, before))
    return _reshaped(graph, x, dims)


def _reshaped(graph, x, dims):
    if x.dims == dims:
        return x
    if x.array is not None:
        return x._replace(array=x.array.reshape(dims), dims=dims)
    return x._replace(name=graph.reshape(x.name, dims), dims=dims)


def _transpose(graph, equation, x):
    order = equation.params['permutation']
    dims = tuple(x.dims[place] for place in order)
    if x.array is not None:
        return x._replace(array=x.array.transpose(order), dims=dims)
    return result(equation, graph.transpose(x, order), dims)


def _concatenate(graph, equation, *operands):
    names = graph.full_operands(equation, *operands)
    return result(equation, graph.add('Concat', *names, axis=equation.params['dimension']))


def _split(graph, equation, x):
    sizes, axis = [int(size) for size in equation.params['sizes']], equation.params['axis']
    (name,) = graph.full_operands(equation, x)
    parts = graph.add_several('Split', name, graph.integers(sizes), outputs=len(sizes), axis=axis)
    return [result(equation, part, output=number) for number, part in enumerate(parts)]


def _pad(graph, equation, x, filling):
    low, high, between = zip(*equation.params['padding_config'], strict=True)
    if any(between):
        raise unknown('pad between elements')
    (name,) = graph.full_operands(equation, x)
    pads = graph.integers([*low, *high])
    return result(equation, graph.add('Pad', name, pads, graph.name(filling)))


def _slice(graph, equation, x):
    start, stop = equation.params['start_indices'], equation.params['limit_indices']
    steps = equation.params['strides'] or (1,) * len(start)
    sizes = equation.invars[0].aval.shape
    axes = [i for i, size in enumerate(sizes) if (start[i], stop[i], steps[i]) != (0, size, 1)]
    cuts = ([column[axis] for axis in axes] for column in (start, stop, steps))
    (name,) = graph.full_operands(equation, x)
    return result(equation, _cut(graph, name, axes, *cuts))


def _cut(graph, name, axes, start, stop, steps):
    if not axes:
        return name
    return graph.add('Slice', name, *map(graph.integers, (start, stop, axes, steps)))


def _reverse(graph, equation, x):
    axes = list(equation.params['dimensions'])
    (name,) = graph.full_operands(equation, x)
    backwards = [-1] * len(axes)
    return result(equation, _cut(graph, name, axes, backwards, [_FIRST] * len(axes), backwards))


def _gather(graph, equation, x, places):
    """What x[:, 3], x[:, 1:] and x[:, ::2] are in JAX where the batch size is symbolic."""
    numbers, taken = equation.params['dimension_numbers'], equation.params['slice_sizes']
    sizes, dims = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    indexed = list(numbers.start_index_map)
    others = [axis for axis in range(len(sizes)) if axis not in indexed]
    if numbers.operand_batching_dims or any(taken[axis] != sizes[axis] for axis in others):
        raise unknown('gather of parts of several dimensions')
    name, where = graph.full_operands(equation, x, places)
    if places.array is not None and places.array.ndim == 1:  # one slice
        start = [int(place) for place in places.array]
        stop = [place + taken[axis] for place, axis in zip(start, indexed, strict=True)]
        cut = _cut(graph, name, indexed, start, stop, [1] * len(indexed))
        return result(equation, graph.reshape(cut, dims) if numbers.collapsed_slice_dims else cut)
    if indexed != list(numbers.collapsed_slice_dims):
        raise unknown('gather of several slices')
    first = graph.transpose(Value(sizes, x.dtype, name), indexed + others)
    where = graph.add('Cast', where, to=element_type(np.dtype(np.int64)))
    found = graph.add('GatherND', first, where)
    # The dimensions are now those of the places, then the others, which JAX puts at `offset_dims`.
    offsets = list(numbers.offset_dims)
    order = [axis for axis in range(len(dims)) if axis not in offsets] + offsets
    return result(equation, graph.transpose(Value((), x.dtype, found), np.argsort(order).tolist()))


# These change constants, parameters too, while the graph is written.
OF_CONSTANTS: dict[str, Callable] = {
    'broadcast_in_dim': _broadcast,
    'convert_element_type': _convert,
    'copy': _same,
    'copy_p': _same,
    'expand_dims': _reshape,
    'optimization_barrier': _same,
    'reduce_precision': _same,
    'reshape': _reshape,
    'sharding_constraint': _same,
    'squeeze': _reshape,
    'stop_gradient': _same,
    'transpose': _transpose,
}

OPERATIONS: dict[str, Callable] = OF_CONSTANTS | {
    'concatenate': _concatenate,
    'gather': _gather,
    'pad': _pad,
    'rev': _reverse,
    'slice': _slice,
    'split': _split,
}
