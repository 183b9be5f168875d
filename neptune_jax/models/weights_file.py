"""Weights of a safetensors file, for a network to start from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neptune_jax.errors import UserError, choose_or_import, one_line, using
from neptune_jax.models.torch_names import from_torch

SUFFIX = '.safetensors'

Arrays = dict[str, np.ndarray]


def _own(arrays: Arrays, paths: Mapping[str, Any]) -> Arrays:
    if not any(name.startswith('params/') for name in arrays):
        raise UserError(
            'checkpoint.restore_from: the names in the file are none of this package, such as '
            f"'params/Conv_0/kernel', but {next(iter(arrays), '')!r}; for those of PyTorch set "
            '--config.checkpoint.names=torch'
        )
    return arrays


# By `checkpoint.names`, functions from arrays by the names of the file to arrays by the paths here.
NAMES: dict[str, Callable[[Arrays, Mapping[str, Any]], Arrays]] = {'': _own, 'torch': from_torch}


def read(path: str, names: str, expected: Mapping[str, Any]) -> Arrays:
    """Returns the arrays of a safetensors file by their paths in the network, floats as float32.

    Args:
        path: of the file.
        names: the names in the file, a key of NAMES or 'package.module:function' of one's own,
            which takes (arrays, expected) and returns arrays by path.
        expected: the shapes of the network's arrays by path: 'params/Conv_0/kernel'.

    Raises:
        UserError: there is no such file, it is damaged, its names are others, or the library that
            reads it is missing.
    """
    rename = choose_or_import(NAMES, names, 'checkpoint.names')
    arrays = _load(path)
    with using('checkpoint.names', names):
        return rename(arrays, expected)


def _load(path):
    name = f'checkpoint.restore_from={path!r}'
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise UserError(f'{name} needs safetensors: pip install "neptune_jax[export]"') from error
    if not Path(path).is_file():
        raise UserError(f'{name}: there is no such file')
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f'{name} is no safetensors file: {one_line(error)}') from error
    return {
        key: array if array.dtype.kind in 'iub' else array.astype(np.float32)
        for key, array in arrays.items()
    }


def num_classes(arrays: Arrays, expected: Mapping[str, Any], own: int) -> int:
    """Returns the number of classes of a model that may have others than the network.

    The output layer is the one layer whose arrays differ from the expected ones in width alone.

    Args:
        arrays: of the model, by path.
        expected: the shapes of the network's arrays by path.
        own: classes of the network.
    """
    widths = {
        (path.rpartition('/')[0], array.shape[-1])
        for path, array in arrays.items()
        if path in expected
        and array.shape != expected[path].shape
        and expected[path].shape == (*array.shape[:-1], own)
    }
    return widths.pop()[1] if len(widths) == 1 else own
