"""A classifier as an ONNX model: uint8[b, H, W, C] in, logits and probabilities [b, K] out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import export
from onnx import TensorProto, helper

from neptune_jax.errors import UserError
from neptune_jax.exporting.onnx_writer.graph import Graph, Value, constant
from neptune_jax.exporting.onnx_writer.translation import translate
from neptune_jax.models import ops

OPSET = 18  # of December 2022: runtimes of that age can read it
_IR_VERSION = 8  # of the file format, of the same age
_MOST_BYTES = 2**31 - 2**20  # what one file of Protocol Buffers can hold


def write(
    function: Callable[[dict, jax.Array], dict[str, jax.Array]],
    variables: dict,
    image_shape: tuple[int, int, int],
    metadata: dict[str, str],
) -> bytes:
    """Returns a function of images as an ONNX model for any batch size, with its parameters inside.

    Each parameter has its path as its name, such as 'params/Conv_0/kernel'. Kernels of convolutions
    lie in ONNX's order (features, channels, height, width). What the function computes in bfloat16
    is computed in float32.

    Args:
        function: from (variables, images uint8[B, H, W, C]) to a dict of arrays float32[B, ...].
        variables: a pytree of arrays.
        image_shape: (height, width, channels).
        metadata: texts that are stored in the model.

    Raises:
        UserError: the function uses an operation that has no translation, or the parameters are
            too large for one file.
    """
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    size = sum(leaf.size * leaf.dtype.itemsize for _, leaf in leaves)
    if size > _MOST_BYTES:
        raise UserError(
            f'an ONNX file holds less than 2 GiB, and the parameters have {size / 2**30:.1f} GiB; '
            'leave onnx out: --formats=stablehlo,safetensors'
        )
    (batch,) = export.symbolic_shape('batch')
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.uint8)
    with ops.portable():
        closed, outputs = jax.make_jaxpr(function, return_shape=True)(variables, images)
    graph = Graph(batch, 'images')
    inputs = [
        constant(leaf, jax.tree_util.keystr(path, simple=True, separator='/'))
        for path, leaf in leaves
    ]
    inputs.append(Value(images.shape, np.dtype(np.uint8), 'images'))
    found = translate(graph, closed, inputs)
    for name, value in zip(sorted(outputs), found, strict=True):  # JAX sorts the keys of a dict
        full = graph.full(value, outputs[name].shape)
        graph.nodes.append(helper.make_node('Identity', [full], [name]))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            'classifier',
            [_info('images', TensorProto.UINT8, images)],
            [_info(name, TensorProto.FLOAT, outputs[name]) for name in sorted(outputs)],
            list(graph.constants.values()),
        ),
        producer_name='neptune_jax',
        opset_imports=[helper.make_opsetid('', OPSET)],
        ir_version=_IR_VERSION,
    )
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _info(name: str, kind: int, array: Any) -> onnx.ValueInfoProto:
    shape = [size if isinstance(size, int) else 'batch' for size in array.shape]
    return helper.make_tensor_value_info(name, kind, shape)
