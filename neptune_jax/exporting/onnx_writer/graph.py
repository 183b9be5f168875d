"""An ONNX graph in the making: nodes, constants without duplicates, shapes with a batch size."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from neptune_jax.errors import UserError

Dims = tuple[Any, ...]  # ints, and multiples of the symbolic batch size


class Value(NamedTuple):
    """A tensor of the graph, or a constant that is not in the graph yet.

    `dims` may have ones where the value that it stands for repeats its elements: ONNX's operations
    repeat them too, so most arrays need not be made as large as they are in JAX.
    """

    dims: Dims
    dtype: np.dtype
    name: str = ''  # of the tensor
    array: np.ndarray | None = None  # of the constant
    label: str = ''  # the path of the parameter that a constant comes from


def constant(array: Any, label: str = '') -> Value:
    """Returns the Value of a constant, which comes from the parameter `label` if that is given."""
    array = np.asarray(array)
    array = array.astype(stored_type(array.dtype), copy=False)
    return Value(array.shape, array.dtype, array=array, label=label)


def result(equation: Any, name: str, dims: Dims | None = None, output: int = 0) -> Value:
    """Returns the Value of an equation's result: of its full dimensions, unless others are given.

    Args:
        equation: of a jaxpr.
        name: of the tensor.
        dims: of the tensor; None: those of the result.
        output: the number of the result.
    """
    aval = equation.outvars[output].aval
    return Value(aval.shape if dims is None else dims, stored_type(aval.dtype), name)


class Graph:
    """Nodes and constants. The graph of a loop's body shares names and constants with its parent.

    Args:
        batch: the symbolic batch size.
        images: the name of the input, whose first dimension is the batch size.
        parent: the graph that a loop's body belongs to.
    """

    def __init__(self, batch: Any, images: str, parent: 'Graph | None' = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[tuple, onnx.TensorProto] = parent.constants if parent else {}
        self._numbers: Iterator[int] = parent._numbers if parent else itertools.count()
        self._batch, self._images = batch, images
        self._batch_size = ''

    def body(self) -> 'Graph':
        """Returns an empty graph for the body of a loop."""
        return Graph(self._batch, self._images, self)

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        return self.add_several(operation, *inputs, outputs=1, **attributes)[0]

    def add_several(
        self, operation: str, *inputs: str, outputs: int, **attributes: Any
    ) -> list[str]:
        """Adds a node; returns the names of its outputs."""
        names = [self.new_name(operation) for _ in range(outputs)]
        self.nodes.append(helper.make_node(operation, inputs, names, **attributes))
        return names

    def new_name(self, what: str) -> str:
        """Returns a name that no other tensor has."""
        return f'{what}_{next(self._numbers)}'

    def constant(self, array: Any, label: str = '') -> str:
        """Returns the name of a constant. It is the label, unless other numbers have it already."""
        array = np.asarray(array, order='C')
        array = array.astype(stored_type(array.dtype), copy=False)
        content = hashlib.sha256(array.tobytes()).digest()
        key = (label, str(array.dtype), array.shape, content)
        if key not in self.constants:
            name = label or self.new_name('constant')
            if any(tensor.name == name for tensor in self.constants.values()):
                name = self.new_name(name)
            self.constants[key] = numpy_helper.from_array(array, name)
        return self.constants[key].name

    def integers(self, numbers: Sequence[int]) -> str:
        """Returns the name of a constant int64[n]."""
        return self.constant(np.array(numbers, np.int64))

    def name(self, value: Value) -> str:
        """Returns the name of the tensor that holds a value, with the value's own `dims`."""
        return value.name if value.array is None else self.constant(value.array, value.label)

    def full(self, value: Value, dims: Dims) -> str:
        """Returns the name of a tensor of `dims`, in which a value's elements are repeated."""
        if value.dims == dims:
            return self.name(value)
        if value.array is not None and all(isinstance(size, int) for size in dims):
            return self.constant(np.broadcast_to(value.array, dims))
        return self.add('Expand', self.name(value), self._shape(dims))

    def full_operands(self, equation: Any, *operands: Value) -> list[str]:
        """Returns the names of tensors for operands of an equation, as large as they are there."""
        atoms = equation.invars[: len(operands)]
        return [
            self.full(value, atom.aval.shape) for value, atom in zip(operands, atoms, strict=True)
        ]

    def reshape(self, name: str, dims: Dims) -> str:
        """Returns the name of a tensor with other dimensions, of which one may be symbolic."""
        return self.add(
            'Reshape', name, self.integers([n if isinstance(n, int) else -1 for n in dims])
        )

    def transpose(self, value: Value, order: Sequence[int]) -> str:
        """Returns the name of a tensor with the dimensions of a value in another order."""
        if list(order) == sorted(order):
            return self.name(value)
        if value.array is not None:
            return self.constant(value.array.transpose(order), value.label)
        return self.add('Transpose', value.name, perm=list(order))

    def _shape(self, dims):
        """Returns the name of int64[n], dimensions of which some depend on the batch size."""
        if not self._batch_size:
            self._batch_size = self.add('Shape', self._images, start=0, end=1)
        parts = []
        for size in dims:
            if isinstance(size, int):
                parts.append(self.integers([size]))
            elif (times := size // self._batch) == 1:
                parts.append(self._batch_size)
            else:
                parts.append(self.add('Mul', self._batch_size, self.integers([times])))
        return self.add('Concat', *parts, axis=0)


def stored_type(dtype: np.dtype) -> np.dtype:
    """Returns the type that stands for a type of JAX in the graph.

    That is float32 for bfloat16, in which few runtimes compute.
    """
    return np.dtype(np.float32) if str(dtype) == 'bfloat16' else np.dtype(dtype)


def element_type(dtype: np.dtype) -> int:
    """Returns ONNX's number of the type that stands for a type of JAX."""
    return helper.np_dtype_to_tensor_dtype(stored_type(dtype))


def unknown(what: str) -> UserError:
    """Returns the error that says that an operation of JAX has no translation here."""
    return UserError(
        f'the network uses the operation {what}, which has no translation to ONNX here; leave onnx '
        'out: --formats=stablehlo,safetensors'
    )
