"""Parameters and batch statistics as a safetensors file, by their paths."""

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save


def write(variables: dict, metadata: dict[str, str]) -> bytes:
    """Returns `params` and `batch_stats` as a safetensors file: 'params/Conv_0/kernel', ...

    Args:
        variables: nested dicts of arrays.
        metadata: texts that are stored in the file's header.
    """
    arrays = {
        path: np.ascontiguousarray(array)
        for path, array in sorted(flatten_dict(variables, sep='/').items())
    }
    return save(arrays, metadata)
