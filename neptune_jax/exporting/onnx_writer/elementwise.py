"""Operations of JAX that compute each element of its own, in ONNX."""

from collections.abc import Callable
from typing import Any

import numpy as np

from neptune_jax.exporting.onnx_writer.graph import Graph, Value, result, stored_type, unknown


def _elementwise(build: Callable | str) -> Callable:
    """Returns the function of an operation of which ONNX repeats operands as NumPy does.

    Args:
        build: the name of a node, or a function of (graph, equation, *names) to a name.
    """

    def apply(graph: Graph, equation: Any, *operands: Value) -> Value:
        names = [graph.name(value) for value in operands]
        if isinstance(build, str):
            name = graph.add(build, *names)
        else:
            name = build(graph, equation, *names)
        return result(equation, name, _joined(operands))

    return apply


def _joined(operands):
    """Returns the dimensions of the result, by the rules of NumPy."""
    rank = max(len(value.dims) for value in operands)
    rows = [(1,) * (rank - len(value.dims)) + tuple(value.dims) for value in operands]
    columns = zip(*rows, strict=True)
    return tuple(next((size for size in column if not _is_one(size)), 1) for column in columns)


def _is_one(size):
    return isinstance(size, int) and size == 1


def _one(graph, equation):
    return graph.constant(np.ones((), stored_type(equation.outvars[0].aval.dtype)))


def _integer_pow(graph, equation, x):
    kind = stored_type(equation.outvars[0].aval.dtype)
    return graph.add('Pow', x, graph.constant(np.asarray(equation.params['y'], kind)))


def _round(graph, equation, x):
    if int(equation.params['rounding_method']) != 1:  # ONNX rounds halves to the even number
        raise unknown('round of halves away from zero')
    return graph.add('Round', x)


def _logical(operation):
    def build(graph, equation, *names):
        if equation.outvars[0].aval.dtype != bool:
            raise unknown(f'{equation.primitive.name} of integers')
        return graph.add(operation, *names)

    return build


def _select(graph, equation, which, *cases):
    if equation.invars[0].aval.dtype != bool:
        raise unknown('select_n of several cases')
    if_false, if_true = cases
    return graph.add('Where', which, if_true, if_false)


_ONE_NODE = {
    'abs': 'Abs',
    'acos': 'Acos',
    'add': 'Add',
    'add_any': 'Add',
    'asin': 'Asin',
    'atan': 'Atan',
    'ceil': 'Ceil',
    'cos': 'Cos',
    'cosh': 'Cosh',
    'div': 'Div',
    'eq': 'Equal',
    'erf': 'Erf',
    'exp': 'Exp',
    'floor': 'Floor',
    'ge': 'GreaterOrEqual',
    'gt': 'Greater',
    'le': 'LessOrEqual',
    'log': 'Log',
    'logistic': 'Sigmoid',
    'lt': 'Less',
    'max': 'Max',
    'min': 'Min',
    'mul': 'Mul',
    'neg': 'Neg',
    'pow': 'Pow',
    'sign': 'Sign',
    'sin': 'Sin',
    'sinh': 'Sinh',
    'sqrt': 'Sqrt',
    'sub': 'Sub',
    'tan': 'Tan',
    'tanh': 'Tanh',
}

_SEVERAL_NODES: dict[str, Callable] = {
    'and': _logical('And'),
    'clamp': lambda graph, _, low, x, high: graph.add('Min', graph.add('Max', x, low), high),
    'erfc': lambda graph, e, x: graph.add('Sub', _one(graph, e), graph.add('Erf', x)),
    'expm1': lambda graph, e, x: graph.add('Sub', graph.add('Exp', x), _one(graph, e)),
    'integer_pow': _integer_pow,
    'log1p': lambda graph, e, x: graph.add('Log', graph.add('Add', x, _one(graph, e))),
    'ne': lambda graph, _, x, y: graph.add('Not', graph.add('Equal', x, y)),
    'not': _logical('Not'),
    'or': _logical('Or'),
    'rem': lambda graph, _, x, y: graph.add('Mod', x, y, fmod=1),
    'round': _round,
    'rsqrt': lambda graph, _, x: graph.add('Reciprocal', graph.add('Sqrt', x)),
    'select_n': _select,
    'square': lambda graph, _, x: graph.add('Mul', x, x),
    'xor': _logical('Xor'),
}

OPERATIONS = {name: _elementwise(build) for name, build in (_ONE_NODE | _SEVERAL_NODES).items()}
