"""Floating-point operations of a network, and the share of a device's peak that a training uses."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from neptune_jax.models import ops

# Peak dense bfloat16 operations per second from the makers' data sheets, by the beginning of a
# device's name. The first entry that matches counts.
PEAKS = {
    'NVIDIA H200': 989e12,
    'NVIDIA H100': 989e12,
    'NVIDIA A100': 312e12,
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5': 459e12,
    'TPU v6 lite': 918e12,
}


def utilization(experiment: Any, images_per_second: float) -> float | None:
    """Returns the model FLOPs utilization (MFU) of a training, or None for an unknown device.

    That is the share of the devices' bfloat16 peak that the matrix products and convolutions of the
    forward and backward pass use. The backward pass counts as twice the forward pass; operations
    that are computed again do not count (Chowdhery et al., PaLM, 2022, appendix B).
    """
    kind = experiment.parallel.devices[0].device_kind
    peak = next((peak for name, peak in PEAKS.items() if kind.startswith(name)), None)
    if peak is None:
        return None
    flops = 3 * forward(experiment.model, experiment.dataset.image_shape)
    return flops * images_per_second / (peak * experiment.parallel.num_devices)


def forward(model: Any, image_shape: tuple[int, int, int]) -> int:
    """Returns the operations of a forward pass on one image (height, width, channels)."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with ops.loop_body():  # in which each convolution is a matrix product or lax's
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        return _count(jax.make_jaxpr(model.apply)(variables, images).jaxpr)


def _count(jaxpr):
    """Returns twice the multiplications in matrix products and convolutions."""
    total = 0
    for equation in jaxpr.eqns:
        size = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        shapes = [variable.aval.shape for variable in equation.invars]
        if equation.primitive.name == 'dot_general':
            (contracted, _), _ = equation.params['dimension_numbers']
            total += 2 * size * math.prod(shapes[0][axis] for axis in contracted)
        elif equation.primitive.name == 'conv_general_dilated':
            out_features = equation.params['dimension_numbers'].rhs_spec[0]
            total += 2 * size * math.prod(shapes[1]) // shapes[1][out_features]
        else:
            inner = (getattr(p, 'jaxpr', p) for p in jax.tree.leaves(equation.params))
            total += sum(_count(jaxpr) for jaxpr in inner if hasattr(jaxpr, 'eqns'))
    return total
