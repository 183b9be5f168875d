"""From the equations of a jaxpr to the nodes of an ONNX graph.

The tables OPERATIONS have a function for each operation of JAX (jax.lax). It takes the graph, the
equation and the Values of its operands, adds nodes (https://onnx.ai/onnx/operators/, version 18),
and returns the Value of the result, or a list of them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend import core
from onnx import helper

from neptune_jax.exporting.onnx_writer import elementwise, layout, products
from neptune_jax.exporting.onnx_writer.graph import (
    Graph,
    Value,
    constant,
    element_type,
    result,
    stored_type,
    unknown,
)

_FOLDED = 2**16  # elements of the largest constant that is computed while the graph is written

# Operations that stand for a jaxpr of their own, and the parameters that may hold it.
_INLINED = set(
    'jit pjit closed_call core_call remat remat2 checkpoint custom_jvp_call custom_vjp_call '
    'custom_vjp_call_jaxpr'.split()
)
_INNER = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')


def translate(graph: Graph, closed: Any, inputs: Sequence[Value]) -> list[Value]:
    """Adds the nodes of a jaxpr, open or closed, to a graph; returns the Values of its outputs.

    Equations whose results nothing needs are left out.

    Raises:
        UserError: an operation that is not known here.
    """
    jaxpr = getattr(closed, 'jaxpr', closed)
    values = dict(zip(jaxpr.invars, inputs, strict=True))
    constants = map(constant, getattr(closed, 'consts', ()))
    values.update(zip(jaxpr.constvars, constants, strict=True))

    def read(atom):
        if isinstance(atom, core.Literal):
            return constant(np.asarray(atom.val, stored_type(atom.aval.dtype)))
        return values[atom]

    for equation in _needed(jaxpr):
        operands = [read(atom) for atom in equation.invars]
        outputs = _translate_equation(graph, equation, operands)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _translate_equation(graph, equation, operands):
    name = equation.primitive.name
    if name in _INLINED:
        inner = next(equation.params[key] for key in _INNER if key in equation.params)
        return translate(graph, inner, operands)
    if name in _FOLDABLE and _can_be_folded(equation, operands):
        return [_folded(equation, operands)]
    if name not in OPERATIONS:
        raise unknown(name)
    found = OPERATIONS[name](graph, equation, *operands)
    return found if isinstance(found, list) else [found]


def _needed(jaxpr):
    """Returns the equations that the outputs depend on."""
    needed = {atom for atom in jaxpr.outvars if isinstance(atom, core.Var)}
    equations = []
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            equations.append(equation)
            needed.update(atom for atom in equation.invars if isinstance(atom, core.Var))
    return equations[::-1]


def _can_be_folded(equation, operands):
    """Whether a result depends on no parameter and no image, such as the places of a slice."""
    if any(value.array is None or value.label for value in operands) or len(equation.outvars) > 1:
        return False
    sizes = equation.outvars[0].aval.shape
    return all(isinstance(size, int) for size in sizes) and math.prod(sizes) <= _FOLDED


def _folded(equation, operands):
    arrays = [
        np.broadcast_to(value.array, atom.aval.shape)
        for value, atom in zip(operands, equation.invars, strict=True)
    ]
    return constant(equation.primitive.bind(*arrays, **equation.params))


def _scan(graph, equation, *operands):
    params, inner = equation.params, equation.params['jaxpr']
    # What is carried from turn to turn has the same rank within a turn; a sequence has one less.
    # (JAX 0.10 and 0.12 say their numbers in different ways.)
    carry = sum(map(_same_rank, equation.outvars, inner.jaxpr.outvars))
    consts = sum(map(_same_rank, equation.invars, inner.jaxpr.invars)) - carry
    full = graph.full_operands(equation, *operands)
    arguments = [
        Value(variable.aval.shape, stored_type(variable.aval.dtype), graph.new_name('scan'))
        for variable in inner.jaxpr.invars[consts:]
    ]
    sequences = full[consts + carry :]
    body = graph.body()
    found = translate(body, inner, [*operands[:consts], *arguments])
    # An output of a body has to be the output of a node of its own.
    outputs = [
        body.add('Identity', body.full(value, atom.aval.shape))
        for value, atom in zip(found, inner.jaxpr.outvars, strict=True)
    ]
    if not sequences:  # ONNX takes the number of turns from one
        sequences = [graph.constant(np.zeros(params['length'], np.float32))]
        arguments.append(Value((), np.dtype(np.float32), graph.new_name('scan')))
    reverse, stacked = int(params['reverse']), len(outputs) - carry
    directions = {'scan_output_directions': [reverse] * stacked} if stacked else {}
    results = graph.add_several(
        'Scan',
        *full[consts : consts + carry],
        *sequences,
        outputs=len(outputs),
        body=helper.make_graph(
            body.nodes,
            'body',
            [_info(argument.name, argument) for argument in arguments],
            [_info(name, value) for name, value in zip(outputs, found, strict=True)],
        ),
        num_scan_inputs=len(sequences),
        scan_input_directions=[reverse] * len(sequences),
        **directions,
    )
    return [result(equation, name, output=number) for number, name in enumerate(results)]


def _same_rank(atom, within):
    return atom.aval.ndim == within.aval.ndim


def _info(name, value):
    return helper.make_tensor_value_info(name, element_type(value.dtype), None)


OPERATIONS: dict[str, Callable] = {
    **elementwise.OPERATIONS,
    **layout.OPERATIONS,
    **products.OPERATIONS,
    'scan': _scan,
}

_FOLDABLE = OPERATIONS.keys() - layout.OF_CONSTANTS.keys() - {'scan'} | {'iota'}
